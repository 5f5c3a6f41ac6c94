"""Says what a data set is, what is broken in it, and what to do with it. Knows the models' needs; prints nothing."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.data_cache import resolve_source
from trainer.dataset import Dataset
from trainer.moments import moment_text
from trainer.readers.dataset_reader import Reading, read_with_report
from trainer.readers.layouts import Layout
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import read_as_kept
from trainer.store_snapshots.folder import About, is_snapshot


@dataclass(frozen=True, slots=True)
class Cost:
    """What training a model takes: time and memory grow with ratings and with users x movies.

    Attributes:
        base_s: Seconds whatever the data.
        per_million_ratings_s: Seconds for each million ratings.
        per_billion_cells_s: Seconds for each billion pairs of a user and a movie.
        base_mib: Memory of the process before there is data.
        per_million_ratings_mib: Memory for each million ratings.
        per_billion_cells_mib: Memory for each billion pairs.
    """

    base_s: float
    per_million_ratings_s: float
    per_billion_cells_s: float
    base_mib: float
    per_million_ratings_mib: float
    per_billion_cells_mib: float


# The non-negative fits of benchmarks/results/training_cost.json; a test compares.
COSTS = {
    "marquee": Cost(28.4, 53.4, 4459.2, 536.0, 192.4, 16225.7),
    "two-tower-history": Cost(7.7, 51.5, 50.8, 456.3, 182.8, 264.6),
}
MEASURED_RATINGS, MEASURED_CELLS = 1e6, 40e6
"""The largest figures that were measured."""
EXTRAPOLATION = 10
"""Beyond this multiple of what was measured an estimate is called rough."""
MAX_CELLS = 30e9
"""Users x movies beyond which `marquee` does not fit one machine: about a million users and 30,000 movies."""


@dataclass(frozen=True, slots=True)
class ModelFit:
    """Whether a model suits a data set.

    Attributes:
        model: Its name.
        fits: Whether it can be trained on the data.
        reason: Why not, or what it will lack.
        minutes: Expected time on one processor core.
        memory_gib: Expected memory.
        command: The command that trains it.
    """

    model: str
    fits: bool
    reason: str
    minutes: float
    memory_gib: float
    command: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known of a data set.

    Attributes:
        name: Of the data set.
        facts: What was detected, as label and text.
        broken: The rows that were set aside, one sentence a kind.
        models: What can be trained.
    """

    name: str
    facts: Sequence[tuple[str, str]]
    broken: Sequence[str]
    models: Sequence[ModelFit]

    @property
    def recommended(self) -> ModelFit | None:
        """The first model that fits, None if none does."""
        return next((model for model in self.models if model.fits), None)


def inspect_data(source: str, options: ReadOptions, option_words: Sequence[str] = ()) -> Inspection:
    """Reads a data set and describes it.

    Args:
        source: As `take_snapshot` takes it: as `read_dataset`, or what a rebuild kept in a registry.
        options: Statements about it.
        option_words: The same as words of a command line, repeated in the commands that are shown.

    Raises:
        DataError: It cannot be used.
        SnapshotError: The registry's snapshot is damaged.
    """
    path = resolve_source(source)
    if is_snapshot(path):
        about, data = read_as_kept(path, options)
        scale_origin = "as kept" if about.scale else "no ratings: retrieval only"
        time_form = "milliseconds since 1970" if about.has_times else None
        facts = [*_kept(about, path), *_facts(data, scale_origin, time_form)]
        return Inspection(data.name, facts, [], _models(data, source, option_words))
    reading = read_with_report(source, options)
    broken = [line for rows in reading.broken for line in rows.describe()]
    facts = [*_files(reading), *_facts(reading.dataset, reading.scale_origin, reading.time_form)]
    return Inspection(reading.dataset.name, facts, broken, _models(reading.dataset, source, option_words))


def _kept(about: About, path: Path) -> list[tuple[str, str]]:
    taken = f"{path}\ntaken {moment_text(about.taken_at_ms)}"
    return [("snapshot", taken), ("events since", f"{about.num_events:,} read from the log of feature_service")]


def _files(reading: Reading) -> list[tuple[str, str]]:
    facts = []
    for kind, file in (
        ("ratings", reading.files.ratings),
        ("movies", reading.files.movies),
        ("users", reading.files.users),
    ):
        described = f"{file.shown}\n{_layout(reading.layouts[kind])}" if file else "no file"
        facts.append((f"{kind} file", described))
    return facts


