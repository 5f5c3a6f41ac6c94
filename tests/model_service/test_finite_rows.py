"""A user is of numbers only if both of his vectors are."""

import numpy as np
import pytest
import torch

from tests.model_service.hand_made import HandMade
from two_tower.heads import heads_of
from two_tower.movie_columns import MovieColumns
from two_tower.serving import UserEmbeddings


@pytest.mark.parametrize("spoilt", ["rating", "ranking", "the one of both"])
def test_either_vector_that_is_not_finite_is_found(spoilt):
    """Models that rate and rank by one tensor are looked at once, others twice."""
    model = HandMade({"m0": (1.0, 0.0)}, {"m0": 0.0}, {})
    movies = MovieColumns(["m0"], ["Heat"], np.array([1995], np.float32), [("Drama",)])
    heads = heads_of(model, model.embed_movies(movies), None)
    sound = torch.zeros(2, 2)
    bad = torch.tensor([[0.0, 0.0], [0.0, float("nan")]])
    users = {
        "rating": UserEmbeddings(bad, sound),
        "ranking": UserEmbeddings(sound, bad),
        "the one of both": UserEmbeddings(bad, bad),
    }

    finite = heads.finite_rows(users[spoilt])

    assert finite.tolist() == [True, False]
