"""Works out the memory that a `marquee` fit takes, and what to give up where a machine has less. Knows no data.

The figures count the large arrays of each stage; benchmarks/marquee_memory.py measures what a fit really takes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from trainer.dataset import Dataset
from trainer.errors import DataError
from trainer.fits.marquee_options import Options
from trainer.fits.marquee_ranking import heeds_times, ranking_size_of
from trainer.fits.marquee_rating import MANY_RATINGS, machine_config, num_towers, tower_config
from trainer.machine_memory import memory_bytes

TOWER, MACHINE, COMPRESSION = "movie tower", "factorisation machine", "compression"
PRIOR, RETRIEVAL, CLOSED_FORM = "prior of strangers", "retrieval head", "closed form of the retrieval head"

_GIB = 1 << 30
_PROCESS_BYTES = 600 << 20
"""The interpreter with torch, scipy and numba (benchmarks/results/training_cost.json: 536 MiB)."""

_BYTES_A_ROW = 150
"""An interaction is 20 bytes and there are five copies (file, training rows, dense rows, rated ones, sorted ones), with
64-bit numbers of user and movie while they are made."""

_BYTES_AN_ID = 400
"""A user or movie as a string, in a vocabulary and in a dictionary."""

_SMALLEST = {"hidden_size": 100, "closed_movies": 500, "implicit_movies": 500, "untimed_movies": 1000}
_MARGIN = 0.9
"""Share of the machine's memory that may be planned with: allocators and the system take the rest."""


@dataclass(frozen=True, slots=True)
class DataSize:
    """What of a data set costs memory.

    Attributes:
        num_users: U, those with a row.
        num_movies: I, those with a row.
        num_rows: n
        num_rated: Rows with a rating, 0 if the data has none.
        longest_history: Rows of the user who has most.
        has_times: Whether rows have an order.
    """

    num_users: int
    num_movies: int
    num_rows: int
    num_rated: int
    longest_history: int
    has_times: bool

    @classmethod
    def of(cls, data: Dataset) -> "DataSize":
        """Measures a data set."""
        rows = data.interactions
        by_user = np.bincount(rows.user_rows)
        num_rated = 0 if data.scale is None else int((~np.isnan(rows.ratings)).sum())
        return cls(
            int(np.count_nonzero(by_user)),
            int(np.count_nonzero(np.bincount(rows.movie_rows))),
            len(rows),
            num_rated,
            int(by_user.max(initial=0)),
            data.has_times,
        )


def fit_to_machine(data: Dataset, options: Options) -> tuple[Options, tuple[str, ...]]:
    """Does what `fit_into` does, on this machine.

    Raises:
        DataError: The machine is too small for the data, or times are to count and there are none.
    """
    return fit_into(DataSize.of(data), options, memory_bytes())


def needed_bytes(size: DataSize, options: Options) -> dict[str, int]:
    """Returns the most that each stage holds at a time, what lies there all along included."""
    users, movies, rows = size.num_users, size.num_movies, size.num_rows
    base = _PROCESS_BYTES + _BYTES_A_ROW * rows + _BYTES_AN_ID * (users + movies)
    stages: dict[str, int] = {}
    many = size.num_rated >= MANY_RATINGS
    rating_size = options.rating_size or (128 if many else 96)
    if size.num_rated:
        hidden = tower_config(options, size.num_rated, movies).hidden_size if options.machine_share < 1 else 0
        machine = machine_config(options, size.num_rated)
        towers = num_towers(options, size.num_rated)
        width = towers * hidden + (machine.size if options.machine_share > 0 else 0) + 1
        blended = 8 * (users + movies) * width
        if hidden:
            # Three tables of U x D in float32, each with gradient, a new gradient, and two moments of Adam.
            stages[TOWER] = base + 5 * 4 * 3 * users * hidden + 3 * 4 * movies * hidden + 40 * rows
        if options.machine_share > 0:
            samples = 4 * machine.kept * machine.rank  # bytes of one coordinate of all samples
            # Kept, and side by side once more: features of users are users and movies, features of movies are summed.
            weights = samples * (users + movies) + samples * movies
            before = 8 * (users + movies) * towers * hidden
            stages[MACHINE] = base + before + 2 * weights + samples * users + 60 * rows
        # Members side by side, centred, turned and compressed, all in float64 (docs/experiments.md, 2026-11-22).
        stages[COMPRESSION] = base + 5 * blended + 2 * 8 * (users + movies) * rating_size
        implicit = min(options.implicit_movies, movies)
        at_once = 256 * size.longest_history * rating_size * 8  # users whose histories are gathered together
        stages[PRIOR] = base + 16 * users * rating_size + 3 * 8 * implicit**2 + 30 * rows + at_once
    held = 4 * (users + movies) * rating_size if size.num_rated else 0
    if heeds_times(options, size.has_times):
        ranked = min(options.ranking_movies, movies)
        batch = 32 * 30 * (3 * 4 * ranked + 24 * min(size.longest_history, 1000))
        stages[RETRIEVAL] = base + held + 5 * 3 * 4 * ranked * options.ranking_size + batch
        closed = min(options.closed_movies, movies)
        # A gram of both memories, its factor, moments and solution in float32; EASE's three of I x I in float64.
        solved = (2 * 4 * 4 + 2 * 2 * 4 + 3 * 8) * closed**2
        # Afterwards three memories a user and three tables, each put together and then copied.
        remembered = 2 * 3 * 4 * (users + movies) * ranking_size_of(options, rows, movies)
        stages[CLOSED_FORM] = base + held + max(solved, remembered) + 24 * rows
    else:
        untimed = min(options.untimed_movies, movies)
        stages[RETRIEVAL] = base + held + 6 * 8 * untimed**2 + 24 * rows + 4 * 4 * movies * options.untimed_size
    return stages


