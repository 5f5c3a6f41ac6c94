"""Ranks for near users, those together that come together. Knows tasks and vectors; knows no RPC and no thread.

The movie vectors are read once for all lists, and of each list only what is its own is done by itself: what it may not
hold, and which movies may be among its best.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model_service.company import Company
from model_service.filters import BarredMovies
from model_service.generation import Generation
from model_service.generations import Generations
from model_service.held import Held
from model_service.near_answers import is_little
from model_service.near_features import EmbeddedNearUser, NearFeatures
from model_service.queries import AnsweredUsers, NamedUsers, TopKAnswer, TopKTask, UserOutcome
from two_tower.recommending import RankedRow


class NearLists:
    """Ranks by the model that serves, while there is company to wait for.

    Attributes:
        num_given: Lists so far.
        held: Those that wait for others.
    """

    def __init__(
        self, features: NearFeatures, generations: Generations, company: Company, clock: Callable[[], float]
    ) -> None:
        """Stores who knows the users, what answers, who waits for whom, and what tells monotonic seconds."""
        self._features = features
        self._generations = generations
        self._barred = BarredMovies()
        self.held = Held(company, clock, self._ranked)
        self.num_given = 0

    async def rank(self, task: TopKTask, deadline: float | None) -> TopKAnswer | None:
        """Returns the list as a batch would give it; None if it takes one, or nobody is waited for.

        Args:
            task: About one user or several.
            deadline: When the caller stops waiting, in monotonic seconds; None if never.

        Raises:
            Unavailable: Nothing answers yet.
        """
        if task.model_version is not None or not isinstance(task.users, NamedUsers):
            return None
        generation = self._generations.residents().serving
        if generation.heads.on_host is None or not is_little(task, generation):
            return None
        return await self.held.answered(task) if self.held.is_worth_it(deadline) else None

    def _ranked(self, tasks: Sequence[TopKTask]) -> list[TopKAnswer | None]:
        generation = self._generations.residents().serving
        user_ids = [task.users.user_ids[0] for task in tasks if isinstance(task.users, NamedUsers)]
        near = {
            place: user
            for place, user in enumerate(self._features.embedded_each(user_ids, generation))
            if user is not None
            and user[1].is_ranked_on_host(generation.heads)
            and tasks[place].catalogue_id == generation.catalogue.catalogue_id
        }
        ranked: list[TopKAnswer | None] = [None] * len(tasks)
        if near:
            for place, answer in self._answers(tasks, near, generation):
                ranked[place] = answer
            self._features.note_answered([user_ids[place] for place in near])
            self.num_given += len(near)
        return ranked

    def _answers(
        self, tasks: Sequence[TopKTask], near: Mapping[int, EmbeddedNearUser], generation: Generation
    ) -> Iterator[tuple[int, TopKAnswer]]:
        """Yields the answers of some tasks, by the places of their users."""
        heads = generation.heads.on_host
        assert heads is not None
        on_host = [embedded.on_host for _, embedded in near.values() if embedded.on_host is not None]
        excluded: list[Sequence[NDArray[np.integer]]] = []
        for place, (stored, _) in near.items():
            barred = self._barred.numbers(tasks[place].movie_filter, generation.catalogue)
            excluded.append((barred, stored.seen) if tasks[place].exclude_seen else (barred,))
        lists = heads.rank_all(on_host, [tasks[place].wish.k for place in near], excluded)
        for (place, (stored, embedded)), (best, ratings) in zip(near.items(), lists, strict=True):
            answered = AnsweredUsers([UserOutcome.OK], [embedded.source], [stored.version], [embedded.num_ratings])
            yield place, TopKAnswer(generation, answered, [RankedRow(best, ratings)])
