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
from model_service.queries import AnsweredUsers, NamedUsers, TopKAnswer, TopKTask, UserOutcome, stored_ids
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
        generation = self._generations.residents().serving
        if task.model_version is not None or not self._near([task], generation):
            return None
        return await self.held.answered(task) if self.held.is_worth_it(deadline) else None

    def _ranked(self, tasks: Sequence[TopKTask]) -> list[TopKAnswer | None]:
        generation = self._generations.residents().serving
        near = self._near(tasks, generation)
        ranked: list[TopKAnswer | None] = [None] * len(tasks)
        if near:
            for place, answer in self._answers(tasks, near, generation):
                ranked[place] = answer
            self._features.note_answered([stored_ids(tasks[place].users)[0] for place in near])
            self.num_given += len(near)
        return ranked

    def _near(self, tasks: Sequence[TopKTask], generation: Generation) -> dict[int, EmbeddedNearUser]:
        """Returns the users of the lists that can be made now, by the places of these."""
        little = [
            place
            for place, task in enumerate(tasks)
            if isinstance(task.users, NamedUsers)
            and task.catalogue_id == generation.catalogue.catalogue_id
            and is_little(task, generation)
        ]
        user_ids = [stored_ids(tasks[place].users)[0] for place in little]
        found = self._features.embedded_each(user_ids, generation)
        return {
            place: user
            for place, user in zip(little, found, strict=True)
            if user is not None and user[1].is_ranked_on_host(generation.heads)
        }

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
