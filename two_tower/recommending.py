"""Makes lists of recommendations: the best permitted movies, varied and explained where that is asked. Knows no RPC.

What serves and what a notebook calls do it here, so that both recommend the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from two_tower.diversity import diversify, pool_size
from two_tower.explaining import Explanation, explain
from two_tower.heads import Heads
from two_tower.permitted import Permitted
from two_tower.top_k import Ranked, Scorer
from two_tower.user_columns import UserColumns


@dataclass(frozen=True, slots=True)
class Wish:
    """What a list shall be.

    Attributes:
        k: Movies wanted, at least 1.
        diversity: 0 for the best movies by score, up to 1 for variety alone: see `two_tower.diversity`.
        explain: Entries of the user's history named for each movie at most; 0 explains nothing.
    """

    k: int
    diversity: float = 0.0
    explain: int = 0


@dataclass(frozen=True, slots=True)
class RankedRow:
    """Ranked movies of one user or movie.

    Attributes:
        ranked: The movies.
        ratings: Stars of each, None if the data has none.
        explanations: What speaks for each, None if nobody asked.
    """

    ranked: Ranked
    ratings: NDArray[np.float32] | None
    explanations: Sequence[Explanation] | None = None


def recommend(
    heads: Heads,
    scorer: Scorer,
    columns: UserColumns | None,
    users: Any,
    rows: NDArray[np.int64],
    wishes: Sequence[Wish],
    permitted: Permitted,
    available: NDArray[np.bool_],
    by_popularity: NDArray[np.bool_] | None = None,
) -> list[RankedRow]:
    """Returns a list for each row.

    Args:
        heads: What ranks and rates.
        scorer: What scores dot products.
        columns: The users; may be None if no wish is to explain. [B]
        users: The same, embedded.
        rows: User of each list. [R]
        wishes: What each list shall be. [R]
        permitted: What each list may hold. [R]
        available: Movies that somebody may be recommended. bool [M]
        by_popularity: Users whose lists rest on nothing but what is popular, where that is known; None for nobody. [B]
    """
    sizes = [pool_size(wish.k) if wish.diversity > 0 else wish.k for wish in wishes]
    lists = heads.rank(scorer, users, rows, sizes, permitted)
    if heads.popularity is not None and by_popularity is not None:
        for place in np.flatnonzero(by_popularity[rows]).tolist():
            lists[place] = heads.rank_popular(sizes[place], permitted.of_row(place))
    lists = [
        _varied(heads, pool, wish) if wish.diversity > 0 else pool for pool, wish in zip(lists, wishes, strict=True)
    ]
    explanations: list[Sequence[Explanation] | None] = [None] * len(lists)
    for most in {wish.explain for wish in wishes} - {0}:
        assert columns is not None
        asked = [place for place, wish in enumerate(wishes) if wish.explain == most]
        numbers = [lists[place].numbers for place in asked]
        told = explain(heads, scorer, columns.take(rows[asked]), numbers, most, available)
        for place, each in zip(asked, told, strict=True):
            explanations[place] = each
    if heads.model.rating_scale is None or not lists:
        return [RankedRow(ranked, None, told) for ranked, told in zip(lists, explanations, strict=True)]
    lengths = [len(ranked.numbers) for ranked in lists]
    owners = np.repeat(rows, lengths)
    stars = heads.rate_pairs(scorer, users, owners, np.concatenate([ranked.numbers for ranked in lists]))
    parts = np.split(stars, np.cumsum(lengths)[:-1])
    return [RankedRow(*each) for each in zip(lists, parts, explanations, strict=True)]


def _varied(heads: Heads, pool: Ranked, wish: Wish) -> Ranked:
    vectors = heads.cosines.vectors[heads.index_of(pool.numbers)].cpu().numpy()  # [C, D]
    taken = diversify(pool.scores, vectors, wish.k, wish.diversity)
    return Ranked(pool.numbers[taken], pool.scores[taken])
