"""The questions that serving_paths.py asks, 16 of each kind, and what a right answer to each is. Knows no load.

A kind of question takes one way through the service: near or from the store, filtered, with events of a session.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from google.protobuf.message import Message
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import user_pb2

from benchmarks.h2load import CONNECTIONS
from benchmarks.prepared import Prepared
from benchmarks.serving_cost import pairs, zipf_ranks

SESSION_EVENTS = (1, 20, 50, 100)
INLINE_HISTORY = 200
PAIRS_TOGETHER, USERS_TOGETHER = 256, 64
K = 10
TOLERANCE = 1e-3
"""Of a score: a batch may round otherwise than a row alone, by 1e-5 of it."""

_SERVICE = "/marquee.v1.ModelService/"
Check: TypeAlias = Callable[[Any, Any], bool]


@dataclass(frozen=True, slots=True)
class Kind:
    """Questions of one kind.

    Attributes:
        name: What the table calls it.
        method: Full name of the RPC.
        requests: For each connection one.
        answer: The class of the answers.
        is_right: Tells of a request and its answer.
        answers_per_call: For instance the pairs of a batch.
        from_store: Whether it is asked of the service that keeps nobody near, too.
        is_steady: Whether its latency at a steady rate is measured.
    """

    name: str
    method: str
    requests: Sequence[Message]
    answer: type[Message]
    is_right: Check
    answers_per_call: int = 1
    from_store: bool = False
    is_steady: bool = False


def kinds_about(prepared: Prepared) -> list[Kind]:
    """Returns all kinds of questions, about users drawn by Zipf's law with exponent 1."""
    rng = np.random.default_rng(11)
    users, movies = prepared.users, prepared.data.movies.movie_ids
    drawn = [users[rank] for rank in zipf_ranks(rng, len(users), CONNECTIONS * PAIRS_TOGETHER)]
    few = list(dict.fromkeys(drawn))[:CONNECTIONS]
    selectors = [pb.UserSelector(user_id=user) for user in few]
    wanted = [movies[row] for row in rng.integers(0, len(movies), CONNECTIONS * PAIRS_TOGETHER)]
    genre = _commonest_genre(prepared)
    of_genre = {each for each, genres in zip(movies, prepared.data.movies.genres, strict=True) if genre in genres}
    genre_of_80s = pb.MovieFilter(genres_any=[genre], year_min=1980)

    def rate(user: pb.UserSelector, movie: str) -> pb.PredictRatingRequest:
        return pb.PredictRatingRequest(user=user, movie_id=movie)

    rated, listed = pb.PredictRatingResponse, pb.TopKResponse
    kinds = [
        Kind(
            "PredictRating",
            f"{_SERVICE}PredictRating",
            [rate(each, movie) for each, movie in zip(selectors, wanted, strict=False)],
            rated,
            _is_rating,
            from_store=True,
            is_steady=True,
        ),
        Kind(
            "TopK",
            f"{_SERVICE}TopK",
            [pb.TopKRequest(user=each, k=K) for each in selectors],
            listed,
            _is_list,
            from_store=True,
            is_steady=True,
        ),
        Kind(
            "TopK, seen movies too",
            f"{_SERVICE}TopK",
            [pb.TopKRequest(user=each, k=K, exclude_seen=False) for each in selectors],
            listed,
            _is_list,
        ),
        Kind(
            "TopK, filtered",
            f"{_SERVICE}TopK",
            [pb.TopKRequest(user=each, k=K, filter=genre_of_80s) for each in selectors],
            listed,
            lambda request, answer: _is_list(request, answer) and {each.movie_id for each in answer.movies} <= of_genre,
        ),
    ]
    for count in SESSION_EVENTS:
        kinds.append(
            Kind(
                f"PredictRating, {count} new events",
                f"{_SERVICE}PredictRating",
                [
                    rate(pb.UserSelector(user_id=user, session_events=_watched(rng, movies, count)), movie)
                    for user, movie in zip(few, wanted, strict=False)
                ],
                rated,
                _is_rating,
            )
        )
    strangers = [pb.InlineUser(history=_watched(rng, movies, INLINE_HISTORY)) for _ in few]
    kinds.append(
        Kind(
            f"PredictRating, a stranger of {INLINE_HISTORY} movies",
            f"{_SERVICE}PredictRating",
            [rate(pb.UserSelector(inline_user=each), movie) for each, movie in zip(strangers, wanted, strict=False)],
            rated,
            _is_rating,
        )
    )
    batches = [slice(start, start + PAIRS_TOGETHER) for start in range(0, len(drawn), PAIRS_TOGETHER)]
    kinds.append(
        Kind(
            f"BatchPredictRatings of {PAIRS_TOGETHER}",
            f"{_SERVICE}BatchPredictRatings",
            [pairs(drawn[some], wanted[some]) for some in batches],
            pb.BatchPredictRatingsResponse,
            lambda _, answer: list(answer.statuses) == [pb.ROW_STATUS_OK] * PAIRS_TOGETHER,
            answers_per_call=PAIRS_TOGETHER,
        )
    )
    kinds.append(
        Kind(
            f"BatchTopK of {USERS_TOGETHER}",
            f"{_SERVICE}BatchTopK",
            [
                pb.BatchTopKRequest(users=[pb.UserSelector(user_id=user) for user in drawn[some][:USERS_TOGETHER]], k=K)
                for some in batches
            ],
            pb.BatchTopKResponse,
            lambda _, answer: [len(each.movies) for each in answer.results] == [K] * USERS_TOGETHER,
            answers_per_call=USERS_TOGETHER,
        )
    )
    return kinds


def differ(one: Any, another: Any) -> bool:
    """Tells whether two answers of PredictRating or TopK say something else."""
    if isinstance(one, pb.TopKResponse):
        if [each.movie_id for each in one.movies] != [each.movie_id for each in another.movies]:
            return True
        pairs = zip(one.movies, another.movies, strict=True)
        return any(abs(mine.score - other.score) > TOLERANCE for mine, other in pairs)
    return bool(abs(one.score - another.score) > TOLERANCE or abs(one.rating - another.rating) > TOLERANCE)


def _is_rating(_: Any, answer: Any) -> bool:
    return 0.5 <= answer.rating <= 5 and bool(answer.model_version)


def _is_list(_: Any, answer: Any) -> bool:
    scores = [each.score for each in answer.movies]
    return len({each.movie_id for each in answer.movies}) == K and scores == sorted(scores, reverse=True)


def _watched(rng: np.random.Generator, movies: Sequence[str], count: int) -> list[user_pb2.HistoryEntry]:
    rows = rng.choice(len(movies), count, replace=False)
    return [user_pb2.HistoryEntry(movie_id=movies[row], rating=int(rng.integers(1, 11)) / 2) for row in rows]


def _commonest_genre(prepared: Prepared) -> str:
    names = [genre for genres in prepared.data.movies.genres for genre in genres]
    return max(sorted(set(names)), key=names.count)
