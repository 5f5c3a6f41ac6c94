"""What a history and a profile add to the ranking vector, by age and by number."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.two_tower.marquee_by_hand import (
    NAN,
    UNTIL_MS,
    a_user,
    implicit_mean,
    make_model,
    some_events,
    weights_of,
)
from two_tower.models.marquee import Marquee
from two_tower.serving import MovieEmbeddings
from two_tower.user_columns import UserColumns


def test_memories_advance_as_if_recomputed(movies: MovieEmbeddings) -> None:
    """What the checkpoint remembers, moved on by the news, is the sum over the whole history."""
    model = make_model()
    old, news = some_events(40), [(260, 3.0, UNTIL_MS + 2), (261, NAN, UNTIL_MS + 1)]
    old = [event for event in old if event[0] not in (260, 261)]
    tables = model.tensors()
    for place, (table, decay) in enumerate([("short", 0.6), ("long", 0.9), ("long", 1.0)]):
        powers = decay ** torch.arange(len(old), dtype=torch.float32)
        rows = torch.tensor([number + 1 for number, _, _ in old])
        tables["ranking.memories"][2, place] = powers @ tables[f"ranking.{table}"][rows]
    model = Marquee.restore(model.config(), tables, model.vocabularies(), torch.device("cpu"))

    advanced = model.embed_users(a_user(news + old[:5], user_id="u1", complete=False), movies)
    recomputed = model.embed_users(a_user(news + old), movies)

    assert advanced.ranking_vectors[0].numpy() == pytest.approx(recomputed.ranking_vectors[0].numpy(), abs=1e-5)


def test_recent_movies_weigh_more_for_ranking(model: Marquee, movies: MovieEmbeddings) -> None:
    """Two events in either order give what the formula gives."""
    weights = weights_of(model)
    short, long = weights["ranking.short"], weights["ranking.long"]
    expected = weights["ranking.user_bias"] + short[8] + 1.1 * long[8] + 0.6 * short[4] + (0.9 + 0.1) * long[4]

    found = model.embed_users(a_user([(7, 3, 20), (3, NAN, 10)]), movies).ranking_vectors[0].numpy()
    turned = model.embed_users(a_user([(3, 3, 20), (7, NAN, 10)]), movies).ranking_vectors[0].numpy()

    assert found == pytest.approx(expected, abs=1e-5)
    assert turned != pytest.approx(expected, abs=1e-2)


def test_a_movie_watched_and_not_rated_counts_for_ranking_and_prior_only(
    model: Marquee, movies: MovieEmbeddings
) -> None:
    """There is no rating to explain."""
    watched = model.embed_users(a_user([(3, NAN, 10)]), movies)

    assert watched.rating_vectors[0].numpy() == pytest.approx(implicit_mean(model, [(3, NAN, 10)]), abs=1e-6)
    assert not torch.equal(watched.ranking_vectors, model.embed_users(a_user([]), movies).ranking_vectors)


def test_a_profile_ranks_until_a_history_does(movies: MovieEmbeddings) -> None:
    """What ranks for everybody and for a profile fades to 1/e in eight events; remembered events count."""
    model = make_model()
    events_behind = torch.tensor([0.0, 8, 24, 8, 8, 8])
    model = Marquee.restore(
        model.config(), model.tensors() | {"ranking.user_events": events_behind}, model.vocabularies(), model.device
    )
    tables = model.tensors() | {"ranking.of_everybody": torch.full((6,), 2.0)}
    with_prior = Marquee.restore(model.config(), tables, model.vocabularies(), torch.device("cpu"))
    events = some_events(8)
    from_profile = weights_of(model)["ranking.from_profile"]
    woman = from_profile[model._encoder.genders.rows_of(["F"])[0]]

    def added(user: UserColumns) -> NDArray[np.floating]:
        nobody = replace(user, profiles=a_user([]).profiles)
        before, after = (each.embed_users(who, movies) for each, who in ((model, nobody), (with_prior, user)))
        difference: NDArray[np.floating] = (after.ranking_vectors - before.ranking_vectors)[0].numpy()
        return difference

    assert added(a_user([], gender="F")) == pytest.approx(2.0 + woman, abs=1e-5)
    assert added(a_user(events, gender="F")) == pytest.approx((2.0 + woman) / np.e, abs=1e-5)
    trimmed = a_user(events, user_id="u1", complete=False, gender="F")
    assert added(trimmed) == pytest.approx((2.0 + woman) * np.exp(-24 / 8), abs=1e-5)
