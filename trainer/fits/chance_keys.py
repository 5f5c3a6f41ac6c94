"""Makes the tables of the baselines that guess: a key for each user and movie, and how likely each rating is."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.dataset import Dataset
from trainer.errors import DataError
from trainer.fits.trained_rows import TrainedRows
from two_tower.models.chance import KEY_PIECES, PIECE_BITS, Chance, ChanceConfig, num_steps

ChanceT = TypeVar("ChanceT", bound=Chance)


def make_chance(kind: type[ChanceT], data: Dataset, seed: int, *, by_frequency: bool) -> ChanceT:
    """Returns a model that guesses; data without ratings is ranked only.

    Raises:
        DataError: The data has no rows.
    """
    if not len(data.interactions):
        raise DataError(f"{data.name} has no interactions to train on")
    trained = TrainedRows.of(data)
    shares = np.zeros(0)
    if data.scale is not None:
        shares = np.full(num_steps(data.scale), 1 / num_steps(data.scale))
        ratings = data.interactions.ratings[~np.isnan(data.interactions.ratings)]
        if by_frequency and len(ratings):
            steps = np.round((ratings - data.scale.low) / data.scale.step).astype(np.int64)
            shares = np.bincount(steps, minlength=len(shares)) / len(steps)
    encoder = trained.encoder
    return kind(
        ChanceConfig(scale=data.scale, ages=encoder.ages, years=encoder.years),
        encoder,
        {
            "users.keys": _keys(f"{seed} user", encoder.users.words),
            "movies.keys": _keys(f"{seed} movie", encoder.movies.words),
            "shares": torch.from_numpy(shares.astype(np.float32)),
        },
    )


def _keys(salt: str, words: Sequence[str]) -> Tensor:
    """Returns 63 bits of a hash of each word, in pieces that float32 holds exactly. [n, 3]."""
    digests = b"".join(hashlib.blake2b(f"{salt} {word}".encode(), digest_size=8).digest() for word in words)
    hashes: NDArray[np.uint64] = np.frombuffer(digests, "<u8")
    pieces = [
        (hashes >> np.uint64(PIECE_BITS * piece)) & np.uint64((1 << PIECE_BITS) - 1) for piece in range(KEY_PIECES)
    ]
    return torch.from_numpy(np.stack(pieces, axis=1).astype(np.float32))
