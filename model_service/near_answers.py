"""Answers one near user at once, in the turn of the loop that took the request. Knows tasks; no RPC, queue or thread.

A user who is near and embedded needs nothing but some dot products. To wait for others, or for a thread, and to be laid
out as a batch costs several times what they cost; so only who needs more than that goes into a batch.
"""

import numpy as np

from model_service.filters import BarredMovies
from model_service.generation import Generation
from model_service.generations import Generations
from model_service.near_features import NearFeatures
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
from model_service.stored_user import StoredUser
from two_tower.recommending import RankedRow
from two_tower.single_user import SingleUser, UserVectors

_MANY_MOVIES = 20_000
"""Movies that take half a millisecond to score for one user: others wait for the loop meanwhile, and a batch reads the
movie vectors once for all of its users."""


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
        users = task.users
        if not isinstance(users, NamedUsers) or len(users) != 1:
            return None
        generation = self._generations.residents().of(task.model_version)
        if generation is None or generation.catalogue.catalogue_id != task.catalogue_id:
            return None
        single_user = generation.heads.single_user
        if single_user is None or not _is_little(task, generation):
            return None
        found = self._features.embedded_user(users.user_ids[0], generation)
        if found is None:
            return None
        stored, embedded = found
        if embedded.alone is None or (embedded.source is Source.POPULAR and generation.heads.popularity is not None):
            return None
        self.num_given += 1
        answered = AnsweredUsers((UserOutcome.OK,), (embedded.source,), (stored.version,), (embedded.num_ratings,))
        if isinstance(task, TopKTask):
            row = self._ranked(task, generation, single_user, stored, embedded.alone)
            return TopKAnswer(generation, answered, (row,))
        assert isinstance(task, RatingTask)
        number = int(task.movie_numbers[0])
        return _rated(number, generation, single_user, embedded.alone, answered, with_deviation=task.with_deviations)

    def _ranked(
        self, task: TopKTask, generation: Generation, single_user: SingleUser, stored: StoredUser, user: UserVectors
    ) -> RankedRow:
        barred = self._barred.numbers(task.movie_filter, generation.catalogue)
        ranked = single_user.rank(user, task.wish.k, barred, stored.seen if task.exclude_seen else stored.seen[:0])
        has_ratings = generation.checkpoint.model.rating_scale is not None
        return RankedRow(ranked, single_user.rate(user, ranked.numbers) if has_ratings else None)


def _is_little(task: Task, generation: Generation) -> bool:
    if isinstance(task, RatingTask):
        can_rate = generation.checkpoint.model.rating_scale is not None and not generation.heads.tells_deviations
        return can_rate and len(task.positions) == 1 and task.movie_numbers[0] >= 0
    if not isinstance(task, TopKTask):
        return False
    plain = task.wish.diversity == 0 and task.wish.explain == 0
    return plain and generation.index is None and len(generation.catalogue) < _MANY_MOVIES


def _rated(
    number: int,
    generation: Generation,
    single_user: SingleUser,
    user: UserVectors,
    answered: AnsweredUsers,
    *,
    with_deviation: bool,
) -> RatingAnswer:
    scale, spread = generation.checkpoint.model.rating_scale, generation.checkpoint.manifest.rating_spread
    assert scale is not None
    rating = single_user.rate(user, slice(number, number + 1))  # [1]
    deviations = None
    if with_deviation and spread is not None:
        deviations = np.array([spread.deviation_of(answered.num_ratings[0])], np.float32)
    score = single_user.score(user, number)
    return RatingAnswer(generation, answered, rating, scale.round(rating), score, deviations)
