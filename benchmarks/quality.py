"""How good is every model, beside the libraries that a user would pick? Writes docs/quality.md from real data.

    python benchmarks/quality.py [--jobs 2] [--minutes 45] [--only NAME ...] [--list]

MARQUEE_DATA names a folder with ml-100k, ml-latest-small and ml-1m-untimed. What was answered is kept in .run/quality:
a run that was interrupted, or whose minutes were up, goes on, and the page is built from all that is there. Parts are
run in the order of PARTS, the one that matters most first.
"""

import argparse
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from benchmarks.libraries.answer import METHODS
from benchmarks.record import RESULTS, commit, machine
from trainer.comparison.calibration_table import render_calibration, render_calibration_of_strangers
from trainer.comparison.cold_table import render_new_movies, render_new_users
from trainer.comparison.comparing import Comparison, Plan, lay_out, make_tasks
from trainer.comparison.contender import Contender, parse_contenders, parse_program
from trainer.comparison.notebook_protocol import compare_notebooks, render_notebooks
from trainer.comparison.plot import draw
from trainer.comparison.runner import Outcome, Reading, run_tasks
from trainer.comparison.table import HOW_TO_READ, markdown_table, render
from trainer.errors import TrainerError
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import Snapshot, take_snapshot
from two_tower.models import MODELS

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / ".run" / "quality"
PAGE = ROOT / "docs" / "quality.md"
NOTEBOOKS_PAGE = ROOT / "docs" / "from-the-notebooks.md"
LIBRARIES_PYTHON = ROOT / ".venv-libraries" / "bin" / "python"
NOTEBOOKS_MARK = "<!-- tables: written by make quality -->"

RECIPE = Contender(
    "recipe build",
    "marquee",
    ("hidden_size=1000", "towers=1", "machine_rank=24", "machine_size=64", "prior_spread=2"),
)
"""On MovieLens 1M: what the recipe says, where our defaults have moved on. Over seeds, and on the smaller sets,
benchmarks/recipe_rating_pairs.py and benchmarks/recipe_ranking_pairs.py compare with it; the page shows the results."""
PAIRS = ("recipe_rating_pairs", "recipe_rating_pairs_ml-1m", "recipe_ranking_pairs")


@dataclass(frozen=True, slots=True)
class Part:
    """One comparison on the page.

    Attributes:
        name: What `--only` calls it.
        data: Folder below MARQUEE_DATA.
        holdout: As `--holdout` takes it.
        seeds: Seeds of split and fit.
        models: Contenders, separated by commas; "" for all models.
        libraries: Whether the libraries stand beside them.
        with_recipe: Whether the recipe build does.
        minutes: What it takes on one core, about; to say beforehand.
        published: What papers report for something like it, one sentence.
        untimed: Whether rows of data with times are held out without regard to them: then who can be told so ranks
            without regard to them too.
    """

    name: str
    data: str
    holdout: str
    seeds: tuple[int, ...]
    models: str = ""
    libraries: bool = True
    minutes: float = 0.0
    published: str = ""
    with_recipe: bool = False
    untimed: bool = False


_UNTIMED = {"marquee": ("ranking_timed=false",), "item-knn": ("decay_events=0",)}
"""Options of models that otherwise rank what comes next."""

_ML_100K_U1 = "Published, on the same split: GHRS 0.887, GLocal-K 0.8889 (RMSE)."
_ML_1M = "Published, on other random 90/10 splits: GLocal-K 0.8227, SparseFC 0.823 (RMSE)."
_SMALL = "Published, on another random 90/10 split: SVD++ 0.849 (RMSE)."

PARTS = (
    Part("ml-100k-u1", "ml-100k", "u1.test", (0,), minutes=9, published=_ML_100K_U1, untimed=True),
    Part("small-random", "ml-latest-small", "random:0.1", (0,), minutes=13, published=_SMALL, untimed=True),
    Part("ml-100k-last", "ml-100k", "leave-last", (0,), minutes=9),
    Part("small-last", "ml-latest-small", "leave-last", (0,), minutes=11),
    Part("ml-1m-random", "ml-1m-untimed", "random:0.1", (0,), minutes=40, published=_ML_1M),
    Part("ml-100k-temporal", "ml-100k", "temporal:0.1", (0,), minutes=9),
)
COLD = (
    Part("cold-users", "ml-1m-untimed", "new-users:0.1", (0,), "marquee,bias", False, 8, with_recipe=True),
    Part("cold-movies", "ml-1m-untimed", "new-movies:0.05", (0,), "marquee,bias", False, 8, with_recipe=True),
)
NOTEBOOKS = (
    Part("notebooks-100k", "ml-100k", "", (0,), minutes=2),
    Part("notebooks-small", "ml-latest-small", "", (0,), minutes=6),
    Part("notebooks-1m", "ml-1m-untimed", "", (0,), minutes=20),
)
EVERYTHING = (*PARTS, *COLD, *NOTEBOOKS)


