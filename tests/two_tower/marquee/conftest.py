"""The model that was made by hand, and its catalogue."""

import pytest

from tests.two_tower.marquee_by_hand import MOVIES, make_model
from two_tower.models.marquee import Marquee
from two_tower.serving import MovieEmbeddings


@pytest.fixture(scope="module")
def model() -> Marquee:
    """The model."""
    return make_model()


@pytest.fixture(scope="module")
def movies(model: Marquee) -> MovieEmbeddings:
    """Its catalogue."""
    return model.embed_movies(MOVIES)
