"""The towers of two-tower: what a user's answer rests on."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.two_tower.conftest import MOVIES, PROFILES
from two_tower.errors import MismatchedCheckpointError
from two_tower.features import FeatureEncoder
from two_tower.models.two_tower import TwoTower, make_towers
from two_tower.models.two_tower_config import TwoTowerConfig
from two_tower.models.two_tower_content import ContentWords
from two_tower.movie_columns import MovieColumns
from two_tower.scoring import rank_scores, rate_all
from two_tower.serving import RatingScale
from two_tower.title_words import count_words
from two_tower.user_columns import Histories, Profiles, UserColumns

BAGGED = replace(MOVIES, bags={"cast": [("Pacino", "Kilmer"), ("Weaver",), ("Hanks",), ("Hanks", "Pacino")]})


def make(**changes: Any) -> TwoTower:
    """A model that knows the users u0, u1 and the first three movies; its weights are random."""
    encoder = FeatureEncoder.of(["u0", "u1"], ["m0", "m1", "m2"], PROFILES, BAGGED)
    words = ContentWords.of(BAGGED, ("cast",), count_words(BAGGED.titles))
    config = TwoTowerConfig(
        scale=RatingScale(1, 5, 1),
        mean_rating=3.5,
        rating_deviation=1.0,
        ranking_size=8,
        rating_size=4,
        hidden_size=5,
        id_size=3,
        attention_size=4,
        attention_heads=2,
        history_length=3,
        ordered=True,
        recency=True,
        history_ratings=True,
        movie_means=True,
        user_scale=True,
        title_size=0,
        bags=("cast",),
        ages=encoder.ages,
        years=encoder.years,
    )
    config = replace(config, **changes)
    towers = make_towers(config, encoder, words)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in towers.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return TwoTower(config, encoder, words, towers)


def watched(*events: tuple[int, float]) -> UserColumns:
    """A stranger who watched movies, newest first."""
    histories = Histories(
        np.array([0, len(events)], np.int64),
        np.array([movie for movie, _ in events], np.int32),
        np.array([stars for _, stars in events], np.float32),
        np.arange(len(events), 0, -1, dtype=np.int64),
        np.array([True]),
    )
    return UserColumns([None], Profiles.unknown(1), histories)


def answers(model: TwoTower, users: UserColumns, movies: MovieColumns = BAGGED) -> np.ndarray[Any, Any]:
    """Ratings and ranking scores, side by side."""
    embedded = model.embed_movies(movies)
    made = model.embed_users(users, embedded)
    return np.concatenate([rate_all(model, made, embedded)[0], rank_scores(model, made, embedded)[0].numpy()])


def test_the_order_of_a_history_counts_where_recency_does() -> None:
    """Without it, or in data without times, a history is a set."""
    some, others = watched((0, 4), (1, 2), (2, 5)), watched((2, 5), (0, 4), (1, 2))

    assert not np.allclose(answers(make(), some), answers(make(), others), atol=1e-4)
    for unordered in (make(recency=False), make(ordered=False)):
        assert answers(unordered, some) == pytest.approx(answers(unordered, others), abs=1e-5)


def test_ratings_count_only_where_they_are_looked_at() -> None:
    """Without them it is all the same how a movie was liked, or whether it was rated at all."""
    liked, disliked, unrated = watched((0, 5), (1, 1)), watched((0, 1), (1, 5)), watched((0, np.nan), (1, np.nan))

    assert not np.allclose(answers(make(), liked), answers(make(), disliked), atol=1e-4)
    blind = make(history_ratings=False)
    assert answers(blind, liked) == pytest.approx(answers(blind, disliked), abs=1e-5)
    assert answers(blind, liked) == pytest.approx(answers(blind, unrated), abs=1e-5)


def test_events_beyond_the_window_are_not_looked_at() -> None:
    """Those are the oldest."""
    model = make()

    assert answers(model, watched((0, 4), (1, 2), (2, 5))) == pytest.approx(
        answers(model, watched((0, 4), (1, 2), (2, 5), (3, 1))), abs=1e-5
    )


def test_a_movie_that_the_checkpoint_does_not_know_counts_in_a_history_by_its_content() -> None:
    """Two unknown movies of different cast make different users."""
    model = make()
    movies = MovieColumns(
        ["new0", "new1", "m0"],
        ["", "", "Heat"],
        np.array([1995, 1995, 1995], np.float32),
        [(), (), ()],
        {"cast": [("Hanks",), ("Pacino",), ()]},
    )

    assert not np.allclose(answers(model, watched((0, 4)), movies), answers(model, watched((1, 4)), movies), atol=1e-4)


def test_bags_and_titles_tell_unknown_movies_apart() -> None:
    """A value that no second movie had, and a catalogue without the column, add nothing."""
    model = make()
    movies = MovieColumns(
        ["a", "b", "c", "d"],
        ["Heat", "", "", ""],
        np.full(4, np.nan, np.float32),
        [()] * 4,
        {"cast": [(), ("Pacino",), ("Weaver",), ()]},
    )

    vectors = model.embed_movies(movies).ranking_vectors
    bare = model.embed_movies(replace(movies, bags={})).ranking_vectors

    assert not torch.allclose(vectors[0], vectors[3])
    assert not torch.allclose(vectors[1], vectors[3])
    assert torch.equal(vectors[2], vectors[3])
    assert torch.allclose(bare[1], bare[3])


def test_a_user_who_rates_widely_is_told_of_wide_ratings() -> None:
    """The user's own spread scales what a movie means to him."""
    model = make(history_length=4)
    with torch.no_grad():
        model._towers.scale_gains.copy_(torch.tensor([1.0, 1.0]))
    model._towers.rating_table.zero_()
    model._towers.rating_table[1:, 4] = torch.tensor([1.0, 0.0, -1.0])
    model._towers.user_layer.weight.zero_()
    model._towers.content_layer.weight.zero_()

    def spread(low: float, high: float) -> float:
        movies = model.embed_movies(BAGGED)
        made = model.embed_users(watched((0, low), (1, high), (2, low), (0, high)), movies)
        raw = made.rating_vectors @ movies.rating_vectors.T + movies.rating_biases
        return float(raw[0, 0] - raw[0, 2])

    assert spread(1, 5) > 1.3 * spread(3, 4)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"ranking_size": 0}, "config.ranking_size is from 1 to 4096"),
        ({"attention_size": 5}, "a multiple of config.attention_heads"),
        ({"history_length": 0}, "config.history_length"),
        ({"rating_deviation": 0.0}, "config.rating_deviation"),
        ({"title_size": -1}, "config.title_size"),
        ({"bags": ("cast", "cast")}, "config.bags names a column twice"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes: dict[str, Any], problem: str) -> None:
    """By field."""
    config = make()._config

    with pytest.raises(MismatchedCheckpointError, match=problem):
        TwoTowerConfig(**{**{name: getattr(config, name) for name in asdict(config)}, **changes})


def test_a_checkpoint_with_bags_is_rebuilt_from_its_parts() -> None:
    """Vocabularies of bags included; one that is missing is named."""
    model = make()
    parts = model.config(), model.tensors(), model.vocabularies()

    again = TwoTower.restore(*parts, torch.device("cpu"))

    assert (answers(again, watched((0, 4))) == answers(model, watched((0, 4)))).all()
    del parts[2]["bag:cast"]
    with pytest.raises(MismatchedCheckpointError, match="bag:cast"):
        TwoTower.restore(*parts, torch.device("cpu"))
