"""The help pages say what a newcomer has to know, in whole sentences."""

from pathlib import Path

from tests.trainer.command_runs import run


def test_inspect_model_takes_the_bags_that_train_took(tmp_path: Path) -> None:
    """Data read without them is other data, which inspect-model refuses."""
    (tmp_path / "movies.csv").write_text("movieId,title,cast\n" + "".join(f"{n},M{n},A|B\n" for n in range(8)))
    rows = (
        f"{user},{movie},{1 + (user + movie) % 5}\n" for user in range(30) for movie in range(8) if user % 3 - movie
    )
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\n" + "".join(rows))
    there = ("--data", tmp_path, "--registry", tmp_path / "r", "--movie-bag", "cast")
    trained = run("train", *there, "--model", "mean", "--no-report")

    shown = run("inspect-model", *there)

    assert (trained.status, shown.status) == (0, 0), trained.err + shown.err
    assert "mean" in shown.out
