"""Holds what ModelService answers, as plain values. Knows no RPC.

Everything is as `protos/marquee/v1/model_service.proto` describes it; an absent field is None.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import movie_pb2


class Source(IntEnum):
    """What an answer is based on; the names and numbers are those of AnswerSource."""

    UNSPECIFIED = pb.ANSWER_SOURCE_UNSPECIFIED
    PERSONAL = pb.ANSWER_SOURCE_PERSONAL
    FOLDED_IN = pb.ANSWER_SOURCE_FOLDED_IN
    PROFILE = pb.ANSWER_SOURCE_PROFILE
    POPULAR = pb.ANSWER_SOURCE_POPULAR


_SOURCES = {int(source): source for source in Source}


def source_of(number: int) -> Source:
    """Returns the source of a message; one that a newer service has and this client has not is UNSPECIFIED."""
    return _SOURCES.get(number, Source.UNSPECIFIED)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a user would rate a movie.

    Attributes:
        rating: Stars, within the scale of the data.
        rounded_rating: The nearest rating that a user could give.
        score: What ranks this movie for this user; unbounded.
        source: What it is based on.
        cold: The checkpoint does not know the movie.
        num_ratings: Ratings of the user that it rests on.
        model_version: What answered.
        user_version: The user's state that was used.
        stddev: Standard deviation of the rating, in stars; None if it was not asked for or cannot be told.
    """

    rating: float
    rounded_rating: float
    score: float
    source: Source
    cold: bool
    num_ratings: int
    model_version: str
    user_version: str
    stddev: float | None = None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One movie of a list.

    Attributes:
        movie_id: External id.
        score: What ranks; comparable within one list only.
        predicted_rating: Stars; None if the data has no ratings.
        cold: The checkpoint does not know the movie.
        movie: Title, year and genres, if they were asked for.
        reasons: Share of each movie of the user's history that speaks for it, largest first, if asked for.
    """

    movie_id: str
    score: float
    predicted_rating: float | None
    cold: bool
    movie: movie_pb2.Movie | None = None
    reasons: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True, slots=True)
class Recommendations:
    """The best movies for a user, best first.

    Attributes:
        movies: The list.
        source: What it is based on.
        model_version: What answered.
        user_version: The user's state that was used.
    """

    movies: Sequence[Recommendation]
    source: Source
    model_version: str
    user_version: str

    @property
    def movie_ids(self) -> list[str]:
        """The ids alone, best first."""
        return [movie.movie_id for movie in self.movies]


def read_prediction(reply: pb.PredictRatingResponse) -> Prediction:
    """Returns the answer of PredictRating."""
    return Prediction(
        reply.rating,
        reply.rounded_rating,
        reply.score,
        source_of(reply.source),
        reply.cold,
        reply.num_ratings,
        reply.model_version,
        reply.user_version,
        reply.stddev if reply.HasField("stddev") else None,
    )


def read_recommendations(row: pb.TopKResponse | pb.UserTopK, model_version: str) -> Recommendations:
    """Returns the answer of TopK, or a row of BatchTopK."""
    return Recommendations(
        [_read_ranked(movie) for movie in row.movies], source_of(row.source), model_version, row.user_version
    )


def _read_ranked(movie: pb.RankedMovie) -> Recommendation:
    return Recommendation(
        movie.movie_id,
        movie.score,
        movie.predicted_rating if movie.HasField("predicted_rating") else None,
        movie.cold,
        movie.movie if movie.HasField("movie") else None,
        [(reason.movie_id, reason.share) for reason in movie.explanation.reasons],
    )
