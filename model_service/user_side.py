"""Makes the user side of a batch: who is near is taken as he was embedded, the others go through the tower together.

Knows queries, stored users and towers; knows no score, no cache and no RPC.
"""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_service.embedded_user import EmbeddedUser, joined, rows_of
from model_service.generation import Generation
from model_service.queries import Source, UserQuery, ids_as_stored, stored_ids
from model_service.stored_user import StoredUser
from model_service.user_rows import AssembledUsers, assemble, seen_by
from two_tower.user_columns import UserColumns


@dataclass(frozen=True, slots=True, eq=False)
class StoredUsers:
    """What was read of the store for a batch.

    Attributes:
        users: By id.
        embedded: Those of them whom this batch's generation embedded before, by id.
        kept: Whether somebody keeps what is embedded anew.
    """

    users: Mapping[str, StoredUser]
    embedded: Mapping[str, EmbeddedUser] = field(default_factory=dict)
    kept: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class UserSide:
    """B users, ready to be scored.

    Attributes:
        vectors: As the model's `embed_users` gives them.
        bad_rows: Users of whom the model made no numbers.
        sources: What each answer will be based on. [B]
        num_ratings: How many ratings each rests on. [B]
        seen: Catalogue numbers that each user ever watched; of stored users only if they were read. Empty unless it was
            asked for, or all went through the tower. [B]
        columns: What the tower took; None unless it was asked for, or all went through it.
        made: Stored users that were embedded anew, by id; empty if nobody keeps them.
    """

    vectors: Any
    bad_rows: frozenset[int]
    sources: Sequence[Source]
    num_ratings: Sequence[int]
    seen: Sequence[NDArray[np.int64]]
    columns: UserColumns | None
    made: Mapping[str, EmbeddedUser]


def embed(
    queries: Sequence[UserQuery],
    stored: StoredUsers | None,
    generation: Generation,
    now_ms: int,
    *,
    with_columns: bool,
    with_seen: bool,
) -> UserSide:
    """Embeds users.

    Args:
        queries: Whom to answer for, at least one. [B]
        stored: What was read; None if nothing was.
        generation: What answers.
        now_ms: When session events without a time happened.
        with_columns: Whether somebody needs the columns of all.
        with_seen: Whether somebody needs what the users watched.
    """
    near = near_of(queries, stored)
    cold = [row for row, embedded in enumerate(near) if embedded is None]
    users: list[StoredUser | None] = [None] * len(queries)
    if stored is not None and (cold or with_columns or with_seen):
        users = list(map(stored.users.get, stored_ids(queries)))
    if len(cold) == len(queries):
        assembled = assemble(queries, users, generation.checkpoint, now_ms)
        return _through_the_tower(queries, assembled, stored, generation)
    warm = [(row, embedded) for row, embedded in enumerate(near) if embedded is not None]
    whole = assemble(queries, users, generation.checkpoint, now_ms) if with_columns else None
    parts: list[Any] = [embedded.vectors for _, embedded in warm]
    sources = [Source.POPULAR if embedded is None else embedded.source for embedded in near]
    num_ratings = [0 if embedded is None else embedded.num_ratings for embedded in near]
    seen = [seen_by(*each) for each in zip(queries, users, strict=True)] if with_seen else []
    bad_rows: frozenset[int] = frozenset()
    made: Mapping[str, EmbeddedUser] = {}
    if cold:
        some = [queries[row] for row in cold]
        assembled = assemble(some, [users[row] for row in cold], generation.checkpoint, now_ms)
        fresh = _through_the_tower(some, assembled, stored, generation)
        parts.append(fresh.vectors)
        bad_rows = frozenset(cold[row] for row in fresh.bad_rows)
        made = fresh.made
        for place, row in enumerate(cold):
            sources[row], num_ratings[row] = fresh.sources[place], fresh.num_ratings[place]
            if with_seen:
                seen[row] = fresh.seen[place]
    order = [row for row, _ in warm] + cold
    vectors = parts[0] if len(parts) == 1 else joined(parts, np.argsort(order) if cold else None)
    columns = None if whole is None else whole.columns
    return UserSide(vectors, bad_rows, sources, num_ratings, seen, columns, made)


def near_of(queries: Sequence[UserQuery], stored: StoredUsers | None) -> list[EmbeddedUser | None]:
    """Returns the users that need not be embedded, None in the place of another one. [B]."""
    if stored is None or not stored.embedded:
        return [None] * len(queries)
    return list(map(stored.embedded.get, ids_as_stored(queries)))


def _through_the_tower(
    queries: Sequence[UserQuery], assembled: AssembledUsers, stored: StoredUsers | None, generation: Generation
) -> UserSide:
    heads = generation.heads
    vectors = heads.embed(assembled.columns)
    num_ratings = generation.checkpoint.model.count_ratings(assembled.columns).tolist()
    bad_rows = frozenset(np.flatnonzero(~heads.finite_rows(vectors)).tolist())
    made: dict[str, EmbeddedUser] = {}
    if stored is not None and stored.kept:
        apart = rows_of(vectors)  # [B]
        on_host = [None] * len(apart) if heads.on_host is None else heads.on_host.users_of(apart, vectors)
        for row, user_id in enumerate(ids_as_stored(queries)):
            if user_id in stored.users and user_id not in made and row not in bad_rows:
                made[user_id] = EmbeddedUser(
                    apart[row], assembled.sources[row], num_ratings[row], weakref.ref(heads), on_host[row]
                )
    return UserSide(vectors, bad_rows, assembled.sources, num_ratings, assembled.seen, assembled.columns, made)
