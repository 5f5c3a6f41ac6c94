"""Answers a batch on the device, in one pass of the user tower. Knows towers and scores; knows no RPC and no clock."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from marquee.client.user_version import UserVersion, UserVersionError
from numpy.typing import NDArray

from model_service.embedded_user import EmbeddedUser
from model_service.filters import MovieFilter, permit
from model_service.generation import Generation
from model_service.queries import (
    Answer,
    AnsweredUsers,
    NamedUsers,
    RatingAnswer,
    RatingTask,
    SimilarAnswer,
    SimilarTask,
    Source,
    Task,
    TopKAnswer,
    TopKTask,
    UserOutcome,
    UserQuery,
    joined_users,
    stored_ids,
)
from model_service.stored_user import StoredUser
from model_service.user_side import StoredUsers, UserSide, embed, near_of
from two_tower.answer_source import are_popular
from two_tower.blockwise import BlockwiseScorer
from two_tower.recommending import RankedRow, Wish, recommend
from two_tower.top_k import NumpyScorer, Ranked, Scorer

_NO_MOVIES = Ranked(np.zeros(0, np.int64), np.zeros(0, np.float32))
_MANY_SCORES = 100_000
"""Scores of a batch from which on it is worth a thread."""


class NotFiniteError(Exception):
    """The user tower gave a vector that is no vector of numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class _Slot:
    """Where the users of a task stand in the batch: `rows[i]` is the row of user i, -1 if he has none."""

    users: AnsweredUsers
    rows: NDArray[np.int64]


class DeviceWork:
    """Turns tasks into answers. One batch at a time, and on a GPU always in the one thread that scores there."""

    def __init__(self, numpy_max_rows: int) -> None:
        """Stores up to how many rows numpy scores; more are scored by torch."""
        self._numpy_max_rows = numpy_max_rows

    def is_quick(self, tasks: Sequence[Task], stored: StoredUsers | None, generation: Generation) -> bool:
        """Tells whether `answer_and_embed` takes less time than a thread costs: all users near, and little to score.

        Args:
            tasks: As of `answer_and_embed`.
            stored: Likewise.
            generation: Likewise.
        """
        heads = generation.heads
        if not heads.scores_dot_products or heads.cosines.vectors.device.type != "cpu":
            return False
        if None in near_of(joined_users([task.users for task in tasks]), stored):
            return False
        num_scores = 0
        for task in tasks:
            if isinstance(task, SimilarTask) or _needs_columns(task, generation):
                return False
            if isinstance(task, RatingTask):
                num_scores += len(task.positions)
            else:
                num_scores += len(task.users) * len(generation.catalogue) if task.wish.diversity == 0 else _MANY_SCORES
        return num_scores < _MANY_SCORES

    def answer(
        self, tasks: Sequence[Task], stored: StoredUsers | None, generation: Generation, now_ms: int
    ) -> list[Answer | Exception]:
        """Answers each task, or says why it cannot be answered; arguments as those of `answer_and_embed`."""
        return self.answer_and_embed(tasks, stored, generation, now_ms)[0]

    @torch.inference_mode()
    def answer_and_embed(
        self, tasks: Sequence[Task], stored: StoredUsers | None, generation: Generation, now_ms: int
    ) -> tuple[list[Answer | Exception], Mapping[str, EmbeddedUser]]:
        """Answers each task, or says why it cannot be answered, and gives the users that were embedded for it.

        Args:
            tasks: What is asked; their catalogue numbers must be those of the generation.
            stored: What was read of the store for them; None if nothing.
            generation: What answers.
            now_ms: When session events without a time happened.

        Returns:
            The answers in the order of the tasks, and stored users who may be kept, by id.
        """
        users = joined_users([task.users for task in tasks])  # [B]
        outcomes = _judged(users, stored)
        good = np.array([outcome is UserOutcome.OK for outcome in outcomes], np.bool_)  # [B]
        rows = np.where(good, np.cumsum(good) - 1, -1)  # [B]
        side = None
        if good.any():
            side = embed(
                users if good.all() else [users[place] for place in np.flatnonzero(good).tolist()],
                stored,
                generation,
                now_ms,
                with_columns=any(_needs_columns(task, generation) for task in tasks),
                with_seen=any(isinstance(task, TopKTask) and task.exclude_seen for task in tasks),
            )
        batch = _Batch(generation, side, self._scorer_for)
        answered = _answered(users, outcomes, rows, stored, side)
        ends = list(accumulate(len(task.users) for task in tasks))
        slots = [
            _Slot(answered.part(end - len(task.users), end), rows[end - len(task.users) : end])
            for task, end in zip(tasks, ends, strict=True)
        ]
        return batch.answers(tasks, slots), {} if side is None else side.made

    @torch.inference_mode()
    def embed_users(
        self, users: Mapping[str, StoredUser], generation: Generation, now_ms: int
    ) -> Mapping[str, EmbeddedUser]:
        """Returns stored users as a generation embeds them, by id; without those of whom it makes no numbers.

        Args:
            users: By id, at least one.
            generation: Over a catalogue that has all movies of theirs.
            now_ms: The time in ms since the epoch.
        """
        stored = StoredUsers(users, kept=True)
        return embed(NamedUsers(list(users)), stored, generation, now_ms, with_columns=False, with_seen=False).made

    def _scorer_for(self, num_rows: int) -> Scorer:
        return NumpyScorer() if num_rows <= self._numpy_max_rows else BlockwiseScorer()


