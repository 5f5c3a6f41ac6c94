"""The help pages say what a newcomer has to know, in whole sentences."""

import re
from pathlib import Path

import pytest

from tests.trainer.command_runs import run

PAGES = (
    *("download", "synthesize", "inspect", "train", "evaluate", "tune", "compare", "coldstart", "inspect-model"),
    *("inspect-checkpoint", "promote", "publish", "rebuild", "predict", "topk", "bootstrap"),
    *("registry backup", "registry restore", "registry gc"),
)


@pytest.mark.parametrize("group", ["", "registry"])
def test_the_list_of_commands_is_of_whole_sentences(group: str) -> None:
    """On a terminal of 80 columns none is cut off, and every page that is tested here is in the list."""
    page = run(*group.split(), "--help", columns=80).out

    listed = page.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert all(line.endswith(".") and not line.endswith("..") for line in listed), page
    names = {" ".join((*group.split(), line.split()[0])) for line in listed} - {"registry"}
    assert names == {page for page in PAGES if page.startswith("registry ") == bool(group)}


@pytest.mark.parametrize("page", PAGES)
def test_an_option_says_what_it_takes(page: str) -> None:
    """Not that it is a text or a list of texts, which every word of a command line is; and what it means."""
    shown = run(*page.split(), "--help").out

    options = [re.sub(r"\[.*\]", "", line).split() for line in shown.splitlines() if line.startswith("  -")]
    assert options
    assert not [words for words in options if words[1] == "<str>" or words[1].startswith("<list")]
    assert not [words for words in options if len(words) < 4]


def test_the_holdouts_are_explained_one_by_one() -> None:
    """Who has never divided data reads what each rule keeps back."""
    shown = " ".join(run("train", "--help").out.split())

    for rule in ("temporal:F each", "newest:F the", "after:MS all", "leave-last each", "random:F a", "every:N each"):
        assert rule in shown


def test_a_newcomer_reads_where_to_begin() -> None:
    """In the words of the first page."""
    assert "python -m trainer inspect ml-100k" in run("--help").out


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
