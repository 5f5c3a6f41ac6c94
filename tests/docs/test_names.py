"""What pages name is there: files, sections, make targets, modules, commands with their options, settings.

Decisions, experiments and the changelog tell of their day, so of them links alone are looked at.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main

from feature_service.settings import FeatureSettings
from model_service.settings import ModelSettings
from trainer.commands.app import make_app

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / folder / "README.md" for folder in ("protos", "examples/node")),
]
OF_THEIR_DAY = {ROOT / "CHANGELOG.md", ROOT / "docs" / "experiments.md", *(ROOT / "docs" / "decisions").glob("*.md")}
OF_TODAY = [page for page in PAGES if page not in OF_THEIR_DAY]
SERVICES = ("service_runtime", "feature_service", "model_service")
PACKAGES = (*SERVICES, "two_tower", "trainer", "deploy", "benchmarks", "tests")
OF_COMPOSE = ("FEATURE_PORT", "MODEL_PORT")
ELSEWHERE = ("registry/", ".run/", "DIR/")
"""Where a path of a page is one of a running stack or of a reader's own."""
REASONS = {
    reason
    for service in SERVICES
    for code in (ROOT / service).glob("*.py")
    for reason in re.findall(r'"((?:FEATURE|MODEL)_[A-Z_]+)"', code.read_text(encoding="utf-8"))
}
"""Of errors; some look like settings."""
TRAINER: Any = typer.main.get_command(make_app())

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s:]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_TARGET = re.compile(r"`(?:\w+=\S+ )*make ([a-z -]+)")
_FENCED_TARGET = re.compile(r"^(?:\w+=\S+ )*make ([a-z -]+)", re.MULTILINE)
_MODULE = re.compile(r"-m ((?:" + "|".join(PACKAGES) + r")[\w.]*)")
_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)`|python ((?:\w+/)+\w+\.py)")
_SETTING = re.compile(r"\b(?:FEATURE|MODEL)_[A-Z]+(?:_[A-Z]+)*\b")
_COMMAND = re.compile(r"(?:-m trainer|`trainer|run rebuild) ([a-z][^`\n#]*)")


def ids(pages: list[Path]) -> list[str]:
    """Returns what tests about pages are called."""
    return [str(page.relative_to(ROOT)) for page in pages]


def anchor(heading: str) -> str:
    """Returns what a heading is linked by, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def command(words: list[str]) -> tuple[Any, list[str]] | None:
    """Returns the command of the trainer that words begin with and the other words, None if there is none."""
    found, rest = TRAINER, words
    while hasattr(found, "commands"):
        if not rest:
            break
        if rest[0] not in found.commands:
            return None
        found, rest = found.commands[rest[0]], rest[1:]
    return found, rest


def unknown_commands(text: str) -> Iterator[str]:
    """Yields what the trainer would refuse of the command lines in a text."""
    for line in _COMMAND.findall(text.replace("\\\n", " ")):
        known = command(line.split())
        if known is None:
            yield line
            continue
        options = {name for each in known[0].params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
        for word in known[1]:
            option = word.partition("=")[0].rstrip(".,;:)")
            if option.startswith("--") and option not in options:
                yield f"{option} of {line}"


def missing(names: Mapping[str, bool]) -> list[str]:
    """Returns the names that nothing has."""
    return [name for name, is_there in names.items() if not is_there]


@pytest.mark.parametrize("page", PAGES, ids=ids(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    """To a file or folder of the repository, and to a section of it."""
    there = {}
    for link in _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))):
        path, _, section = link.partition("#")
        target = page.parent / path if path else page
        there[link] = target.exists() and (
            not section or section in map(anchor, _HEADING.findall(target.read_text(encoding="utf-8")))
        )

    assert missing(there) == []


@pytest.mark.parametrize("page", OF_TODAY, ids=ids(OF_TODAY))
def test_what_a_page_names_is_there(page: Path) -> None:
    """A target, module, script, file or folder, setting, command or option that goes takes its mention along."""
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    settings = {*FeatureSettings.variables().values(), *ModelSettings.variables().values(), *OF_COMPOSE, *REASONS}
    made = [*_TARGET.findall(text), *_FENCED_TARGET.findall("".join(_FENCED.findall(text)))]
    there = {f"make {target}": target in targets for several in made for target in several.split()}
    for module in _MODULE.findall(text):
        path = ROOT / module.replace(".", "/").rstrip("/")
        there[f"-m {module}"] = path.with_suffix(".py").exists() or (path / "__main__.py").exists()
    for path in map("".join, _PATH.findall(text)):
        there[path] = path.startswith(ELSEWHERE) or (ROOT / path).exists() or (page.parent / path).exists()
    there |= {name: name in settings for name in _SETTING.findall(text)}
    there |= dict.fromkeys(unknown_commands(text), False)

    assert missing(there) == []


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("`trainer train --data D --holdout newest:0.1`", []),
        ("`trainer label VERSION`", ["label VERSION"]),
        ("python -m trainer rebuild --evry 6h --registry R", ["--evry of rebuild --evry 6h --registry R"]),
    ],
)
def test_a_command_that_the_trainer_lacks_is_found(line: str, refused: list[str]) -> None:
    """So that the test above is about something."""
    assert list(unknown_commands(line)) == refused
