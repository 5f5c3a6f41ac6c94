"""Turns requests into tasks, or says everything that is wrong with them. Knows messages and limits; knows no tensor."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from marquee.v1 import model_service_pb2, movie_pb2
from numpy.typing import NDArray

from model_service.field_rules import FieldRules
from model_service.generation import Generation
from model_service.queries import NamedUsers, RatingTask, SimilarTask, Task, TopKTask, UserQuery
from service_runtime.errors import FailedPrecondition, InvalidRequest, NotFound

MAX_USERS = 1000
MAX_PAIRS = 4096
MAX_BATCH_RANKED = 20_000
MAX_BATCH_RANKED_AT_LENGTH = 1000
"""With titles or explanations."""
MAX_EXPLAINED_USERS = 50
MAX_BATCH_HISTORY = 5000

_THE_ONE = np.zeros(1, np.int64)
"""Position of the only user."""


def no_ratings(generation: Generation) -> FailedPrecondition:
    """Returns the refusal of a request for ratings by a model that has none."""
    return FailedPrecondition(
        f"checkpoint {generation.checkpoint.version} was trained on data without ratings: it ranks only",
        reason="NO_RATINGS",
    )


class Admission:
    """Reads one request against one generation.

    Attributes:
        rules: What was found wrong, and whether a newer catalogue may know better.
        missing_movies: What the request is about and the catalogue lacks.
    """

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self.rules = FieldRules(generation.catalogue, generation.checkpoint.model.rating_scale)
        self.missing_movies: list[str] = []

    def predict_rating(self, request: model_service_pb2.PredictRatingRequest) -> Task:
        """Reads a PredictRatingRequest."""
        users = self.rules.one_user("user", request.user)
        numbers = np.array([self._subject(request.movie_id)], np.int64)
        return RatingTask(self._catalogue_id(), users, _THE_ONE, numbers, with_deviations=True)

    def batch_predict_ratings(self, request: model_service_pb2.BatchPredictRatingsRequest) -> Task:
        """Reads a BatchPredictRatingsRequest; a movie that the catalogue lacks is a matter of its rows."""
        rules = self.rules
        num_users, num_movies = len(request.user_ids), len(request.movie_ids)
        rules.count("user_ids", "users", num_users, 1, MAX_USERS)
        rules.count("movie_ids", "movies", num_movies, 1, MAX_PAIRS)
        rules.count("user_indices", "pairs", len(request.user_indices), 1, MAX_PAIRS)
        if len(request.movie_indices) != len(request.user_indices):
            rules.refuse(
                "movie_indices", f"{len(request.movie_indices)} entries; user_indices has {len(request.user_indices)}"
            )
        if len(request.min_user_versions) not in (0, num_users):
            rules.refuse(
                "min_user_versions", f"{len(request.min_user_versions)} entries; none or {num_users} are right"
            )
        # What is beyond a limit is not looked at: 4 MiB have room for millions of entries, and nobody else is answered
        # meanwhile.
        user_ids, movie_ids = request.user_ids[:MAX_USERS], request.movie_ids[:MAX_PAIRS]
        self._distinct("user_ids", user_ids)
        self._distinct("movie_ids", movie_ids)
        positions = self._indices("user_indices", request.user_indices, num_users, "user_ids")
        places = self._indices("movie_indices", request.movie_indices, num_movies, "movie_ids")
        rules.user_ids("user_ids", user_ids)
        users: Sequence[UserQuery] = NamedUsers(user_ids)
        if request.min_user_versions:
            versions = zip(user_ids, request.min_user_versions, strict=False)
            users = [UserQuery(user_id, min_user_version=version) for user_id, version in versions]
        numbers = rules.movie_ids("movie_ids", movie_ids)  # [N]
        numbers[~self._generation.catalogue.available[numbers]] = -1
        if rules.violations:
            return RatingTask(self._catalogue_id(), [], np.zeros(0, np.int64), np.zeros(0, np.int64))
        return RatingTask(self._catalogue_id(), users, positions, numbers[places], request.with_stddev)

    def top_k(self, request: model_service_pb2.TopKRequest) -> Task:
        """Reads a TopKRequest."""
        wish = self.rules.wish(request)
        self.rules.view(request.view)
        users = self.rules.one_user("user", request.user)
        movie_filter = self.rules.movie_filter(request.filter)
        exclude_seen = request.exclude_seen if request.HasField("exclude_seen") else True
        return TopKTask(self._catalogue_id(), users, wish, movie_filter, exclude_seen)

    def batch_top_k(self, request: model_service_pb2.BatchTopKRequest) -> Task:
        """Reads a BatchTopKRequest."""
        rules = self.rules
        wish = rules.wish(request)
        rules.view(request.view)
        explained = request.explain > 0
        rules.count("users", "users", len(request.users), 1, MAX_EXPLAINED_USERS if explained else MAX_USERS)
        is_long = explained or request.view == movie_pb2.MOVIE_VIEW_MOVIE
        most = MAX_BATCH_RANKED_AT_LENGTH if is_long else MAX_BATCH_RANKED
        rules.count("k", "movies for all users together", len(request.users) * request.k, 0, most)
        entries = sum(len(user.inline_user.history) + len(user.session_events) for user in request.users[:MAX_USERS])
        users = []
        if rules.count("users", "inline history entries and session_events", entries, 0, MAX_BATCH_HISTORY):
            users = [rules.user(f"users[{place}]", user) for place, user in enumerate(request.users[:MAX_USERS])]
        movie_filter = rules.movie_filter(request.filter)
        exclude_seen = request.exclude_seen if request.HasField("exclude_seen") else True
        return TopKTask(self._catalogue_id(), users, wish, movie_filter, exclude_seen)

    def similar_movies(self, request: model_service_pb2.SimilarMoviesRequest) -> Task:
        """Reads a SimilarMoviesRequest."""
        self.rules.k(request.k)
        self.rules.view(request.view)
        number = self._subject(request.movie_id)
        return SimilarTask(self._catalogue_id(), number, request.k, self.rules.movie_filter(request.filter))

    def require(self) -> None:
        """Refuses the request if anything is wrong with it.

        Raises:
            InvalidRequest: With every violation.
            NotFound: The catalogue lacks the movie that the request is about.
        """
        if self.rules.violations:
            raise InvalidRequest(self.rules.violations)
        if self.missing_movies:
            raise NotFound("movie", self.missing_movies, reason="MOVIE_NOT_FOUND")

    def require_ratings(self) -> None:
        """Refuses to predict ratings from data that has none.

        Raises:
            FailedPrecondition: The checkpoint was trained on data without ratings.
        """
        if self._generation.checkpoint.model.rating_scale is None:
            raise no_ratings(self._generation)

    def _catalogue_id(self) -> str:
        return self._generation.catalogue.catalogue_id

    def _subject(self, movie_id: str) -> int:
        """Returns the number of the movie that the request is about; a removed one is missing too."""
        refused = len(self.rules.violations)
        number = self.rules.movie_id("movie_id", movie_id)
        if number is not None and self._generation.catalogue.available[number]:
            return number
        if len(self.rules.violations) == refused:
            self.missing_movies.append(movie_id)
        return -1

    def _distinct(self, path: str, ids: Sequence[str]) -> None:
        if len(set(ids)) == len(ids):
            return
        twice = [name for name, count in Counter(ids).items() if count > 1]
        for name in twice:
            self.rules.refuse(path, f"{name[:80]!r} stands there more than once")

    def _indices(self, path: str, indices: Sequence[int], size: int, of: str) -> NDArray[np.int64]:
        # A slice is a list, which takes forty times as long as what protobuf holds.
        found = np.array(indices if len(indices) <= MAX_PAIRS else indices[:MAX_PAIRS], np.int64)
        for place in np.flatnonzero(found >= size).tolist():
            self.rules.refuse(f"{path}[{place}]", f"{found[place]} is no position in {of}, which has {size} entries")
        return found
