"""Turns answers into messages. Knows messages and titles; knows no tensor."""

from collections.abc import Sequence

import numpy as np
from marquee.v1 import model_service_pb2, movie_pb2
from numpy.typing import NDArray

from model_service.catalogue import CatalogueMovie
from model_service.generation import Generation
from model_service.near_pairs import RatedPair
from model_service.packed_columns import packed
from model_service.queries import (
    AnsweredUser,
    RatingAnswer,
    RatingTask,
    SimilarAnswer,
    Source,
    TopKAnswer,
    UserOutcome,
)
from service_runtime.errors import FailedPrecondition, Unavailable
from two_tower.explaining import Explanation
from two_tower.recommending import RankedRow

_STATUS_OF = {
    UserOutcome.OK: model_service_pb2.ROW_STATUS_OK,
    UserOutcome.NOT_CURRENT: model_service_pb2.ROW_STATUS_USER_NOT_CURRENT,
    UserOutcome.FOREIGN_VERSION: model_service_pb2.ROW_STATUS_FOREIGN_USER_VERSION,
}
_NUMBER_OF = {source: model_service_pb2.AnswerSource.ValueType(source.value) for source in Source}
_RETRY_AFTER_S = 0.1


def require_answered(user: AnsweredUser) -> AnsweredUser:
    """Refuses the answer of a single user who could not be answered for.

    Raises:
        Unavailable: His state is older than was asked for.
        FailedPrecondition: His version cannot be compared with what was asked for.
    """
    if user.outcome is UserOutcome.NOT_CURRENT:
        raise Unavailable(
            "the user's state is older than min_user_version", reason="USER_NOT_CURRENT", retry_after_s=_RETRY_AFTER_S
        )
    if user.outcome is UserOutcome.FOREIGN_VERSION:
        raise FailedPrecondition(
            "min_user_version is malformed, of another user, or of a store that was replaced since",
            reason="FOREIGN_USER_VERSION",
        )
    return user


def predict_rating(task: RatingTask, answer: RatingAnswer) -> model_service_pb2.PredictRatingResponse:
    """Returns the answer for one pair."""
    user = require_answered(answer.users[0])
    return model_service_pb2.PredictRatingResponse(
        rating=answer.ratings[0],
        rounded_rating=answer.rounded_ratings[0],
        score=answer.scores[0],
        source=_source(user.outcome, user.source),
        cold=not answer.generation.heads.known[task.movie_numbers[0]],
        model_version=answer.generation.checkpoint.version,
        user_version=user.user_version,
        stddev=None if answer.deviations is None else answer.deviations[0],
        num_ratings=user.num_ratings,
    )


def rated_pair(pair: RatedPair) -> model_service_pb2.PredictRatingResponse:
    """Returns the same of a pair that was rated with others."""
    return model_service_pb2.PredictRatingResponse(
        rating=pair.rating,
        rounded_rating=pair.rounded_rating,
        score=pair.score,
        source=_NUMBER_OF[pair.source],
        cold=pair.cold,
        model_version=pair.model_version,
        user_version=pair.user_version,
        stddev=pair.deviation,
        num_ratings=pair.num_ratings,
    )


def batch_predict_ratings(
    request: model_service_pb2.BatchPredictRatingsRequest, task: RatingTask, answer: RatingAnswer
) -> model_service_pb2.BatchPredictRatingsResponse:
    """Returns the answers for many pairs; what could not be answered for has a status and NaN."""
    users = answer.users
    user_statuses = np.array([_STATUS_OF[outcome] for outcome in users.outcomes], np.uint8)  # [B]
    statuses = user_statuses[task.positions]  # [P]
    statuses[task.movie_numbers < 0] = model_service_pb2.ROW_STATUS_MOVIE_NOT_FOUND
    numbers = answer.generation.catalogue.numbers_of(request.movie_ids)  # [N]
    columns: dict[str, NDArray[np.generic]] = {
        "ratings": answer.ratings,
        "rounded_ratings": answer.rounded_ratings,
        "scores": answer.scores,
        "statuses": statuses,
        "cold": (numbers >= 0) & ~answer.generation.heads.known[numbers],  # [N]
    }
    if answer.deviations is not None:
        columns["stddevs"] = answer.deviations
    response = model_service_pb2.BatchPredictRatingsResponse(
        sources=[_source(*each) for each in zip(users.outcomes, users.sources, strict=True)],
        user_versions=users.user_versions,
        num_ratings=users.num_ratings,
        model_version=answer.generation.checkpoint.version,
    )
    fields = response.DESCRIPTOR.fields_by_name
    response.MergeFromString(b"".join(packed(fields[name], column) for name, column in columns.items()))
    return response


