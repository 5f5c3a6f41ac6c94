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


@dataclass(frozen=True, slots=True)
class _Draw:
    """Whom and what is asked about.

    Attributes:
        movies: The catalogue.
        drawn: Users, drawn by Zipf's law with exponent 1.
        few: The first of them who differ, one for each connection.
        wanted: Movies, all as likely.
    """

    movies: Sequence[str]
    drawn: Sequence[str]
    few: Sequence[str]
    wanted: Sequence[str]

    @property
    def selectors(self) -> list[pb.UserSelector]:
        return [pb.UserSelector(user_id=user) for user in self.few]


def kinds_about(prepared: Prepared) -> list[Kind]:
    """Returns all kinds of questions, about users drawn by Zipf's law with exponent 1."""
    rng = np.random.default_rng(11)
    users, movies = prepared.users, prepared.data.movies.movie_ids
    drawn = [users[rank] for rank in zipf_ranks(rng, len(users), CONNECTIONS * PAIRS_TOGETHER)]
    wanted = [movies[row] for row in rng.integers(0, len(movies), CONNECTIONS * PAIRS_TOGETHER)]
    draw = _Draw(movies, drawn, list(dict.fromkeys(drawn))[:CONNECTIONS], wanted)
    rated = _ratings("PredictRating", draw.selectors, draw, of_all=True)
    return [rated, *_lists(draw, prepared), *_histories(draw, rng), *_batches(draw)]


def _ratings(name: str, selectors: Sequence[pb.UserSelector], draw: _Draw, *, of_all: bool = False) -> Kind:
    """Returns questions for one rating each; `of_all`: of the store too, and at a steady rate."""
    return Kind(
        name,
        f"{_SERVICE}PredictRating",
        [
            pb.PredictRatingRequest(user=user, movie_id=movie)
            for user, movie in zip(selectors, draw.wanted, strict=False)
        ],
        pb.PredictRatingResponse,
        _is_rating,
        from_store=of_all,
        is_steady=of_all,
    )


def _lists(draw: _Draw, prepared: Prepared) -> list[Kind]:
    genre, movies = _commonest_genre(prepared), prepared.data.movies
    of_genre = {each for each, genres in zip(movies.movie_ids, movies.genres, strict=True) if genre in genres}
    genre_of_80s = pb.MovieFilter(genres_any=[genre], year_min=1980)

    def is_of_genre(request: Any, answer: Any) -> bool:
        return _is_list(request, answer) and {each.movie_id for each in answer.movies} <= of_genre

    method, answer = f"{_SERVICE}TopK", pb.TopKResponse
    plain = [pb.TopKRequest(user=each, k=K) for each in draw.selectors]
    with_seen = [pb.TopKRequest(user=each, k=K, exclude_seen=False) for each in draw.selectors]
    filtered = [pb.TopKRequest(user=each, k=K, filter=genre_of_80s) for each in draw.selectors]
    return [
        Kind("TopK", method, plain, answer, _is_list, from_store=True, is_steady=True),
        Kind("TopK, seen movies too", method, with_seen, answer, _is_list),
        Kind("TopK, filtered", method, filtered, answer, is_of_genre),
    ]


def _histories(draw: _Draw, rng: np.random.Generator) -> list[Kind]:
    """Returns questions that carry a history: that of a session, or all of a stranger's."""
    kinds = []
    for count in SESSION_EVENTS:
        sessions = [
            pb.UserSelector(user_id=user, session_events=_watched(rng, draw.movies, count)) for user in draw.few
        ]
        kinds.append(_ratings(f"PredictRating, {count} new events", sessions, draw))
    strangers = [
        pb.UserSelector(inline_user=pb.InlineUser(history=_watched(rng, draw.movies, INLINE_HISTORY))) for _ in draw.few
    ]
    return [*kinds, _ratings(f"PredictRating, a stranger of {INLINE_HISTORY} movies", strangers, draw)]


def _batches(draw: _Draw) -> list[Kind]:
    batches = [slice(start, start + PAIRS_TOGETHER) for start in range(0, len(draw.drawn), PAIRS_TOGETHER)]
    users = [[pb.UserSelector(user_id=user) for user in draw.drawn[some][:USERS_TOGETHER]] for some in batches]
    return [
        Kind(
            f"BatchPredictRatings of {PAIRS_TOGETHER}",
            f"{_SERVICE}BatchPredictRatings",
            [pairs(draw.drawn[some], draw.wanted[some]) for some in batches],
            pb.BatchPredictRatingsResponse,
            lambda _, answer: list(answer.statuses) == [pb.ROW_STATUS_OK] * PAIRS_TOGETHER,
            answers_per_call=PAIRS_TOGETHER,
        ),
        Kind(
            f"BatchTopK of {USERS_TOGETHER}",
            f"{_SERVICE}BatchTopK",
            [pb.BatchTopKRequest(users=each, k=K) for each in users],
            pb.BatchTopKResponse,
            lambda _, answer: [len(each.movies) for each in answer.results] == [K] * USERS_TOGETHER,
            answers_per_call=USERS_TOGETHER,
        ),
    ]


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
