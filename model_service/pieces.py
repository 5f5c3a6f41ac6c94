"""Cuts tasks into pieces that fit a batch, and joins their answers. Knows rows; knows no tensor and no RPC."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from model_service.queries import Answer, RatingAnswer, RatingTask, Task, TopKAnswer, TopKTask


def cut(task: Task, max_rows: int) -> list[Task]:
    """Returns pieces of at most `max_rows` users each, in order; the task itself if it fits."""
    if len(task.users) <= max_rows:
        return [task]
    starts = range(0, len(task.users), max_rows)
    if isinstance(task, TopKTask):
        return [replace(task, users=task.users[start : start + max_rows]) for start in starts]
    if isinstance(task, RatingTask):
        return [_rating_piece(task, start, start + max_rows) for start in starts]
    raise TypeError(f"{type(task).__name__} has no users to divide")


def join(task: Task, answers: Sequence[Answer]) -> Answer:
    """Returns the answer of a task from those of its pieces, which are in the order of `cut`."""
    if len(answers) == 1:
        return answers[0]
    if isinstance(task, TopKTask):
        parts = [answer for answer in answers if isinstance(answer, TopKAnswer)]
        users = [user for part in parts for user in part.users]
        return TopKAnswer(parts[-1].generation, users, [row for part in parts for row in part.rows])
    if isinstance(task, RatingTask):
        return _joined_ratings(task, [answer for answer in answers if isinstance(answer, RatingAnswer)])
    raise TypeError(f"{type(task).__name__} is never cut")


def _rating_piece(task: RatingTask, start: int, stop: int) -> RatingTask:
    mine = (task.positions >= start) & (task.positions < stop)
    return RatingTask(task.catalogue_id, task.users[start:stop], task.positions[mine] - start, task.movie_numbers[mine])


def _joined_ratings(task: RatingTask, parts: Sequence[RatingAnswer]) -> RatingAnswer:
    first_user = np.concatenate(([0], np.cumsum([len(part.users) for part in parts])))
    piece_of_pair = np.searchsorted(first_user, task.positions, side="right") - 1
    # Pieces keep the order of their pairs, so a stable sort by piece tells where each answer belongs.
    places = np.argsort(piece_of_pair, kind="stable")
    ratings, rounded, scores = (np.empty(len(places), np.float32) for _ in range(3))
    ratings[places] = np.concatenate([part.ratings for part in parts])
    rounded[places] = np.concatenate([part.rounded_ratings for part in parts])
    scores[places] = np.concatenate([part.scores for part in parts])
    users = [user for part in parts for user in part.users]
    return RatingAnswer(parts[-1].generation, users, ratings, rounded, scores)
