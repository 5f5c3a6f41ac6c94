"""Names the code that answers, so that what other code answered is not taken for it. Knows files; runs nothing."""

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import trainer
import two_tower
from trainer.comparison.contender import Contender


def code_of(contender: Contender) -> str:
    """Returns a hash over the code that a contender's answers depend on.

    Of a model of ours: `two_tower`, and `trainer` without its commands and this package. Of a program: the Python files
    that its command names, and those beside them.
    """
    if contender.command:
        named = (path for path in map(Path, contender.command) if path.is_file() and path.suffix == ".py")
        return _hash(beside for path in named for beside in path.parent.glob("*.py"))
    return _our_code()


@cache
def _our_code() -> str:
    ours = [Path(str(package.__file__)).parent for package in (two_tower, trainer)]
    apart = {ours[1] / "commands", ours[1] / "comparison"}
    return _hash(path for folder in ours for path in folder.rglob("*.py") if not apart.intersection(path.parents))


def _hash(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