class Workshop:
    """Runs parts and keeps the data sets that they share."""

    def __init__(self, data: Path, jobs: int, until_s: float, any_code: bool, say: Callable[[str], None]) -> None:
        """Reads nothing yet."""
        self._data = data
        self._jobs = jobs
        self._until_s = until_s
        self._any_code = any_code
        self._say = say
        self._snapshots: dict[str, Snapshot] = {}

    def plan(self, part: Part) -> Plan:
        """Returns who is compared in a part."""
        contenders = parse_contenders(part.models or ",".join(MODELS))
        if part.untimed:
            contenders = [replace(each, options=_UNTIMED.get(each.model, ())) for each in contenders]
        if part.with_recipe:
            contenders.append(RECIPE)
        if part.libraries:
            contenders += libraries()
        return Plan(contenders, part.holdout, part.seeds, "marquee")

    def run(self, part: Part) -> Outcome:
        """Runs what is missing of a part."""
        tasks = make_tasks(self.snapshot(part.data), self.plan(part))
        return run_tasks(
            WORK,
            tasks,
            self.reading(part.data),
            jobs=self._jobs,
            any_code=self._any_code,
            until_s=self._until_s,
            say=self._say,
        )

    def compare(self, part: Part, view: str | None = None) -> Comparison:
        """Runs what is missing of a part and lays it out."""
        return lay_out(self.plan(part), part.data, self.run(part), view)

    def notebooks(self, part: Part) -> str:
        """Runs the notebooks' models on one data set and returns their table."""
        snapshot = self.snapshot(part.data)
        lines = compare_notebooks(
            snapshot,
            self.reading(part.data),
            parse_contenders(",".join(MODELS)),
            part.seeds,
            None,
            WORK,
            jobs=self._jobs,
            any_code=self._any_code,
            until_s=self._until_s,
            say=self._say,
        )
        return render_notebooks(part.data, lines)

    def snapshot(self, name: str) -> Snapshot:
        """Returns a data set, read once."""
        if name not in self._snapshots:
            self._snapshots = {name: take_snapshot(str(self._data / name), ReadOptions())}
        return self._snapshots[name]

    def reading(self, name: str) -> Reading:
        """Returns how another process reads it."""
        return Reading(str(self._data / name))


def libraries() -> list[Contender]:
    """Returns the libraries, asked in their own environment; none where that is not there."""
    if not LIBRARIES_PYTHON.exists():
        return []
    script = ROOT / "benchmarks" / "libraries" / "answer.py"
    # The command is part of what is kept: it must not depend on where the project lies.
    words = [os.path.relpath(LIBRARIES_PYTHON), os.path.relpath(script)]
    return [parse_program(f"{method}={shlex.join([*words, method])}") for method in METHODS]


def section(part: Part, comparison: Comparison) -> str:
    """Returns a part as it stands on the page."""
    picture = PAGE.with_name(f"quality-{part.name}.svg")
    drawn = draw(comparison, picture)
    text = render(comparison, plot=picture.name if drawn else None, explained=False)
    if part.untimed:
        told = " and ".join(f"`{model}` with `{' '.join(options)}`" for model, options in _UNTIMED.items())
        text += f"- Rows are held out without regard to times, so lists are of what a user likes at any time: {told}.\n"
    return text + (f"- {part.published}\n" if part.published else "")


def recipe_pairs() -> str:
    """Returns what the pairs with the recipe build came to, "" where they were not run."""
    lines, sources = [], []
    for name in PAIRS:
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        found = json.loads(path.read_text())
        sources.append(f"- `{found['command']}` at `{found['commit']}`")
        for row in found["figures"]["rows"]:
            metric, holdout = ("RMSE", row["holdout"]) if "holdout" in row else ("NDCG@10", "leave-last")
            low, high = row["interval_95"]
            difference = f"{row['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
            lines.append(
                [
                    f"{row['data']}, `{holdout}`",
                    metric,
                    f"{len(row['seeds'])}",
                    f"{row['mean_marquee']:.4f}",
                    f"{row['mean_recipe']:.4f}",
                    f"**{difference}**" if low > 0 or high < 0 else difference,
                ]
            )
    if not lines:
        return ""
    header = ["rows", "metric", "seeds", "`marquee`", "recipe build", "difference [95%]"]
    return markdown_table(header, lines) + "\n\n" + "\n".join(sources) + "\n"


