"""Options on the command line become a fit's options, or every mistake is said at once."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from trainer.fits.options import OptionsError, parse_options


@dataclass(frozen=True)
class Options:
    colour: Literal["red", "blue"] = "red"
    layers: Literal[1, 2] = 2
    epochs: int = field(default=3, metadata={"low": 1, "high": 10})
    rate: float = field(default=0.1, metadata={"low": 0.0, "high": 1.0})
    strict: bool = False
    size: int | None = None


def test_what_is_not_named_keeps_its_default() -> None:
    """No text, no change."""
    assert parse_options(Options, []) == Options()


def test_texts_become_values_of_the_right_type() -> None:
    """Choices, numbers, truth values and absent values; dashes are as good as underscores."""
    texts = ["colour=blue", "layers=1", "epochs=10", "rate=1e-3", "strict=yes", "size=7"]

    assert parse_options(Options, texts) == Options("blue", 1, 10, 0.001, True, 7)
    assert parse_options(Options, ["size=none"]) == Options()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour=green", "colour: 'green' is not red|blue"),
        ("layers=3", r"layers: '3' is not 1\|2"),
        ("epochs=0", "epochs: '0' is not a whole number from 1 to 10"),
        ("epochs=2.5", "not a whole number"),
        ("rate=nan", "rate: 'nan' is not a number from 0 to 1"),
        ("strict=maybe", "not true or false"),
        ("epochs", "'epochs' is not of the form field=value"),
        ("epoch=1", r"there is no option 'epoch'.*epochs \(int, 3\)"),
    ],
)
def test_mistakes_say_what_would_be_right(text: str, message: str) -> None:
    """A wrong name lists the names, a wrong value its type or range."""
    with pytest.raises(OptionsError, match=message):
        parse_options(Options, [text])


def test_all_mistakes_are_said_at_once() -> None:
    """Nobody has to try again for each of them."""
    with pytest.raises(OptionsError, match=r"no option 'a'.*no option 'b'.*set twice"):
        parse_options(Options, ["a=1", "b=2", "epochs=2", "epochs=3"])
