"""A factored model whose answers can be worked out by hand.

A movie is a point (drama, comedy): for a known one the checkpoint holds it, for another its genres give it. A user is
his trained point, else nothing, moved by his profile and by what he watched: the newest movie counts in full, the one
before it by half, and so on, times the rating minus 3, or .5 without a rating. Stars = 3 + dot; what ranks = 2·dot +
the movie's bias.
"""

from typing import Any, ClassVar

import numpy as np
import torch

from two_tower.ridge import PosteriorFactor
from two_tower.serving import FactoredModel, MovieEmbeddings, RatingScale, UserEmbeddings

GENRE_POINTS = {"Drama": (1.0, 0.0), "Comedy": (0.0, 1.0)}
GENDER_POINTS = {"F": (0.25, 0.0), "M": (0.0, 0.25)}


class HandMade(FactoredModel):
    """See the module's text."""

    name: ClassVar[str] = "hand-made"

    def __init__(self, movie_points, movie_biases, user_points, has_ratings=True, device="cpu"):
        self._movie_points = dict(movie_points)
        self._movie_biases = dict(movie_biases)
        self._user_points = dict(user_points)
        self._has_ratings = has_ratings
        self._device = torch.device(device)
        self.batches: list[int] = []

    @property
    def device(self):
        return self._device

    @property
    def rating_scale(self):
        return RatingScale(1, 5, 0.5) if self._has_ratings else None

    def embed_movies(self, movies):
        points, biases = [], []
        for movie_id, genres in zip(movies.movie_ids, movies.genres, strict=True):
            content = np.sum([GENRE_POINTS.get(genre, (0.0, 0.0)) for genre in genres] or [(0.0, 0.0)], axis=0)
            points.append(self._movie_points.get(movie_id, content))
            biases.append(self._movie_biases.get(movie_id, 0.0))
        vectors = self._tensor(np.array(points).reshape(-1, 2))
        known = np.array([movie_id in self._movie_points for movie_id in movies.movie_ids], np.bool_)
        return MovieEmbeddings(
            vectors,
            torch.full((len(vectors),), 3.0, device=self._device),
            2 * vectors,
            self._tensor(np.array(biases)),
            known,
            np.where(known, np.arange(len(known)), -1),
        )

    def embed_users(self, users, movies):
        self.batches.append(len(users))
        movie_points = movies.rating_vectors.cpu().numpy()
        histories = users.histories
        points = []
        for b, user_id in enumerate(users.user_ids):
            point = np.array(self._user_points.get(user_id, (0.0, 0.0)))
            point = point + GENDER_POINTS.get(users.profiles.genders[b], (0.0, 0.0))
            weight = 1.0
            for entry in range(histories.offsets[b], histories.offsets[b + 1]):
                rating = histories.ratings[entry]
                liked = 0.5 if np.isnan(rating) else rating - 3.0
                point = point + weight * liked * movie_points[histories.movie_numbers[entry]]
                weight /= 2
            points.append(point)
        vectors = self._tensor(np.array(points).reshape(-1, 2))
        return UserEmbeddings(vectors, vectors)

    def knows_users(self, user_ids):
        return np.array([user_id in self._user_points for user_id in user_ids], np.bool_)

    def config(self) -> dict[str, Any]:
        return {"has_ratings": self._has_ratings}

    def tensors(self):
        return {
            "movie_points": torch.tensor(list(self._movie_points.values()), dtype=torch.float64).reshape(-1, 2),
            "movie_biases": torch.tensor(
                [self._movie_biases.get(movie_id, 0.0) for movie_id in self._movie_points], dtype=torch.float64
            ),
            "user_points": torch.tensor(list(self._user_points.values()), dtype=torch.float64).reshape(-1, 2),
        }

    def vocabularies(self):
        return {"movies": list(self._movie_points), "users": list(self._user_points)}

    @classmethod
    def restore(cls, config, tensors, vocabularies, device):
        movies, users = vocabularies["movies"], vocabularies["users"]
        return cls(
            zip(movies, map(tuple, tensors["movie_points"].tolist()), strict=True),
            zip(movies, tensors["movie_biases"].tolist(), strict=True),
            zip(users, map(tuple, tensors["user_points"].tolist()), strict=True),
            config["has_ratings"],
            device,
        )

    def _tensor(self, values):
        return torch.tensor(values, dtype=torch.float32, device=self._device)


class HandMadeSure(HandMade):
    """The same, and the more movies it knows of a user in the direction of another, the surer it is of that one."""

    name: ClassVar[str] = "hand-made-sure"

    def rating_deviations(self, users, movies, positions, numbers):
        certainties = [self.certainty_of(users.take(np.array([row])), movies) for row in range(len(users))]
        told = [
            self.deviations_by(certainties[position], movies, np.array([number]))
            for position, number in zip(positions, numbers, strict=True)
        ]
        return np.concatenate(told)

    def certainty_of(self, users, movies):
        return PosteriorFactor.of(movies.rating_vectors[torch.from_numpy(users.histories.movie_numbers)])

    def deviations_by(self, certainty, movies, numbers):
        return np.sqrt(0.25 + certainty.variances(movies.rating_vectors.numpy()[numbers]), dtype=np.float32)
