"""Mistakes of notebooks are made again as they were made, and their sections name models that exist."""

from dataclasses import replace

import numpy as np
import pytest

from tests.toy_dataset import toy_dataset
from trainer.comparison.notebook_protocol import SECTIONS, Line, Section, render_notebooks
from trainer.comparison.own_genres import with_own_genres
from trainer.comparison.views import HELD_OUT, OWN_MAPS, SEEN_HISTORIES, TRAINING_ROWS, make_views
from trainer.fits import FITS, fit_function, silent
from trainer.fits.options import parse_options
from trainer.splits import parse_holdout


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.model)
def test_a_section_can_be_run(section: Section) -> None:
    """Its holdout is one, its model is there and has the options that bring the bugs back."""
    assert str(parse_holdout(section.holdout)) == section.holdout
    assert section.model in FITS
    assert parse_options(fit_function(section.model).options_class, section.as_it_was) is not None


def test_own_maps_take_each_user_for_another_one() -> None:
    """One to one, ratings as they were."""
    rows = toy_dataset().interactions
    train, held_out = rows.take(np.arange(600)), rows.take(np.arange(600, 900))

    view = make_views((OWN_MAPS,), train, held_out, 0)[OWN_MAPS]

    mapping = set(zip(held_out.user_rows.tolist(), view.judged.user_rows.tolist(), strict=True))
    assert len(mapping) == len({first for first, _ in mapping}) == len({second for _, second in mapping})
    assert sum(first == second for first, second in mapping) < 10
    assert view.judged.ratings is held_out.ratings
    assert set(view.judged.movie_rows.tolist()) <= set(train.movie_rows.tolist())


def test_the_other_views_are_what_they_are_called() -> None:
    """Known and judged rows of each."""
    rows = toy_dataset().interactions
    train, held_out = rows.take(np.arange(600)), rows.take(np.arange(600, 900))

    views = make_views((HELD_OUT, SEEN_HISTORIES, TRAINING_ROWS), train, held_out, 0)

    assert views[HELD_OUT].known is train
    assert len(views[SEEN_HISTORIES].known) == 900
    assert views[SEEN_HISTORIES].judged is held_out
    assert views[TRAINING_ROWS].judged is train


def test_the_table_stands_all_four_beside_each_other() -> None:
    """A figure that there is not is a dash."""
    section = Section("mean", "ml-1m", "every:20", "rmse", "1.117")

    text = render_notebooks("ml-1m", [Line(section, 1.1, 1.2, 0.8, float("nan"), 1)])

    assert "| `mean` | `every:20` | RMSE | 1.117 | 1.1000 | 1.2000 | 0.8000 | - | - |" in text


@pytest.mark.parametrize("name", ["dot-bias-genre", "nn-collab-genre"])
def test_own_genres_are_named_anew_and_padded_to_their_own_longest_list(name: str) -> None:
    """A movie is told of as the one that it was taken for, whose genres have other names; others stay as they are."""
    data = toy_dataset()
    train, held_out = data.interactions.take(np.arange(600)), data.interactions.take(np.arange(600, 900))
    judged = make_views((OWN_MAPS,), train, held_out, 0)[OWN_MAPS].judged
    fit = fit_function(name)
    options = parse_options(fit.options_class, ["padded_genres=true", "epochs=1"])
    lists: list[tuple[str, ...]] = [("Comedy", "Drama", "War")] * len(data.movies)
    for movie in np.unique(held_out.movie_rows):
        lists[movie] = ("Comedy", "Drama")[: 1 + movie % 2]
    data = replace(data, movies=replace(data.movies, genres=lists))
    model = fit.fit(replace(data, interactions=train), options, seed=0, progress=silent)

    asks, about = with_own_genres(model, data, held_out, judged, 3)

    assert model.config()["padded_genres"] == 3
    assert asks.config()["padded_genres"] == 2
    names: dict[str, set[str]] = {}
    for movie, taken_for in zip(held_out.movie_rows, judged.movie_rows, strict=True):
        for genre, named in zip(lists[movie], about.movies.genres[taken_for], strict=True):
            names.setdefault(genre, set()).add(named)
    assert all(len(found) == 1 for found in names.values())
    assert set(names) == {"Comedy", "Drama"}
    assert any(found != {genre} for genre, found in names.items())
    untouched = set(range(len(lists))) - set(judged.movie_rows.tolist())
    assert all(about.movies.genres[movie] == lists[movie] for movie in untouched)
