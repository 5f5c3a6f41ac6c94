"""Says how much an index must look at, by what was measured of it. Knows depths, shares and recalls; knows no group.

Without a filter so many groups near to the user are looked at as find the best movies down to some depth. With one that
depth says little: what a filter lets through may be all that lies near a user, or nothing of it. So groups are looked
at that are thought to cover most of the best movies which the filter lets through, and how much of them must be covered
is measured with filters of both kinds and of several sizes.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from math import ceil
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model_service.index_tuning import Trial, make_filters, make_trials, recalls
from model_service.indexed_scorer import Look
from two_tower.top_k import MovieMatrix

Propose = Callable[[NDArray[np.float32], Look, NDArray[np.uint8]], NDArray[np.int64]]
"""See `model_service.indexed_scorer.CandidateIndex.propose`."""

_Number = TypeVar("_Number", int, float)

DEPTHS = (10, 100, 300, 1000)
"""Depths at which the recall is measured without a filter: a search reaches the next of them."""

_DEEPER = 1.25
"""Times a measured depth a search may reach: ten movies of who has seen a hundred are no deeper than a hundred."""

_FEW = 5_000
"""Movies that are allowed, below which they are ranked exactly: that takes as little as a search by the index, as
benchmarks/results/topk_scaling.json shows for 100,000 movies of which a fiftieth and a tenth are allowed."""

_FILTERED_DEPTHS = (10, 100, 1000)
_SHARES = (0.5, 0.2, 0.06, 0.02, 0.006, 0.002)
"""Depths, and shares of the movies that a filter lets through, at which the recall is measured: what lies between takes
the more of the two. Shares that leave few movies are none of the index's."""

_COVERAGES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999)
"""Of each try; groups are twenty to a hundred where .9 takes ten."""

_SPARED = 0.2
"""Of what may be missed, when filters are tried: those that are asked for may be worse than those that were made up."""

_FILTERED_USERS = {10: 128, 100: 128, 1000: 32}
"""By depth. Half of those that there are without filters, for filters are several; fewer where each has many movies."""

_SCORED_PER_MOVIE = (1.0, 1.5, 2.0, 3.0, 4.0)
_SCORED_BESIDE = 100
"""Codes err, so more movies are proposed than are wanted, and scored exactly: as few as the recall allows. So many for
each one wanted and for some beside, as a list of ten wants more for each than one of a hundred."""

_STEPS_PER_OCTAVE = 4
"""Numbers of proposals that are asked for: at most a quarter more than a row needs."""

_MORE_GROUPS = 1.4
"""Of each try the groups for the next: at most so much more is looked at than the recall needs."""


@dataclass(frozen=True, slots=True)
class Depth:
    """What a search to a depth costs and finds.

    Attributes:
        num_groups: That are looked at.
        num_scored: Movies that are scored.
        recall: Share of the best movies that were found, measured.
    """

    num_groups: int
    num_scored: int
    recall: float


@dataclass(frozen=True, slots=True)
class Filtered:
    """What a search with a filter costs and finds.

    Attributes:
        coverage: Of the best movies, as they are thought to lie, by the groups that are looked at.
        num_scored: Movies that are scored.
        recall: Share of the best movies that were found, measured.
    """

    coverage: float
    num_scored: int
    recall: float

    def or_more(self, other: "Filtered") -> "Filtered":
        """Returns what does for both."""
        return Filtered(
            max(self.coverage, other.coverage),
            max(self.num_scored, other.num_scored),
            min(self.recall, other.recall),
        )


@dataclass(frozen=True, slots=True)
class Reaches:
    """What was measured of an index.

    Attributes:
        num_movies: That are in it.
        depths: By depth, ascending; as many of `DEPTHS` as reach the recall that was wanted.
        filtered: By share and depth; those that reach the recall.
    """

    num_movies: int
    depths: Mapping[int, Depth] = field(default_factory=dict)
    filtered: Mapping[tuple[float, int], Filtered] = field(default_factory=dict)

    def look_for(self, k: int, num_excluded: int, num_allowed: int) -> Look | None:
        """Decides as `CandidateIndex.look_for` says."""
        # In steps, so that rows with about as many exclusions are looked up together.
        beside = _rounded(num_excluded)
        wanted = k + beside
        num_barred = max(0, self.num_movies - num_allowed)
        for depth, each in self.depths.items():
            # All that is barred or excluded may be among the best: the rest must be found as in a list of all of them.
            if depth * _DEEPER >= wanted + num_barred:
                num_scored = _num_scored(wanted, {at: of.num_scored for at, of in self.depths.items()})
                return Look(each.num_groups, num_scored + beside, num_scored)
        most = self._filtered_for(wanted, num_allowed) if num_allowed >= _FEW else None
        if most is None:
            return None
        return Look(0, most.num_scored + beside, most.num_scored, wanted, most.coverage)

    def _filtered_for(self, num_wanted: int, num_allowed: int) -> Filtered | None:
        """Returns what does for the shares and depths on both sides; None if one of them did not reach the recall."""
        share, wanted = num_allowed / self.num_movies, num_wanted / _DEEPER
        known = sorted(_shares_of(self.num_movies))
        if not known or share < known[0] or wanted > _FILTERED_DEPTHS[-1]:
            return None
        shares, depths = _around(share, known), _around(wanted, _FILTERED_DEPTHS)
        if any((share, depth) not in self.filtered for share in shares for depth in depths):
            return None
        most = {depth: reduce(Filtered.or_more, (self.filtered[share, depth] for share in shares)) for depth in depths}
        num_scored = _num_scored(num_wanted, {depth: each.num_scored for depth, each in most.items()})
        return replace(reduce(Filtered.or_more, most.values()), num_scored=num_scored)


