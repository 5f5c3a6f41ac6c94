"""Answers for near users at once, in the turn of the loop that took the request. Knows tasks; no RPC, queue or thread.

Users who are near and embedded need nothing but some dot products. To wait for others, or for a thread, and to be laid
out as a batch costs several times what they cost; so only who needs more than that goes into a batch.
"""

from collections.abc import Sequence

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
    Source,
    Task,
    TopKAnswer,
    TopKTask,
    UserOutcome,
)
from two_tower.host_heads import HostHeads, HostUser
from two_tower.recommending import RankedRow

_MANY_MOVIES = 20_000
"""Movies that take half a millisecond to score for one user: others wait for the loop meanwhile, and a batch reads the
movie vectors once for all of its users."""
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
        if heads is None or not _is_little(task, generation):
            return None
        users = self._features.embedded_users(task.users.user_ids, generation)
        if users is None:
            return None
        on_host = [embedded.on_host for _, embedded in users if embedded.on_host is not None]
        sources = [embedded.source for _, embedded in users]
        if len(on_host) < len(users) or (generation.heads.popularity is not None and Source.POPULAR in sources):
            return None
        self.num_given += 1
        answered = AnsweredUsers(
            [UserOutcome.OK] * len(users),
            sources,
            [stored.version for stored, _ in users],
            [embedded.num_ratings for _, embedded in users],
        )
        if isinstance(task, RatingTask):
            return _rated(task, generation, heads, on_host, answered)
        assert isinstance(task, TopKTask)
        return TopKAnswer(generation, answered, [self._ranked(task, generation, heads, users[0], on_host[0])])

    def _ranked(
        self, task: TopKTask, generation: Generation, heads: HostHeads, user: EmbeddedNearUser, on_host: HostUser
    ) -> RankedRow:
        stored, _ = user
        barred = self._barred.numbers(task.movie_filter, generation.catalogue)
        ranked = heads.rank(on_host, task.wish.k, barred, stored.seen if task.exclude_seen else stored.seen[:0])
        has_ratings = generation.checkpoint.model.rating_scale is not None
        return RankedRow(ranked, heads.rate(on_host, ranked.numbers) if has_ratings else None)


def _is_little(task: Task, generation: Generation) -> bool:
    if isinstance(task, RatingTask):
        can_rate = generation.checkpoint.model.rating_scale is not None
        needs_columns = task.with_deviations and generation.heads.tells_deviations
        return can_rate and not needs_columns and len(task.users) <= _MANY_USERS
    if not isinstance(task, TopKTask):
        return False
    is_plain = len(task.users) == 1 and task.wish.diversity == 0 and task.wish.explain == 0
    return is_plain and generation.index is None and len(generation.catalogue) < _MANY_MOVIES


def _rated(
    task: RatingTask, generation: Generation, heads: HostHeads, users: Sequence[HostUser], answered: AnsweredUsers
) -> RatingAnswer:
    scale, spread = generation.checkpoint.model.rating_scale, generation.checkpoint.manifest.rating_spread
    assert scale is not None
    positions, numbers = task.positions, task.movie_numbers
    # Of a movie that does not exist the last one is rated: what stands for no number is the place of that one.
    ratings = heads.rate_pairs(users, positions, numbers)
    scores = heads.score_pairs(users, positions, numbers)
    columns = [ratings, scale.round(ratings), scores]
    if task.with_deviations and spread is not None:
        columns.append(spread.deviations_of(answered.num_ratings)[positions])
    missing = numbers < 0  # [P]
    if missing.any():
        columns = [np.where(missing, np.float32(np.nan), column) for column in columns]
    ratings, rounded, scores, *deviations = columns
    return RatingAnswer(generation, answered, ratings, rounded, scores, deviations[0] if deviations else None)