def page(workshop: Workshop, chosen: Sequence[Part], say: Callable[[str], None], code: str) -> str:
    """Runs the parts and returns the page."""
    texts: dict[str, str] = {}
    calibrations: list[str] = []
    for part in (each for each in PARTS if each in chosen):
        say(f"== {part.name}: about {part.minutes:.0f} minutes of one core if nothing of it is there")
        try:
            comparison = workshop.compare(part)
        except TrainerError as error:
            # One part that cannot be built must not cost the others.
            say(f"{part.name}: {error}")
            texts[part.name] = f"### {part.data}, `{part.holdout}`\n\nCame to nothing: {error}\n"
            continue
        texts[part.name] = section(part, comparison)
        if part.libraries:
            calibrations.append(render_calibration(comparison))
    cold: list[str] = []
    for part in (each for each in COLD if each in chosen):
        say(f"== {part.name}: about {part.minutes:.0f} minutes of one core if nothing of it is there")
        outcome = workshop.run(part)
        plan = workshop.plan(part)
        if not outcome.cells:
            continue
        views = list(outcome.cells[0].views)
        laid = {view: lay_out(plan, part.data, outcome, view) for view in views}
        cold.append(render_new_users(laid) if part.name == "cold-users" else render_new_movies(laid[views[0]]))
        calibrations.append(render_calibration_of_strangers(laid[views[0]]))
    common = "\n".join(texts[part.name] for part in PARTS if part.name in texts)
    return _PAGE.format(
        recipe=", ".join(f"`{option}`" for option in RECIPE.options),
        how_to_read="\n".join(f"* {line}" for line in HOW_TO_READ),
        commit=code,
        machine=machine(),
        common=common,
        paired=recipe_pairs() or "Not run.\n",
        cold="\n".join(cold) or "Not run.\n",
        calibration="\n".join(text for text in calibrations if text) or "Not run.\n",
    )


_PAGE = """# Quality

How good is every model, beside implicit, scikit-surprise and LensKit? In short: the tables of the [front
page](../README.md#what-is-measured). Here: [all models and libraries](#all-models-and-libraries) on each split,
[seeds in pairs](#against-the-recipe-build-paired-over-seeds), [strangers](#strangers), and
[whether intervals hold](#do-80-intervals-hold-80).

Written by `MARQUEE_DATA=... make quality` at `{commit}`
on {machine}. Times are of one
processor thread on a machine that had other work too: compare the processor seconds. How it is done:
`trainer/comparison/`, `benchmarks/quality.py`; what the libraries are told: `benchmarks/libraries/`.

Every model and every library learns from the same rows and is judged on the same rows, as it would serve: ratings and
lists of our models come from `embed_users` on stored histories. The recipe build is `marquee` with the constants that
it started from; on MovieLens 1M {recipe}.
Nothing was tuned on a row that is judged here.

{how_to_read}

## All models and libraries

{common}
## Against the recipe build, paired over seeds

The head in question alone, on identical rows; intervals of 95%, from users drawn with replacement.

{paired}
## Strangers

{cold}
## Do 80% intervals hold 80%?

Share of held-out ratings that lay within ±1.2816 of the stated standard deviation, by how many ratings of the user were
known.

{calibration}"""


def write_notebooks(tables: Sequence[str], code: str) -> None:
    """Puts the notebooks' tables at the end of their page."""
    head = NOTEBOOKS_PAGE.read_text().partition(NOTEBOOKS_MARK)[0]
    NOTEBOOKS_PAGE.write_text(f"{head}{NOTEBOOKS_MARK}\n\nMeasured at `{code}`.\n\n" + "\n".join(tables))


def _silent(_text: str) -> None:
    """Says nothing."""


def main() -> int:
    """Runs what was asked for and writes the pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="fits at a time")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start nothing after so many")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[part.name for part in EVERYTHING])
    parser.add_argument("--any-code", action="store_true", help="take kept answers of other code too")
    parser.add_argument("--list", action="store_true", help="name the parts and what they take, and end")
    arguments = parser.parse_args()
    chosen = [part for part in EVERYTHING if arguments.only is None or part.name in arguments.only]
    console = Console(highlight=False, soft_wrap=True)
    for part in chosen:
        console.print(f"{part.name:18} {part.data:16} {part.holdout:16} about {part.minutes:3.0f} minutes of one core")
    console.print(f"together about {sum(part.minutes for part in chosen) / arguments.jobs:.0f} minutes")
    if arguments.list:
        return 0
    if "MARQUEE_DATA" not in os.environ:
        sys.exit("MARQUEE_DATA must name a folder that holds ml-100k, ml-latest-small and ml-1m-untimed")
    if not LIBRARIES_PYTHON.exists():
        console.print("The libraries are not there, so their rows will be missing: make libraries")
    os.chdir(ROOT)
    until_s = time.monotonic() + arguments.minutes * 60
    data = Path(os.environ["MARQUEE_DATA"])
    # Before the pages are written, which alone would make the tree differ from its commit.
    code = commit()
    workshop = Workshop(data, arguments.jobs, until_s, arguments.any_code, console.print)
    if arguments.only is not None:
        for part in chosen:
            workshop.notebooks(part) if part in NOTEBOOKS else workshop.run(part)
        # The pages hold all that is there, whatever was asked for this time.
        workshop = Workshop(data, arguments.jobs, time.monotonic(), arguments.any_code, _silent)
    PAGE.write_text(page(workshop, EVERYTHING, console.print, code))
    write_notebooks([workshop.notebooks(part) for part in NOTEBOOKS], code)
    console.print(f"written: {PAGE.relative_to(ROOT)}, {NOTEBOOKS_PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
