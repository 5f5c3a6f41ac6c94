"""The data commands work from a command line, and their errors end with status 2 and one message."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainer.commands.app import make_app


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Runs commands with a wide terminal, so that tables do not wrap."""
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner()


def test_synthesize_and_inspect_work_together(runner: CliRunner, tmp_path: Path) -> None:
    """What one command writes, the next one describes, with the command to run after it."""
    folder = tmp_path / "made"
    figures = ["--users", "40", "--movies", "60", "--ratings", "900", "--seed", "5"]

    made = runner.invoke(make_app(), ["synthesize", str(folder), *figures])
    inspected = runner.invoke(make_app(), ["inspect", str(folder)])

    assert made.exit_code == 0, made.output
    assert "40 users, 60 movies, 900 ratings, seed 5" in made.output
    assert inspected.exit_code == 0, inspected.output
    assert "0.5 to 5 in steps of 0.5" in inspected.output
    assert "python -m trainer train --data" in inspected.output
    assert "marquee" in inspected.output


def test_inspect_takes_the_data_options(runner: CliRunner, tmp_path: Path) -> None:
    """Columns, movies file, scale and limit are passed on and repeated in the command to run."""
    (tmp_path / "views.csv").write_text("uid,film,stars\n" + "".join(f"{n},a,{n % 11}\n" for n in range(50)))
    (tmp_path / "films.csv").write_text("id,title\na,Alpha (1999)\n")
    options = ["--columns", "user=uid,movie=film,rating=stars", "--movies", str(tmp_path / "films.csv")]
    options += ["--scale", "1:10:1", "--max-broken", "0.2"]

    result = runner.invoke(make_app(), ["inspect", str(tmp_path / "views.csv"), *options])

    assert result.exit_code == 0, result.output
    assert "1 to 10 in steps of 1, stated" in result.output
    assert "rating off the scale" in result.output
    assert "--scale 1:10:1 --max-broken 0.2" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "absent"], "absent: no such file or folder"),
        (["inspect", ".", "--columns", "usr=a"], '"usr" is not one of user'),
        (["inspect", ".", "--scale", "9:1:1"], "LOW:HIGH:STEP"),
        (["download", "ml-9k"], "there are ml-100k"),
        (["synthesize", "made", "--users", "0"], "0 users: at least 1"),
    ],
)
def test_errors_are_one_message_and_status_2(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """A person who misspells something reads what would be right, and scripts see the status."""
    monkeypatch.chdir(tmp_path)

    result = runner.invoke(make_app(), arguments)

    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
