"""Parts a batch between the model that serves and one on trial, and joins what both answer. Asks nobody.

A batch is parted after it was admitted as a whole: what is wrong with it is said of the request that was sent.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from marquee.v1 import model_service_pb2 as pb
from numpy.typing import NDArray

from model_service.pieces import Divisible, take

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Trial:
    """Users of a batch who are answered by a model on trial.

    Attributes:
        version: The model on trial.
        tried: Places of these users in the batch, ascending; never empty.
        others: Places of all other users, ascending; never empty.
    """

    version: str
    tried: Sequence[int]
    others: Sequence[int]


def part(task: Divisible, trial: Trial) -> tuple[Divisible, Divisible]:
    """Returns what to ask for the other users, and what to ask the model on trial."""
    return take(task, trial.others), replace(take(task, trial.tried), model_version=trial.version)


def join_lists(trial: Trial, others: pb.BatchTopKResponse, tried: pb.BatchTopKResponse) -> pb.BatchTopKResponse:
    """Returns one answer, in which the rows of the model on trial say so."""
    rows = dict(zip(trial.others, others.results, strict=True))
    for place, row in zip(trial.tried, tried.results, strict=True):
        row.model_version = tried.model_version
        rows[place] = row
    return pb.BatchTopKResponse(results=[rows[place] for place in range(len(rows))], model_version=others.model_version)


def join_ratings(
    request: pb.BatchPredictRatingsRequest,
    trial: Trial,
    others: pb.BatchPredictRatingsResponse,
    tried: pb.BatchPredictRatingsResponse,
) -> pb.BatchPredictRatingsResponse:
    """Returns one answer, in which each user's model is named."""
    is_tried = np.zeros(len(request.user_ids), np.bool_)  # [B]
    is_tried[trial.tried] = True
    of_pair = is_tried[np.asarray(request.user_indices, np.int64)]  # [P]
    deviations = [
        reply.stddevs or [math.nan] * len(reply.ratings) for reply in (others, tried) if others.stddevs or tried.stddevs
    ]
    return pb.BatchPredictRatingsResponse(
        ratings=_merged(of_pair, others.ratings, tried.ratings),
        rounded_ratings=_merged(of_pair, others.rounded_ratings, tried.rounded_ratings),
        scores=_merged(of_pair, others.scores, tried.scores),
        statuses=_merged(of_pair, others.statuses, tried.statuses),
        cold=others.cold,
        sources=_merged(is_tried, others.sources, tried.sources),
        user_versions=_merged(is_tried, others.user_versions, tried.user_versions),
        model_version=others.model_version,
        stddevs=_merged(of_pair, *deviations) if deviations else [],
        num_ratings=_merged(is_tried, others.num_ratings, tried.num_ratings),
        user_model_versions=[tried.model_version if each else others.model_version for each in is_tried.tolist()],
    )


def _merged(from_second: NDArray[np.bool_], first: Iterable[_Value], second: Iterable[_Value]) -> list[_Value]:
    """Takes the next of one or the other."""
    sources = (iter(first), iter(second))
    return [next(sources[each]) for each in from_second.tolist()]
