"""Answers are kept for as long as the code behind them is the same."""

from pathlib import Path

from trainer.comparison.code_version import code_of
from trainer.comparison.contender import Contender


def test_options_are_no_code_and_models_differ_by_theirs() -> None:
    """A model with other options runs the same code; another model does not."""
    plain, with_options = Contender("bias", "bias"), Contender("bias@x=1", "bias", ("x=1",))

    assert code_of(plain) == code_of(with_options)
    assert code_of(plain) != code_of(Contender("item-knn", "item-knn"))


def test_a_program_is_the_files_that_it_names_and_their_neighbours(tmp_path: Path) -> None:
    """A changed neighbour makes another program of it; a changed text file does not."""
    program = Contender("p", command=("python", str(tmp_path / "answer.py"), "als"))
    (tmp_path / "answer.py").write_text("import beside")
    (tmp_path / "beside.py").write_text("one = 1")
    before = code_of(program)

    (tmp_path / "notes.txt").write_text("none of it")
    unchanged = code_of(program)
    (tmp_path / "beside.py").write_text("one = 2")

    assert unchanged == before
    assert code_of(program) != before
