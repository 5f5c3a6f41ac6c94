"""Makes up users on whom the recall of an index is measured. Knows checkpoints and histories; knows no index.

Half of them are trained users, where the checkpoint holds such, and half are strangers who watched movies that are near
to each other, as people do. Nobody's history is needed for it.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from two_tower.checkpoint import Checkpoint
from two_tower.heads import Heads
from two_tower.user_columns import Histories, Profiles, UserColumns

_NUM_USERS = 256
"""The mean of so many recalls of .95 errs by .005 or so."""

_WATCHED = 20
_NEAR_OF = 1000
"""A stranger watched the movies nearest to one, of so many drawn."""


def user_vectors(checkpoint: Checkpoint, heads: Heads, rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns ranking vectors of users of a factored model, those that are numbers. float32 [Q, K]."""
    trained = _trained(checkpoint, rng)
    num_strangers = _NUM_USERS - len(trained)
    columns = UserColumns(
        [*trained, *[None] * num_strangers],
        Profiles.unknown(_NUM_USERS),
        _histories(checkpoint, heads, len(trained), num_strangers, rng),
    )
    with torch.inference_mode():
        users = heads.embed(columns)
    finite = heads.finite_rows(users)
    vectors: NDArray[np.float32] = users.ranking_vectors.cpu().numpy()[finite]
    return vectors


def _trained(checkpoint: Checkpoint, rng: np.random.Generator) -> list[str]:
    listed = checkpoint.model.vocabularies().get("users", [])
    if not listed:
        return []
    drawn = [listed[row] for row in rng.choice(len(listed), min(len(listed), _NUM_USERS // 2), replace=False)]
    return [user_id for user_id, known in zip(drawn, checkpoint.model.knows_users([*drawn]), strict=True) if known]


def _histories(
    checkpoint: Checkpoint, heads: Heads, num_trained: int, num_strangers: int, rng: np.random.Generator
) -> Histories:
    known = np.flatnonzero(heads.known)
    movies = known if len(known) else np.arange(len(heads.known))
    watched = min(_WATCHED, len(movies))
    units = heads.cosines.vectors
    drawn = np.stack([rng.choice(movies, min(_NEAR_OF, len(movies)), replace=False) for _ in range(num_strangers)])
    near = [
        numbers[(units[heads.index_of(numbers)] @ units[int(numbers[0])]).topk(watched).indices.cpu().numpy()]
        for numbers in drawn
    ]
    manifest, scale = checkpoint.manifest, checkpoint.model.rating_scale
    lengths = [0] * num_trained + [watched] * num_strangers
    size = watched * num_strangers
    return Histories(
        np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        np.concatenate(near).astype(np.int32),
        np.full(size, np.nan if scale is None else scale.high, np.float32),
        np.full(size, manifest.data_until_ms if manifest.has_times else 0, np.int64),
        # A trained user has watched what is not told here.
        np.array([False] * num_trained + [True] * num_strangers, np.bool_),
    )
