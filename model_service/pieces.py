"""Cuts tasks into pieces that fit a batch, and joins their answers. Knows rows; knows no tensor and no RPC."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model_service.queries import (
    Answer,
    AnsweredUsers,
    RatingAnswer,
    RatingTask,
    Task,
    TopKAnswer,
    TopKTask,
    joined_users,
)

Divisible = TypeVar("Divisible", RatingTask, TopKTask)
"""A task about users, who may be divided."""

_ROWS_TO_EXPLAIN = 10
"""Rows of a batch that a user counts as whose list is explained: up to 50 embeddings of him, and one read."""


def rows_of(task: Task) -> int:
    """Returns how much of a batch a task takes up, at least 1."""
    return max(1, len(task.users) * _rows_per_user(task))


def cut(task: Task, max_rows: int) -> list[Task]:
    """Returns pieces that take up at most `max_rows` each, or are of one user, in order; the task itself if it fits."""
    most = max(1, max_rows // _rows_per_user(task))
    if len(task.users) <= most:
        return [task]
    starts = range(0, len(task.users), most)
    if isinstance(task, TopKTask):
        return [replace(task, users=task.users[start : start + most]) for start in starts]
    if isinstance(task, RatingTask):
        return [_rating_piece(task, start, start + most) for start in starts]
    raise TypeError(f"{type(task).__name__} has no users to divide")


def take(task: Divisible, places: Sequence[int]) -> Divisible:
    """Returns the part of a task that is about the users at some places, in their order."""
    users = joined_users([task.users[place : place + 1] for place in places])
    if isinstance(task, TopKTask):
        return replace(task, users=users)
    place_of = np.full(len(task.users), -1)  # [B]
    place_of[np.asarray(places)] = np.arange(len(places))
    positions = place_of[task.positions]  # [P]
    mine = positions >= 0
    return replace(task, users=users, positions=positions[mine], movie_numbers=task.movie_numbers[mine])


def join(task: Task, answers: Sequence[Answer]) -> Answer:
    """Returns the answer of a task from those of its pieces, which are in the order of `cut`."""
    if len(answers) == 1:
        return answers[0]
    if isinstance(task, TopKTask):
        parts = [answer for answer in answers if isinstance(answer, TopKAnswer)]
        users = AnsweredUsers.joined([part.users for part in parts])
        return TopKAnswer(parts[-1].generation, users, [row for part in parts for row in part.rows])
    if isinstance(task, RatingTask):
        return _joined_ratings(task, [answer for answer in answers if isinstance(answer, RatingAnswer)])
    raise TypeError(f"{type(task).__name__} is never cut")


def _rows_per_user(task: Task) -> int:
    return _ROWS_TO_EXPLAIN if isinstance(task, TopKTask) and task.wish.explain else 1


def _rating_piece(task: RatingTask, start: int, stop: int) -> RatingTask:
    mine = (task.positions >= start) & (task.positions < stop)
    return replace(
        task,
        users=task.users[start:stop],
        positions=task.positions[mine] - start,
        movie_numbers=task.movie_numbers[mine],
    )


def _joined_ratings(task: RatingTask, parts: Sequence[RatingAnswer]) -> RatingAnswer:
    first_user = np.concatenate(([0], np.cumsum([len(part.users) for part in parts])))
    piece_of_pair = np.searchsorted(first_user, task.positions, side="right") - 1
    # Pieces keep the order of their pairs, so a stable sort by piece tells where each answer belongs.
    places = np.argsort(piece_of_pair, kind="stable")
    ratings, rounded, scores = (np.empty(len(places), np.float32) for _ in range(3))
    ratings[places] = np.concatenate([part.ratings for part in parts])
    rounded[places] = np.concatenate([part.rounded_ratings for part in parts])
    scores[places] = np.concatenate([part.scores for part in parts])
    users = AnsweredUsers.joined([part.users for part in parts])
    generation = parts[-1].generation
    return RatingAnswer(generation, users, ratings, rounded, scores, _joined_deviations(places, parts))


def _joined_deviations(places: NDArray[np.intp], parts: Sequence[RatingAnswer]) -> NDArray[np.float32] | None:
    """Returns the deviations of all pieces; a checkpoint that came between may tell what the one before could not."""
    if all(part.deviations is None for part in parts):
        return None
    deviations = np.empty(len(places), np.float32)
    deviations[places] = np.concatenate(
        [
            np.full(len(part.ratings), np.nan, np.float32) if part.deviations is None else part.deviations
            for part in parts
        ]
    )
    return deviations
