"""Names what is compared: a model of ours with its options, or somebody else's program. Runs neither."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.errors import TrainerError
from trainer.fits import fit_function
from trainer.fits.options import parse_options

SYNTAX = "NAME or NAME@FIELD=VALUE@..."


class ContenderError(TrainerError):
    """Something that cannot be compared."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table.

    Attributes:
        name: What it is called in the table, unique there.
        model: Name of the model, "" for a program.
        options: "field=value" texts for the fit.
        command: Words of the program that answers in the model's place; it gets a folder as a last argument
            (trainer/comparison/outsider.py).
    """

    name: str
    model: str = ""
    options: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def parse_contenders(text: str) -> list[Contender]:
    """Reads models as they are written on a command line: `marquee,marquee@epochs=5@hidden=200,bias`.

    Raises:
        ContenderError: The text is empty or names the same contender twice.
        UnknownModelError: No model has this name; the message lists those that exist.
        OptionsError: The model has no such option; the message lists those that exist.
    """
    contenders = []
    for part in (part.strip() for part in text.split(",")):
        if not part:
            raise ContenderError(f"--models {text!r}: a name is missing; give {SYNTAX}, separated by commas")
        model, *options = part.split("@")
        parse_options(fit_function(model).options_class, options)
        contenders.append(Contender(part, model, tuple(options)))
    require_unique(contenders)
    return contenders


def parse_program(text: str) -> Contender:
    """Reads a program as it is written on a command line: `NAME=COMMAND WORDS`.

    Raises:
        ContenderError: There is no name or no command.
    """
    name, equals, command = text.partition("=")
    words = shlex.split(command)
    if not (name.strip() and equals and words):
        raise ContenderError(f"--program {text!r}: give NAME=COMMAND, for example als='python answer.py als'")
    return Contender(name.strip(), command=tuple(words))


def require_unique(contenders: Sequence[Contender]) -> None:
    """Refuses two contenders of one name.

    Raises:
        ContenderError: There are two.
    """
    names = [contender.name for contender in contenders]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ContenderError(f"{', '.join(twice)}: named twice; each row of the table needs a name of its own")