class _Batch:
    """One pass: all pairs at once, all rows ranked at once. `side` is None if nobody is asked about."""

    def __init__(self, generation: Generation, side: UserSide | None, scorer_for: Callable[[int], Scorer]) -> None:
        self._generation = generation
        self._side = side
        self._scorer_for = scorer_for

    def answers(self, tasks: Sequence[Task], slots: Sequence[_Slot]) -> list[Answer | Exception]:
        answers: dict[int, Answer | Exception] = {}
        for place, slot in enumerate(slots):
            if self._side is not None and self._side.bad_rows and self._side.bad_rows & set(slot.rows.tolist()):
                answers[place] = NotFiniteError("the user tower gave a vector that is not finite")
        answerable = [place for place in range(len(tasks)) if place not in answers]
        ratings = [(place, task) for place in answerable if isinstance(task := tasks[place], RatingTask)]
        rankings = [(place, task) for place in answerable if isinstance(task := tasks[place], TopKTask)]
        similar = [(place, task) for place in answerable if isinstance(task := tasks[place], SimilarTask)]
        answers.update(self._rate(ratings, slots))
        answers.update(self._rank(rankings, slots))
        answers.update(self._find_similar(similar))
        return [answers[place] for place in range(len(tasks))]

    def _rate(self, tasks: Sequence[tuple[int, RatingTask]], slots: Sequence[_Slot]) -> dict[int, Answer]:
        if not tasks:
            return {}
        rows = np.concatenate([slots[place].rows[task.positions] for place, task in tasks])  # [P]
        numbers = np.concatenate([task.movie_numbers for _, task in tasks])  # [P]
        lengths = [len(task.positions) for _, task in tasks]
        asked = np.repeat([task.with_deviations for _, task in tasks], lengths)  # [P]
        good = (rows >= 0) & (numbers >= 0)
        ratings, rounded, scores = (np.full(len(rows), np.nan, np.float32) for _ in range(3))
        if self._side is not None and good.any():
            users = self._side.vectors
            ratings[good], rounded[good] = self._stars(users, rows[good], numbers[good])
            scorer = self._scorer_for(len(users))
            scores[good] = self._generation.heads.score_pairs(scorer, users, rows[good], numbers[good])
            popularity = self._generation.heads.popularity
            if popularity is not None:
                popular = good.copy()
                popular[good] = are_popular(self._side.sources)[rows[good]]
                scores[popular] = popularity[numbers[popular]]
        deviations = self._deviations(rows, numbers, good & asked)
        answers: dict[int, Answer] = {}
        start = 0
        for (place, task), length in zip(tasks, lengths, strict=True):
            some = slice(start, start + length)
            start = some.stop
            told = deviations[some] if task.with_deviations and deviations is not None else None
            answers[place] = RatingAnswer(
                self._generation, slots[place].users, ratings[some], rounded[some], scores[some], told
            )
        return answers

    def _deviations(
        self, rows: NDArray[np.int64], numbers: NDArray[np.int64], asked: NDArray[np.bool_]
    ) -> NDArray[np.float32] | None:
        """Returns the deviations of the pairs asked for, NaN elsewhere; None if nobody can tell."""
        deviations = np.full(len(rows), np.nan, np.float32)
        if asked.any():
            assert self._side is not None
            told = self._generation.heads.deviations_of_pairs(
                self._side.columns,
                np.asarray(self._side.num_ratings, np.int64),
                self._generation.checkpoint.manifest.rating_spread,
                rows[asked],
                numbers[asked],
            )
            if told is None:
                return None
            deviations[asked] = told
        return deviations

    def _rank(self, tasks: Sequence[tuple[int, TopKTask]], slots: Sequence[_Slot]) -> dict[int, Answer]:
        rows: list[int] = []
        wishes: list[Wish] = []
        filters: list[MovieFilter] = []
        excluded: list[NDArray[np.int64]] = []
        for place, task in tasks:
            for row in slots[place].rows[slots[place].rows >= 0].tolist():
                rows.append(row)
                wishes.append(task.wish)
                filters.append(task.movie_filter)
                excluded.append(self._seen(row) if task.exclude_seen else np.zeros(0, np.int64))
        ranked = iter(self._ranked_rows(rows, wishes, filters, excluded))
        nothing = RankedRow(_NO_MOVIES, None)
        return {
            place: TopKAnswer(
                self._generation,
                slots[place].users,
                [next(ranked) if row >= 0 else nothing for row in slots[place].rows.tolist()],
            )
            for place, _ in tasks
        }

    def _ranked_rows(
        self, rows: list[int], wishes: list[Wish], filters: list[MovieFilter], excluded: list[NDArray[np.int64]]
    ) -> list[RankedRow]:
        if not rows:
            return []
        assert self._side is not None
        return recommend(
            self._generation.heads,
            self._generation.scorer(self._scorer_for(len(rows))),
            self._side.columns,
            self._side.vectors,
            np.array(rows, np.int64),
            wishes,
            permit(filters, excluded, self._generation.catalogue),
            self._generation.catalogue.available,
            are_popular(self._side.sources),
        )

    def _find_similar(self, tasks: Sequence[tuple[int, SimilarTask]]) -> dict[int, Answer]:
        if not tasks:
            return {}
        cosines = self._generation.heads.cosines
        numbers = torch.tensor([task.movie_number for _, task in tasks], device=cosines.vectors.device)
        itself = [np.array([task.movie_number], np.int64) for _, task in tasks]
        permitted = permit([task.movie_filter for _, task in tasks], itself, self._generation.catalogue)
        scorer = self._scorer_for(len(tasks))
        ranked = scorer.rank(cosines.vectors[numbers], cosines, [task.k for _, task in tasks], permitted)
        return {
            place: SimilarAnswer(self._generation, RankedRow(each, None))
            for (place, _), each in zip(tasks, ranked, strict=True)
        }

    def _stars(
        self, users: Any, rows: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        model = self._generation.checkpoint.model
        if model.rating_scale is None:
            unknown = np.full(len(rows), np.nan, np.float32)
            return unknown, unknown
        ratings = self._generation.heads.rate_pairs(self._scorer_for(len(users)), users, rows, numbers)
        return ratings, model.rating_scale.round(ratings)

    def _seen(self, row: int) -> NDArray[np.int64]:
        assert self._side is not None
        return self._side.seen[row]


def _needs_columns(task: Task, generation: Generation) -> bool:
    if isinstance(task, TopKTask):
        return task.wish.explain > 0
    return isinstance(task, RatingTask) and task.with_deviations and generation.heads.tells_deviations


def _judged(users: Sequence[UserQuery], stored: StoredUsers | None) -> list[UserOutcome]:
    """Returns what becomes of each user. [B]."""
    if isinstance(users, NamedUsers):
        return [UserOutcome.OK] * len(users)
    return [_judge(query, stored) for query in users]


def _judge(query: UserQuery, stored: StoredUsers | None) -> UserOutcome:
    if not query.min_user_version:
        return UserOutcome.OK
    user = None if stored is None else stored.users.get(query.user_id or "")
    if user is None:
        return UserOutcome.NOT_CURRENT
    try:
        wanted = UserVersion.parse(query.min_user_version)
        found = UserVersion.parse(user.version)
        return UserOutcome.OK if found.includes(wanted) else UserOutcome.NOT_CURRENT
    except UserVersionError:
        return UserOutcome.FOREIGN_VERSION


def _answered(
    users: Sequence[UserQuery],
    outcomes: Sequence[UserOutcome],
    rows: NDArray[np.int64],
    stored: StoredUsers | None,
    side: UserSide | None,
) -> AnsweredUsers:
    versions = [""] * len(users)
    if stored is not None:
        versions = ["" if user is None else user.version for user in map(stored.users.get, stored_ids(users))]
    if side is None:
        return AnsweredUsers(outcomes, [Source.POPULAR] * len(outcomes), versions, [0] * len(outcomes))
    places = rows.tolist()
    return AnsweredUsers(
        outcomes,
        [side.sources[row] if row >= 0 else Source.POPULAR for row in places],
        versions,
        [side.num_ratings[row] if row >= 0 else 0 for row in places],
    )
