"""Answers for near users at once, in the turn of the loop that took the request. Knows tasks; no RPC, queue or thread.

Users who are near and embedded need nothing but some dot products. To wait for others, or for a thread, and to be laid
out as a batch costs several times what they cost; so only who needs more than that goes into a batch.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from model_service.filters import BarredMovies
from model_service.generation import Generation
from model_service.generations import Generations
from model_service.near_features import EmbeddedNearUser, NearFeatures
from model_service.queries import (
    Answer,
    AnsweredUsers,
    NamedUsers,
    RatingAnswer,
    RatingTask,
    Task,
    TopKAnswer,
    TopKTask,
    UserOutcome,
    ids_as_stored,
)
from model_service.user_rows import assemble
from two_tower.host_heads import HostHeads, HostUser
from two_tower.recommending import RankedRow
from two_tower.ridge import PosteriorFactor

_MANY_MOVIES = 20_000
"""Movies that take half a millisecond to score for one user at 64 coordinates, and two at 256: others wait for the loop
meanwhile, and a batch reads the movie vectors once for all of its users."""
_MANY_DEVIATIONS = 32
"""Deviations that take a millisecond where a history of 200 ratings has a say in each."""
_NO_SESSION = 0
"""When events of a session happened; there are none."""
_MANY_USERS = 256
"""Users who take a millisecond to find; more are answered in pieces, and others between them."""


class NearAnswers:
    """Answers what can be answered at once.

    Attributes:
        num_given: Answers so far.
    """

    def __init__(self, features: NearFeatures, generations: Generations) -> None:
        """Stores who knows the users, and what answers."""
        self._features = features
        self._generations = generations
        self._barred = BarredMovies()
        self.num_given = 0

    def answer(self, task: Task) -> Answer | None:
        """Returns the answer, the same as a batch would give; None if it takes a batch.

        Raises:
            Unavailable: Nothing answers yet.
        """
        if not isinstance(task.users, NamedUsers):
            return None
        generation = self._generations.residents().of(task.model_version)
        if generation is None or generation.catalogue.catalogue_id != task.catalogue_id:
            return None
        heads = generation.heads.on_host
        if heads is None or not is_little(task, generation):
            return None
        users = self._features.embedded_users(task.users.user_ids, generation)
        if users is None:
            return None
        if not all(embedded.is_ranked_on_host(generation.heads) for _, embedded in users):
            return None
        on_host = [embedded.on_host for _, embedded in users if embedded.on_host is not None]
        sources = [embedded.source for _, embedded in users]
        certainty = None
        if isinstance(task, RatingTask) and _needs_certainty(task, generation):
            certainty = self._certainty(task.users, users[0], generation)
            if certainty is None:
                return None
        self.num_given += 1
        answered = AnsweredUsers(
            [UserOutcome.OK] * len(users),
            sources,
            [stored.version for stored, _ in users],
            [embedded.num_ratings for _, embedded in users],
        )
        if isinstance(task, RatingTask):
            return _rated(task, generation, heads, on_host, answered, certainty)
        assert isinstance(task, TopKTask)
        return TopKAnswer(generation, answered, [self._ranked(task, generation, heads, users[0], on_host[0])])

    def num_far(self, task: Task) -> int:
        """Returns how many users of a task have to be read, or to go through the tower. Nothing is counted of it."""
        generation = self._generations.residents().of(task.model_version)
        if generation is None:
            return 0
        named = [user_id for user_id in ids_as_stored(task.users) if user_id]
        near = self._features.embedded_each(named, generation)
        return len(task.users) - len(near) + near.count(None)

    def _certainty(self, queries: NamedUsers, user: EmbeddedNearUser, generation: Generation) -> PosteriorFactor | None:
        """Returns what is known of the one user, and keeps it with him: he is asked about again and again."""
        stored, embedded = user
        if embedded.certainty is not None:
            return embedded.certainty
        columns = assemble(queries, [stored], generation.checkpoint, _NO_SESSION).columns
        certainty = generation.checkpoint.model.certainty_of(columns, generation.heads.movies)
        self._features.keep_one(queries.user_ids[0], stored, replace(embedded, certainty=certainty))
        return certainty

    def _ranked(
        self, task: TopKTask, generation: Generation, heads: HostHeads, user: EmbeddedNearUser, on_host: HostUser
    ) -> RankedRow:
        stored, _ = user
        barred = self._barred.numbers(task.movie_filter, generation.catalogue)
        ranked = heads.rank(on_host, task.wish.k, barred, stored.seen if task.exclude_seen else stored.seen[:0])
        if generation.checkpoint.model.rating_scale is None:
            return RankedRow(ranked, None)
        return RankedRow(ranked, heads.rate_ranked(on_host, ranked))


def is_little(task: Task, generation: Generation) -> bool:
    """Tells whether others may wait in the loop for a task to be done."""
    if isinstance(task, RatingTask):
        if generation.checkpoint.model.rating_scale is None:
            return False
        if _needs_certainty(task, generation):
            return len(task.users) == 1 and len(task.positions) <= _MANY_DEVIATIONS
        return len(task.users) <= _MANY_USERS
    if not isinstance(task, TopKTask):
        return False
    is_plain = len(task.users) == 1 and task.wish.diversity == 0 and task.wish.explain == 0
    return is_plain and generation.index is None and len(generation.catalogue) < _MANY_MOVIES


def _needs_certainty(task: RatingTask, generation: Generation) -> bool:
    return task.with_deviations and generation.heads.tells_deviations


def _rated(
    task: RatingTask,
    generation: Generation,
    heads: HostHeads,
    users: Sequence[HostUser],
    answered: AnsweredUsers,
    certainty: PosteriorFactor | None,
) -> RatingAnswer:
    scale, spread = generation.checkpoint.model.rating_scale, generation.checkpoint.manifest.rating_spread
    assert scale is not None
    positions, numbers = task.positions, task.movie_numbers
    # Of a movie that does not exist the last one is rated: what stands for no number is the place of that one.
    ratings, scores = heads.rate_and_score(users, positions, numbers)
    told = [ratings, scale.round(ratings), scores]
    if certainty is not None:
        told.append(generation.checkpoint.model.deviations_by(certainty, generation.heads.movies, numbers))
    elif task.with_deviations and spread is not None:
        told.append(spread.deviations_of(answered.num_ratings)[positions])
    missing = numbers < 0  # [P]
    if missing.any():
        told = [np.where(missing, np.float32(np.nan), column) for column in told]
    ratings, rounded, scores, *rest = told
    return RatingAnswer(generation, answered, ratings, rounded, scores, rest[0] if rest else None)
