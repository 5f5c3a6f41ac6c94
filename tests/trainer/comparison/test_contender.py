"""What is compared is named on a command line; what does not exist is refused with what does."""

import pytest

from trainer.comparison.contender import ContenderError, parse_contenders, parse_program
from trainer.comparison.seeds import SeedsError, parse_seeds
from trainer.fits.options import OptionsError
from two_tower.errors import UnknownModelError


def test_models_carry_their_options() -> None:
    """The whole text is the name, so that two settings of one model are two rows."""
    first, second = parse_contenders("two-tower-history, two-tower-history@epochs=2@layers=1")

    assert (first.model, first.options) == ("two-tower-history", ())
    assert (second.name, second.model) == ("two-tower-history@epochs=2@layers=1", "two-tower-history")
    assert second.options == ("epochs=2", "layers=1")


def test_a_model_that_does_not_exist_lists_those_that_do() -> None:
    """So does an option."""
    with pytest.raises(UnknownModelError, match=r"no model 'marqee'; the models are .*marquee"):
        parse_contenders("bias,marqee")
    with pytest.raises(OptionsError, match=r"no option 'epoch'\. The options .* epochs"):
        parse_contenders("two-tower-history@epoch=2")


@pytest.mark.parametrize(("text", "message"), [("", "a name is missing"), ("bias,", "missing"), ("bias,bias", "twice")])
def test_malformed_lists_of_models_are_refused(text: str, message: str) -> None:
    """Each row needs a name, of its own."""
    with pytest.raises(ContenderError, match=message):
        parse_contenders(text)


def test_a_program_is_a_name_and_its_words() -> None:
    """Words are taken apart as a shell would."""
    assert parse_program("als=python 'my file.py' x").command == ("python", "my file.py", "x")
    with pytest.raises(ContenderError, match="NAME=COMMAND"):
        parse_program("python answer.py")


@pytest.mark.parametrize(("text", "seeds"), [("0", (0,)), ("0,2,1", (0, 2, 1)), ("0-3,2,7", (0, 1, 2, 3, 7))])
def test_seeds_are_listed_or_counted(text: str, seeds: tuple[int, ...]) -> None:
    """Each once, in the order given."""
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1-", "3-1", "-1", "1.5", "0,,1", "4294967296"])
def test_malformed_seeds_are_refused(text: str) -> None:
    """The message repeats what was written."""
    with pytest.raises(SeedsError, match="0-4"):
        parse_seeds(text)
