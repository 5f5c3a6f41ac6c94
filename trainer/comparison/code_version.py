"""Names the code that answers, so that what other code answered is not taken for it. Reads files; runs nothing.

Of a model of ours that is every module of `trainer` and `two_tower` that its fit, its serving and its judging import,
and what those import; so a change elsewhere does not make an hour of fits obsolete. What readers and splits make of
files is in the hashes of the data and of the rows.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import trainer
import two_tower
from trainer.comparison.contender import Contender
from trainer.fits import FITS
from two_tower.models import MODELS

_PACKAGES = {"trainer": trainer, "two_tower": two_tower}
_JUDGING = ("trainer.evaluation", "trainer.comparison.views")
_APART = (
    "trainer.fits.options",
    "two_tower.errors",
    "two_tower.golden",
    "two_tower.manifest",
    "two_tower.rating_spread",
    "two_tower.strict_json",
)
"""Of no consequence for an answer."""


def code_of(contender: Contender) -> str:
    """Returns a hash over the code that a contender's answers depend on.

    Of a program: the Python files that its command names, and those beside them.
    """
    if contender.command:
        named = (path for path in map(Path, contender.command) if path.is_file() and path.suffix == ".py")
        return _hash(beside for path in named for beside in path.parent.glob("*.py"))
    return _code_of_model(contender.model)


@cache
def _code_of_model(model: str) -> str:
    waiting = [*_JUDGING, FITS[model], MODELS[model].partition(":")[0]]
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        path = _path_of(name)
        if path is None or name in found or name.startswith(_APART):
            continue
        found[name] = path
        waiting += _imports(path)
    return _hash(found.values())


def _path_of(name: str) -> Path | None:
    """Returns the file of a module of ours, None for a package: those hold names of others, and no answers."""
    package, _, rest = name.partition(".")
    if package not in _PACKAGES or not rest:
        return None
    path = Path(str(_PACKAGES[package].__file__)).parent.joinpath(*rest.split(".")).with_suffix(".py")
    return path if path.is_file() else None


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _hash(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
