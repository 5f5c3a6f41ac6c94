"""Makes a generation answer made-up requests, so that no caller pays for what happens once. Knows no person."""

import time
from collections.abc import Sequence

import numpy as np

from model_service.device_work import DeviceWork
from model_service.filters import MovieFilter
from model_service.generation import Generation
from model_service.queries import ProfileFields, RatingTask, SimilarTask, Task, TopKTask, UserQuery, Watched
from two_tower.recommending import Wish

_HISTORY_LENGTH = 20
_K = 10


def warm_up(work: DeviceWork, generation: Generation, batch_rows: Sequence[int]) -> None:
    """Answers a batch of each size, of all kinds of requests.

    Raises:
        Exception: Whatever an answer raised: a generation that cannot answer these must not serve.
    """
    for num_rows in batch_rows:
        answers = work.answer(_tasks(generation, num_rows), None, generation, int(time.time() * 1000))
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer


def _tasks(generation: Generation, num_rows: int) -> list[Task]:
    catalogue_id, num_movies = generation.catalogue.catalogue_id, len(generation.catalogue)
    watched = np.arange(min(_HISTORY_LENGTH, num_movies), dtype=np.int64)
    scale = generation.checkpoint.model.rating_scale
    rating = np.nan if scale is None else scale.high
    history = Watched(watched, np.full(len(watched), rating, np.float32), None)
    users = [UserQuery(None, ProfileFields(), history if row % 2 else None) for row in range(num_rows)]
    rows = np.arange(num_rows, dtype=np.int64)
    return [
        RatingTask(catalogue_id, users, rows, rows % num_movies, with_deviations=True),
        TopKTask(catalogue_id, users, Wish(_K), MovieFilter(), exclude_seen=True),
        TopKTask(catalogue_id, users[:2], Wish(_K, diversity=0.5, explain=1), MovieFilter(), exclude_seen=True),
        SimilarTask(catalogue_id, 0, _K, MovieFilter()),
    ]