def fit_into(size: DataSize, options: Options, available_bytes: int) -> tuple[Options, tuple[str, ...]]:
    """Returns options that the machine has memory for, and one sentence for each that was changed.

    The greediest stage gives first: a member or a closed form over fewer movies, a narrower tower, no factorisation
    machine. Nothing is changed that fits.

    Raises:
        DataError: Nothing is left to give, which names the model that learns in batches; or times are to count and
            there are none.
    """
    asked = options
    budget = int(_MARGIN * available_bytes)
    while True:
        needed = needed_bytes(size, options)
        stage = max(needed, key=lambda name: needed[name])
        if needed[stage] <= budget:
            break
        smaller = _REDUCTIONS[stage](size, options)
        if smaller == options:
            raise DataError(
                f"marquee needs {needed[stage] / _GIB:.1f} GiB for its {stage}, and {budget / _GIB:.1f} GiB are to be "
                "had: train --model two-tower, which learns in batches, or on a machine with more memory"
            )
        options = smaller
    most = max(needed_bytes(size, asked).values())
    notes = tuple(
        f"marquee: {name} is {getattr(options, name)} instead of {_shown(getattr(asked, name))}: a fit would take "
        f"{most / _GIB:.1f} GiB and {budget / _GIB:.1f} GiB are to be had."
        for name in ("machine_share", *_SMALLEST)
        if getattr(options, name) != getattr(asked, name)
    )
    return options, notes


def _fewer(name: str) -> Callable[[DataSize, Options], Options]:
    def reduce(size: DataSize, options: Options) -> Options:
        count = min(getattr(options, name), size.num_movies)
        return replace(options, **{name: max(_SMALLEST[name], count // 2)}) if count > _SMALLEST[name] else options

    return reduce


def _narrower(size: DataSize, options: Options) -> Options:
    hidden = tower_config(options, size.num_rated, size.num_movies).hidden_size
    if options.machine_share >= 1 or hidden <= _SMALLEST["hidden_size"]:
        return options
    return replace(options, hidden_size=max(_SMALLEST["hidden_size"], int(hidden * 0.75)))


def _without_machine(size: DataSize, options: Options) -> Options:
    return replace(options, machine_share=0.0) if options.machine_share < 1 else options


def _nothing(size: DataSize, options: Options) -> Options:
    return options


def _retrieval(size: DataSize, options: Options) -> Options:
    return options if heeds_times(options, size.has_times) else _fewer("untimed_movies")(size, options)


_REDUCTIONS: Mapping[str, Callable[[DataSize, Options], Options]] = {
    TOWER: _narrower,
    MACHINE: _without_machine,
    COMPRESSION: _narrower,
    PRIOR: _fewer("implicit_movies"),
    RETRIEVAL: _retrieval,
    CLOSED_FORM: _fewer("closed_movies"),
}


def _shown(value: object) -> str:
    return "its default" if value is None else str(value)