@dataclass(frozen=True, slots=True)
class Measuring:
    """Measures an index on some users.

    Attributes:
        propose: Asks the index.
        num_groups: That it has.
        movies: That are in it.
        users: float32 [Q, D]
        min_recall: Share of the best movies that a search must find on average.
    """

    propose: Propose
    num_groups: int
    movies: MovieMatrix
    users: NDArray[np.float32]
    min_recall: float

    def reaches(self, rng: np.random.Generator) -> Reaches:
        """Returns what reaches the recall; no depths where nothing does, and then no filters.

        Args:
            rng: Makes up filters.
        """
        num_movies = len(self.movies.vectors)
        depths = self._depths(num_movies)
        if not depths:
            return Reaches(num_movies)
        return Reaches(num_movies, depths, self._filtered(num_movies, rng))

    def _depths(self, num_movies: int) -> dict[int, Depth]:
        """Returns for each depth the least number of groups that reaches the recall; deeper ones need more."""
        depths = [depth for depth in DEPTHS if depth <= num_movies] or [num_movies]
        [trial] = make_trials(self.movies, self.users, [(1.0, np.ones(num_movies, np.bool_))], depths)
        measured: dict[int, Depth] = {}
        num_groups = 1
        for depth in depths:
            while (found := self._tried(self.users, trial, depth, Look(num_groups, 0, 0))) is None:
                if num_groups >= self.num_groups:
                    return measured
                num_groups = min(self.num_groups, max(num_groups + 1, int(num_groups * _MORE_GROUPS)))
            measured[depth] = Depth(num_groups, *found)
        return measured

    def _filtered(self, num_movies: int, rng: np.random.Generator) -> dict[tuple[float, int], Filtered]:
        """Returns for each share and depth the least coverage that reaches the recall with all filters tried."""
        # Of trained users and of strangers: these stand behind those.
        users = rng.permutation(self.users)[: max(_FILTERED_USERS.values())]
        filters = make_filters(self.movies, _shares_of(num_movies), rng)
        measured: dict[tuple[float, int], Filtered | None] = {}
        for trial in make_trials(self.movies, users, filters, _FILTERED_DEPTHS):
            for depth in _FILTERED_DEPTHS:
                key = trial.share, depth
                needed = self._coverage(users[: _FILTERED_USERS[depth]], trial, depth)
                before = measured.get(key, needed)
                measured[key] = None if needed is None or before is None else needed.or_more(before)
        return {key: each for key, each in measured.items() if each is not None}

    def _coverage(self, users: NDArray[np.float32], trial: Trial, depth: int) -> Filtered | None:
        for coverage in _COVERAGES:
            if (found := self._tried(users, trial, depth, Look(0, 0, 0, depth, coverage))) is not None:
                return Filtered(coverage, *found)
        return None

    def _tried(self, users: NDArray[np.float32], trial: Trial, depth: int, look: Look) -> tuple[int, float] | None:
        """Returns the least number of movies scored that reaches the recall, and the recall; None if none does."""
        widths = [int(each * (depth + _SCORED_BESIDE)) for each in _SCORED_PER_MOVIE]
        bits = np.packbits(trial.allowed, bitorder="little")
        proposed = self.propose(users, replace(look, num_proposed=widths[-1]), bits)  # [Q, P]
        aim = self.min_recall + (_SPARED * (1 - self.min_recall) if look.coverage else 0)
        found = recalls(self.movies, users, proposed, trial.bars[depth][: len(users)], depth, widths)
        return next(((width, each) for width, each in zip(widths, found, strict=True) if each >= aim), None)


def _shares_of(num_movies: int) -> list[float]:
    """Returns the shares that are measured."""
    return [share for share in _SHARES if share * num_movies >= _FEW]


def _around(value: float, measured: Sequence[_Number]) -> Sequence[_Number]:
    """Returns the next of some ascending numbers on both sides; one where there is no other."""
    place = bisect_left(measured, value)
    return measured[max(0, place - 1) : place + 1]


def _num_scored(num_wanted: int, measured: Mapping[int, int]) -> int:
    """Returns how many to score, by how many that are at depths around."""
    between = np.interp(num_wanted, [*measured], [*measured.values()])
    return ceil(between * max(1.0, num_wanted / max(measured)))


def _rounded(num: int) -> int:
    """Returns the next of a few numbers."""
    step = max(1, (1 << num.bit_length()) // _STEPS_PER_OCTAVE // 2)
    return -(-num // step) * step