def top_k(request: model_service_pb2.TopKRequest, answer: TopKAnswer) -> model_service_pb2.TopKResponse:
    """Returns the ranked movies of one user."""
    user = require_answered(answer.users[0])
    response = model_service_pb2.TopKResponse(
        source=_source(user.outcome, user.source),
        model_version=answer.generation.checkpoint.version,
        user_version=user.user_version,
    )
    _add_ranked(response, answer.rows[0], answer.generation, request.view)
    return response


def batch_top_k(request: model_service_pb2.BatchTopKRequest, answer: TopKAnswer) -> model_service_pb2.BatchTopKResponse:
    """Returns the ranked movies of many users."""
    users = answer.users
    response = model_service_pb2.BatchTopKResponse(model_version=answer.generation.checkpoint.version)
    for outcome, source, user_version, row in zip(
        users.outcomes, users.sources, users.user_versions, answer.rows, strict=True
    ):
        result = response.results.add(
            status=_STATUS_OF[outcome], source=_source(outcome, source), user_version=user_version
        )
        _add_ranked(result, row, answer.generation, request.view)
    return response


def similar_movies(
    request: model_service_pb2.SimilarMoviesRequest, answer: SimilarAnswer
) -> model_service_pb2.SimilarMoviesResponse:
    """Returns the nearest movies."""
    response = model_service_pb2.SimilarMoviesResponse(model_version=answer.generation.checkpoint.version)
    _add_ranked(response, answer.row, answer.generation, request.view)
    return response


def _add_ranked(
    response: model_service_pb2.TopKResponse | model_service_pb2.UserTopK | model_service_pb2.SimilarMoviesResponse,
    row: RankedRow,
    generation: Generation,
    view: int,
) -> None:
    """Adds the movies of a list. In place, and each with what it has: both take half of what making messages takes."""
    movies, add = generation.catalogue.movies, response.movies.add
    numbers, scores = row.ranked.numbers.tolist(), row.ranked.scores.tolist()
    are_known = generation.heads.known[row.ranked.numbers].tolist()
    if row.ratings is None:
        for number, score in zip(numbers, scores, strict=True):
            add(movie_id=movies[number].movie_id, score=score)
    else:
        for number, score, rating in zip(numbers, scores, row.ratings.tolist(), strict=True):
            add(movie_id=movies[number].movie_id, score=score, predicted_rating=rating)
    if not all(are_known):
        for ranked, is_known in zip(response.movies, are_known, strict=True):
            ranked.cold = not is_known
    if row.explanations is not None:
        for ranked, explanation in zip(response.movies, row.explanations, strict=True):
            ranked.explanation.CopyFrom(_explanation(explanation, movies))
    if view == movie_pb2.MOVIE_VIEW_MOVIE:
        for ranked, number in zip(response.movies, numbers, strict=True):
            ranked.movie.CopyFrom(_movie(movies[number]))


def _explanation(explanation: Explanation, movies: Sequence[CatalogueMovie]) -> model_service_pb2.Explanation:
    reasons = zip(explanation.numbers.tolist(), explanation.shares.tolist(), strict=True)
    return model_service_pb2.Explanation(
        reasons=[model_service_pb2.Reason(movie_id=movies[number].movie_id, share=share) for number, share in reasons],
        unexplained=explanation.unexplained,
    )


def _movie(movie: CatalogueMovie) -> movie_pb2.Movie:
    return movie_pb2.Movie(
        movie_id=movie.movie_id,
        catalogue_number=movie.number,
        title=movie.title or None,
        year=movie.year,
        genres=movie.genres,
    )


def _source(outcome: UserOutcome, source: Source) -> model_service_pb2.AnswerSource.ValueType:
    return _NUMBER_OF[source] if outcome is UserOutcome.OK else model_service_pb2.ANSWER_SOURCE_UNSPECIFIED
