"""Words of a command line that mean nothing, and texts from data that a terminal would obey."""

from pathlib import Path

import pytest
from rich.table import Table

from tests.trainer.command_runs import run
from trainer.commands.terminal import Terminal
from trainer.errors import DataError
from trainer.moments import moment_text
from trainer.readers.read_options import parse_scale

RATINGS = "userId,movieId,rating\n" + "".join(
    f"{user},{movie},{1 + user % 5}\n" for user in range(9) for movie in "abc"
)


@pytest.mark.parametrize("command", [("registry", "gc"), ("inspect-checkpoint",), ("train", "--data", "toy")])
def test_an_empty_registry_is_not_the_present_folder(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what a shell makes of a variable that is not set; nothing is read or written for it."""
    monkeypatch.chdir(tmp_path)

    ran = run(*command, "--registry", "")

    assert ran.status == 2
    assert "after --registry is empty" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_word_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """No manifest could hold such a name: it is refused before anything is trained or written."""
    ran = run("synthesize", f"{tmp_path}/\udcff", "--users", 40)

    assert ran.status == 2
    assert "word 2 after synthesize is not UTF-8" in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scale", ["1:5:1e-320", "-1e308:1e308:1", "1:5:nan", "nan:5:1"])
def test_a_scale_of_numbers_that_cannot_be_divided_is_refused(scale: str) -> None:
    """What is right is said, with an example."""
    with pytest.raises(DataError, match=r"must be LOW:HIGH:STEP.*for example 0.5:5:0.5"):
        parse_scale(scale)


def test_a_data_set_may_be_called_like_markup(tmp_path: Path) -> None:
    """Its name stands in tables as it is."""
    folder = tmp_path / "[" / "x]:heart:"
    folder.mkdir(parents=True)
    (folder / "ratings.csv").write_text(RATINGS)

    inspected = run("inspect", folder)
    trained = run("train", "--data", folder, "--registry", tmp_path / "registry", "--model", "mean", "--no-report")

    assert (inspected.status, trained.status) == (0, 0), inspected.err + trained.err
    assert "x]:heart:" in inspected.out
    assert "mean on x]:heart:" in trained.out


def test_a_download_of_what_is_markup_is_refused_by_name(tmp_path: Path) -> None:
    """The sentence lists what there is."""
    ran = run("download", "[/red]", "--cache", tmp_path)

    assert ran.status == 2
    assert "[/red]" in ran.err
    assert "ml-100k" in ran.err


def test_a_title_gives_a_terminal_no_orders(capsys: pytest.CaptureFixture[str]) -> None:
    """What would clear the screen or turn the text red is shown, not done; letters of any script stay."""
    table = Table(title="[/x]")
    table.add_row("\x1b[2J[bold]Am\u00e9lie[/bold] \U0001f600\x07\x9b31m")

    Terminal().print(table)

    written = capsys.readouterr().out
    assert "[/x]" in written
    assert r"\x1b[2J[bold]Amélie[/bold] 😀\x07\x9b31m" in written
    assert "\x1b" not in written


@pytest.mark.parametrize(("moment", "told"), [(10**30, f"{10**30} ms after 1970"), (-(10**18), "ms after 1970")])
def test_a_moment_that_no_calendar_has_is_shown_as_its_number(moment: int, told: str) -> None:
    """The label or journal that it stands in is damaged, and all else of it can still be read."""
    assert told in moment_text(moment)


def test_half_a_letter_is_shown_as_its_escape(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON can hold halves of surrogate pairs, which no terminal takes."""
    Terminal().print("why: \ud83d")

    assert r"why: \ud83d" in capsys.readouterr().out


def test_an_error_gives_a_terminal_no_orders(tmp_path: Path) -> None:
    """It quotes names of files, which may hold anything."""
    ran = run("inspect", tmp_path / "\x1b[2Jnone")

    assert ran.status == 2
    assert r"\x1b[2Jnone: no such file" in ran.err
    assert "\x1b" not in ran.err
