"""Tells how far the vectors of `marquee`'s users are from certain. Knows events and vectors, no rating to come."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.models.marquee_histories import CountedEvents
from two_tower.ridge import posterior_variances

_MAX_QUERIES = 1 << 15
"""Padded pairs of one block: 16 MiB at 128 coordinates."""


def pair_variances(
    events: CountedEvents,
    weights: NDArray[np.float32],
    vectors: Tensor,
    positions: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> Tensor:
    """Returns the posterior variance of user vector times movie vector of each pair. float32 [P].

    Args:
        events: Whatever of the users' histories is at hand.
        weights: One over the standard deviation of each event's noise. [E]
        vectors: Of the catalogue's movies, such that a stranger's prior is N(·, I). [M, R]
        positions: User of each pair. [P]
        numbers: Movie of each pair. [P]
    """
    # Without a rating the prior is all there is.
    found = vectors[torch.from_numpy(numbers).to(vectors.device)].square().sum(dim=-1)  # [P]
    order = np.argsort(positions, kind="stable")
    ends = np.cumsum(np.bincount(positions, minlength=len(events.offsets) - 1))  # [B]
    starts = np.concatenate(([0], ends))[:-1]
    for block in events.rated_blocks():
        asked = np.flatnonzero(ends[block.users] > starts[block.users])
        # Users with about as many pairs go together, so that little is padded.
        asked = asked[np.argsort((ends - starts)[block.users[asked]], kind="stable")]
        while len(asked):
            counts = (ends - starts)[block.users[asked]]
            fitting = max(1, int(np.searchsorted(counts * np.arange(1, len(asked) + 1), _MAX_QUERIES, side="right")))
            some, asked, counts = asked[:fitting], asked[fitting:], counts[:fitting]
            columns = np.arange(counts[-1])
            inside = columns < counts[:, None]  # [b, Q]
            pairs = order[np.where(inside, starts[block.users[some], None] + columns, 0)]  # [b, Q]
            entries = block.entries[some]
            scales = np.where(block.inside[some], weights[entries], np.float32(0))  # [b, L]
            designs = vectors[torch.from_numpy(events.movie_numbers[entries]).to(vectors.device)]  # [b, L, R]
            designs.mul_(torch.from_numpy(scales).to(vectors.device)[:, :, None])
            queries = vectors[torch.from_numpy(numbers[pairs]).to(vectors.device)]  # [b, Q, R]
            variances = posterior_variances(designs, queries)  # [b, Q]
            is_pair = torch.from_numpy(inside).to(vectors.device)
            found[torch.from_numpy(pairs[inside]).to(vectors.device)] = variances[is_pair]
    return found
