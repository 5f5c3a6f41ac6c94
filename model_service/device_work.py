"""Answers a batch on the device, in one pass of the user tower. Knows towers and scores; knows no RPC and no clock."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from marquee.client.columns import UserRows
from marquee.client.user_version import UserVersion, UserVersionError
from numpy.typing import NDArray

from model_service.filters import MovieFilter, permit
from model_service.generation import Generation
from model_service.queries import (
    Answer,
    AnsweredUser,
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
)
from model_service.user_rows import AssembledUsers, assemble
from two_tower.recommending import RankedRow, Wish, recommend
from two_tower.top_k import NumpyScorer, Ranked, Scorer, TorchScorer

_NO_MOVIES = Ranked(np.zeros(0, np.int64), np.zeros(0, np.float32))


class NotFiniteError(Exception):
    """The user tower gave a vector that is no vector of numbers."""


@dataclass(frozen=True, slots=True)
class StoredUsers:
    """What was read of the store; `row_of` is the row of each user id."""

    rows: UserRows
    row_of: Mapping[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class _Slot:
    """Where the users of a task stand in the batch: `rows[i]` is the row of user i, -1 if he has none."""

    users: Sequence[AnsweredUser]
    rows: NDArray[np.int64]


class DeviceWork:
    """Turns tasks into answers. Runs in one thread, the only one that scores on the device."""

    def __init__(self, numpy_max_rows: int) -> None:
        """Stores up to how many rows numpy scores; more are scored by torch."""
        self._numpy_max_rows = numpy_max_rows

    @torch.inference_mode()
    def answer(
        self, tasks: Sequence[Task], stored: StoredUsers | None, generation: Generation, now_ms: int
    ) -> list[Answer | Exception]:
        """Answers each task, or says why it cannot be answered.

        Args:
            tasks: What is asked; their catalogue numbers must be those of the generation.
            stored: What was read of the store for them; None if nothing.
            generation: What answers.
            now_ms: When session events without a time happened.
        """
        queries: list[UserQuery] = []
        outcomes: list[list[UserOutcome]] = []
        rows: list[NDArray[np.int64]] = []
        for task in tasks:
            judged = [_judge(query, stored) for query in task.users]
            ok = np.array([outcome is UserOutcome.OK for outcome in judged], np.bool_)
            rows.append(np.where(ok, len(queries) + np.cumsum(ok) - 1, -1).astype(np.int64))
            queries.extend(query for query, good in zip(task.users, ok, strict=True) if good)
            outcomes.append(judged)
        batch = _Batch(generation, queries, stored, now_ms, self._scorer_for)
        slots = [
            _Slot(_answered_users(task, judged, places, stored, batch), places)
            for task, judged, places in zip(tasks, outcomes, rows, strict=True)
        ]
        return batch.answers(tasks, slots)

    def _scorer_for(self, num_rows: int) -> Scorer:
        return NumpyScorer() if num_rows <= self._numpy_max_rows else TorchScorer()


class _Batch:
    """One pass: all users through the tower, all pairs at once, all rows ranked at once."""

    def __init__(
        self,
        generation: Generation,
        queries: Sequence[UserQuery],
        stored: StoredUsers | None,
        now_ms: int,
        scorer_for: Callable[[int], Scorer],
    ) -> None:
        self._generation = generation
        self._scorer_for = scorer_for
        self.assembled: AssembledUsers | None = None
        self._users: Any = None
        self._bad_rows: set[int] = set()
        self.num_ratings = np.zeros(0, np.int64)
        if queries:
            positions = [-1 if stored is None else stored.row_of.get(query.user_id or "", -1) for query in queries]
            rows = None if stored is None else stored.rows
            self.assembled = assemble(queries, rows, positions, generation.checkpoint, now_ms)
            self._users = generation.heads.embed(self.assembled.columns)
            self.num_ratings = generation.checkpoint.model.count_ratings(self.assembled.columns)
            self._bad_rows = set(np.flatnonzero(~generation.heads.finite_rows(self._users)).tolist())

    def answers(self, tasks: Sequence[Task], slots: Sequence[_Slot]) -> list[Answer | Exception]:
        answers: dict[int, Answer | Exception] = {}
        for place, slot in enumerate(slots):
            if self._bad_rows & set(slot.rows.tolist()):
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
        asked = np.concatenate([np.full(len(task.positions), task.with_deviations) for _, task in tasks])  # [P]
        good = (rows >= 0) & (numbers >= 0)
        ratings, rounded, scores = (np.full(len(rows), np.nan, np.float32) for _ in range(3))
        if good.any():
            ratings[good], rounded[good] = self._stars(rows[good], numbers[good])
            scorer = self._scorer_for(len(self._users))
            scores[good] = self._generation.heads.score_pairs(scorer, self._users, rows[good], numbers[good])
        deviations = self._deviations(rows, numbers, good & asked)
        answers: dict[int, Answer] = {}
        start = 0
        for place, task in tasks:
            some = slice(start, start + len(task.positions))
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
            assert self.assembled is not None
            spread = self._generation.checkpoint.manifest.rating_spread
            told = self._generation.heads.deviations_of_pairs(
                self.assembled.columns, spread, rows[asked], numbers[asked]
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
        assert self.assembled is not None
        return recommend(
            self._generation.heads,
            self._scorer_for(len(rows)),
            self.assembled.columns,
            self._users,
            np.array(rows, np.int64),
            wishes,
            permit(filters, excluded, self._generation.catalogue),
            self._generation.catalogue.available,
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
        self, rows: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        model = self._generation.checkpoint.model
        if model.rating_scale is None:
            unknown = np.full(len(rows), np.nan, np.float32)
            return unknown, unknown
        scorer = self._scorer_for(len(self._users))
        ratings = self._generation.heads.rate_pairs(scorer, self._users, rows, numbers)
        return ratings, model.rating_scale.round(ratings)

    def _seen(self, row: int) -> NDArray[np.int64]:
        assert self.assembled is not None
        return self.assembled.seen[row]


def _judge(query: UserQuery, stored: StoredUsers | None) -> UserOutcome:
    if not query.min_user_version:
        return UserOutcome.OK
    position = None if stored is None else stored.row_of.get(query.user_id or "")
    if stored is None or position is None:
        return UserOutcome.NOT_CURRENT
    try:
        wanted = UserVersion.parse(query.min_user_version)
        found = UserVersion.parse(stored.rows.user_versions[position])
        return UserOutcome.OK if found.includes(wanted) else UserOutcome.NOT_CURRENT
    except UserVersionError:
        return UserOutcome.FOREIGN_VERSION


def _answered_users(
    task: Task,
    outcomes: Sequence[UserOutcome],
    rows: NDArray[np.int64],
    stored: StoredUsers | None,
    batch: _Batch,
) -> list[AnsweredUser]:
    users = []
    for query, outcome, row in zip(task.users, outcomes, rows.tolist(), strict=True):
        position = -1 if stored is None else stored.row_of.get(query.user_id or "", -1)
        version = "" if stored is None or position < 0 else stored.rows.user_versions[position]
        if batch.assembled is None or row < 0:
            users.append(AnsweredUser(outcome, Source.POPULAR, version))
        else:
            users.append(AnsweredUser(outcome, batch.assembled.sources[row], version, int(batch.num_ratings[row])))
    return users
