"""Holds users that went through a user tower. Knows tensors and which model they are of; knows no cache and no RPC."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from two_tower.answer_source import Source
from two_tower.heads import Heads
from two_tower.host_heads import HostUser
from two_tower.ridge import PosteriorFactor
from two_tower.serving import PairwiseUsers, UserEmbeddings

UsersT = TypeVar("UsersT", UserEmbeddings, PairwiseUsers)

_OBJECTS_BYTES = 900
"""What an embedded user takes beside what his tensors hold: two tensors with their storages, the places that hold them;
measured with the rows in benchmarks/results/near_cache.json."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedUser:
    """One stored user as one generation embeds him; another model, or the same over other movies, does it otherwise.

    Attributes:
        vectors: What the model made of him: a batch of one.
        source: What an answer from it is based on.
        num_ratings: How many of his ratings it rests on.
        heads: What it was made for; gone once nothing answers from it any more.
        on_host: The same for what answers on the host; None where nothing does.
        certainty: What deviations of his ratings are told by; None until somebody wanted one, or if nobody can tell.
    """

    vectors: UserEmbeddings | PairwiseUsers
    source: Source
    num_ratings: int
    heads: "weakref.ReferenceType[Heads]"
    on_host: HostUser | None = None
    certainty: PosteriorFactor | None = None

    def is_ranked_on_host(self, heads: "Heads") -> bool:
        """Tells whether his vectors on the host are all that an answer takes; else popularity has a say, or a batch."""
        return self.on_host is not None and (heads.popularity is None or self.source is not Source.POPULAR)

    @property
    def size_bytes(self) -> int:
        """What he takes of memory; on a GPU his tensors lie there."""
        certainty = 0 if self.certainty is None else self.certainty.matrix.nbytes
        tensors = [getattr(self.vectors, each.name) for each in fields(self.vectors)]
        return _OBJECTS_BYTES + sum({id(tensor): int(tensor.nbytes) for tensor in tensors}.values()) + certainty


def rows_of(users: UsersT) -> list[UsersT]:
    """Returns each user by himself, without a hold on the tensors of all."""
    kind = type(users)
    # Models that rank by ratings give one tensor twice.
    tensors = {each.name: getattr(users, each.name) for each in fields(users)}
    apart = {id(tensor): [row.clone() for row in tensor.split(1)] for tensor in tensors.values()}
    columns = {name: apart[id(tensor)] for name, tensor in tensors.items()}
    return [kind(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def joined(parts: Sequence[UsersT], order: NDArray[np.int64] | None = None) -> UsersT:
    """Returns the users of all parts end to end, or those at the places that `order` names."""
    whole = {each.name: torch.cat([getattr(part, each.name) for part in parts]) for each in fields(parts[0])}
    if order is not None:
        index = torch.from_numpy(order)
        whole = {name: tensor[index.to(tensor.device)] for name, tensor in whole.items()}
    kind = type(parts[0])
    return kind(**whole)
