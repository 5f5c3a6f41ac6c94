"""The hand-made model in the other serving form: the same answers, computed pair by pair."""

from typing import ClassVar

import numpy as np
import torch

from tests.model_service.hand_made import HandMade
from two_tower.serving import MovieEmbeddings, PairwiseModel, PairwiseMovies, PairwiseUsers


class HandMadePairwise(PairwiseModel):
    """Meets a user's point with a movie's point and bias."""

    name: ClassVar[str] = "hand-made-pairwise"

    def __init__(self, *given, **named):
        self._factored = HandMade(*given, **named)

    @property
    def device(self):
        return self._factored.device

    @property
    def rating_scale(self):
        return self._factored.rating_scale

    @property
    def batches(self):
        return self._factored.batches

    def embed_movies(self, movies):
        embedded = self._factored.embed_movies(movies)
        inputs = torch.cat([embedded.rating_vectors, embedded.ranking_biases[:, None]], dim=-1)  # [M, 3]
        return PairwiseMovies(inputs, embedded.ranking_vectors, embedded.known, embedded.movie_rows)

    def embed_users(self, users, movies):
        points = movies.inputs[:, :2]
        nothing = points.new_zeros(len(points))
        factored = MovieEmbeddings(points, nothing, points, nothing, movies.known, movies.movie_rows)
        return PairwiseUsers(self._factored.embed_users(users, factored).rating_vectors)

    def raw_ratings(self, users, movies):
        return 3 + (users * movies[..., :2]).sum(dim=-1)

    def ranking_scores(self, users, movies):
        return 2 * (users * movies[..., :2]).sum(dim=-1) + movies[..., 2]

    def knows_users(self, user_ids):
        return self._factored.knows_users(user_ids)

    def config(self):
        return self._factored.config()

    def tensors(self):
        return self._factored.tensors()

    def vocabularies(self):
        return self._factored.vocabularies()

    @classmethod
    def restore(cls, config, tensors, vocabularies, device):
        made = cls.__new__(cls)
        made._factored = HandMade.restore(config, tensors, vocabularies, device)
        return made


class HandMadeById(HandMadePairwise):
    """The same for a model that knows users by their id alone: of a stranger it makes nothing, whatever he says."""

    name: ClassVar[str] = "hand-made-by-id"
    uses_history: ClassVar[bool] = False
    uses_profile: ClassVar[bool] = False

    def rating_deviations(self, users, movies, positions, numbers):
        trained = self.knows_users(users.user_ids)[positions]
        return (np.where(trained, 0.5, 1.0) + numbers / 10).astype(np.float32)

    def embed_users(self, users, movies):
        points = [self._factored._user_points.get(user_id, (0.0, 0.0)) for user_id in users.user_ids]
        return PairwiseUsers(torch.tensor(points, dtype=torch.float32, device=self.device).reshape(-1, 2))