def _facts(data: Dataset, scale_origin: str, time_form: str | None) -> list[tuple[str, str]]:
    rows, facts = data.interactions, []
    density = len(rows) / (len(data.user_ids) * len(data.movies))
    by_user = np.bincount(rows.user_rows)
    by_movie = np.bincount(rows.movie_rows, minlength=len(data.movies))
    facts.append(("ratings" if data.scale else "views", f"{len(rows):,} ({density:.2%} of all pairs)"))
    facts.append(("users", f"{len(data.user_ids):,}, half of them with {np.median(by_user):.0f} rows or fewer"))
    facts.append(("movies", f"{len(data.movies):,}, {int((by_movie == 0).sum()):,} of them never watched"))
    facts.append(("scale", _scale(data, scale_origin)))
    facts.append(("times", _times(data, time_form)))
    facts.append(("demographics", _demographics(data)))
    facts.append(("titles and genres", _content(data)))
    return facts


def _layout(layout: Layout) -> str:
    encoding = " or ".join(layout.encodings)
    columns = ", ".join(f"{role}={name}" for role, name in layout.columns.items() if not role.startswith("genre_flag"))
    return f"{layout.label}, {encoding}: {columns}" if layout.delimiter else f"{layout.label}: {columns}"


def _scale(data: Dataset, origin: str) -> str:
    scale = data.scale
    if scale is None:
        return origin
    # Of a snapshot, or of data on disk, some rows are watched and not rated.
    mean = float(np.nanmean(data.interactions.ratings))
    return f"{scale.low:g} to {scale.high:g} in steps of {scale.step:g}, {origin}; mean {mean:.2f}"


def _times(data: Dataset, form: str | None) -> str:
    if form is None:
        return "none: histories have no order, temporal holdouts are refused"
    times = data.interactions.event_times_ms
    first, last = (np.datetime64(int(moment), "ms").astype("datetime64[D]") for moment in (times.min(), times.max()))
    return f"{form}; {first} to {last}"


def _demographics(data: Dataset) -> str:
    num_users = len(data.user_ids)
    known = {
        "gender": sum(gender is not None for gender in data.profiles.genders),
        "age": int(np.isfinite(data.profiles.ages).sum()),
        "occupation": sum(occupation is not None for occupation in data.profiles.occupations),
        "zip": sum(zip_code is not None for zip_code in data.zips),
    }
    present = [f"{name} of {count / num_users:.0%}" for name, count in known.items() if count]
    return ", ".join(present) or "none: strangers get what is popular"


def _content(data: Dataset) -> str:
    movies = data.movies
    titled = sum(title != "" for title in movies.titles)
    if not titled:
        return "none: no filters, and new movies cannot be scored"
    genres = {genre for those in movies.genres for genre in those}
    dated = int(np.isfinite(movies.years).sum())
    return f"titles of {titled / len(movies):.0%}, years of {dated / len(movies):.0%}, {len(genres)} genres"


def _models(data: Dataset, source: str, option_words: Sequence[str]) -> list[ModelFit]:
    million_ratings = len(data.interactions) / 1e6
    billion_cells = len(data.user_ids) * len(data.movies) / 1e9
    holdout = "temporal:0.1" if data.has_times else "random:0.1"
    models = []
    for model, cost in COSTS.items():
        fits, reason = _suitability(model, data)
        words = ["python", "-m", "trainer", "train", "--data", source, *option_words, "--registry", "registry"]
        models.append(
            ModelFit(
                model,
                fits,
                reason,
                minutes=(
                    cost.base_s
                    + cost.per_million_ratings_s * million_ratings
                    + cost.per_billion_cells_s * billion_cells
                )
                / 60,
                memory_gib=(
                    cost.base_mib
                    + cost.per_million_ratings_mib * million_ratings
                    + cost.per_billion_cells_mib * billion_cells
                )
                / 1024,
                command=shlex.join([*words, "--model", model, "--holdout", holdout]),
            )
        )
    return models


def _suitability(model: str, data: Dataset) -> tuple[bool, str]:
    num_cells = len(data.user_ids) * len(data.movies)
    far = len(data.interactions) > EXTRAPOLATION * MEASURED_RATINGS or num_cells > EXTRAPOLATION * MEASURED_CELLS
    remarks = ["rough estimates, far beyond what was measured"] if far else []
    if model == "two-tower-history":
        return (True, "; ".join(remarks)) if data.scale else (False, "learns from ratings, and there are none")
    if num_cells > MAX_CELLS:
        return False, f"more than {MAX_CELLS:,.0f} pairs of user and movie; two-tower is for such data"
    remarks += [] if data.scale else ["no ratings: top-k only"]
    remarks += [] if data.has_times else ["no times: what was watched last counts no more than the rest"]
    return True, "; ".join(remarks)
