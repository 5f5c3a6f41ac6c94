"""Movies that came to the catalogue after training are answered as they were judged, and are said to be COLD."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_service.catalogue import Catalogue, CatalogueMovie
from model_service.checkpoint_loader import CheckpointLoader
from model_service.device_work import DeviceWork
from model_service.generation import Generation
from model_service.queries import ProfileFields, RatingAnswer, RatingTask, UserQuery, Watched
from model_service.stored_user import StoredUser
from model_service.user_side import StoredUsers
from tests.toy_dataset import toy_dataset
from tests.training_record import unmeasured
from trainer.comparison.cold_start import ColdStart, divide_cold
from trainer.dataset import Dataset, Interactions
from trainer.evaluation import evaluate, user_columns
from trainer.fits import silent
from trainer.fits.marquee import Options, fit
from trainer.histories import HistoryLayout
from two_tower import checkpoint as checkpoints
from two_tower import golden
from two_tower.registry import Registry

NOW_MS = 1_700_000_000_000


def stored(data: Dataset, known: Interactions, rows: NDArray[np.integer]) -> StoredUsers:
    """Users, named by user row, as the store has them after these interactions."""
    columns = user_columns(data, HistoryLayout(known, len(data.user_ids)), rows)
    histories, profiles = columns.histories, columns.profiles
    users = {}
    for place, row in enumerate(rows):
        span = slice(histories.offsets[place], histories.offsets[place + 1])
        numbers = histories.movie_numbers[span].astype(np.int64)
        age = None if np.isnan(profiles.ages[place]) else float(profiles.ages[place])
        users[data.user_ids[row]] = StoredUser(
            found=True,
            profile=ProfileFields(profiles.genders[place], age, profiles.occupations[place]),
            history=Watched(numbers, histories.ratings[span], histories.event_times_ms[span]),
            num_watched=len(numbers),
            seen=np.sort(numbers).astype(np.int32),
            deleted_at_ms=0,
            expires_at_ms=0,
            version="",
            num_movies=len(data.movies),
        )
    return StoredUsers(users)


def test_a_movie_of_a_new_catalogue_version_is_rated_as_it_was_judged(tmp_path: Path) -> None:
    """The trainer's own evaluation and a service over the catalogue's next version say the same of held-out movies."""
    data = toy_dataset()
    parts = divide_cold(data, ColdStart("new-movies", 0.2), 0)
    options = Options(
        hidden_size=16, towers=1, tower_epochs=2, machine_iterations=5, ranking_epochs=0, measured_deviations=False
    )
    model = fit(replace(data, interactions=parts.train), options, seed=0, progress=silent)
    judged = evaluate(model, data, parts.train, parts.held_out, protocol="")
    registry = Registry(tmp_path)
    record = unmeasured(model.rating_scale, model.config()["data_until_ms"])
    answers = golden.make(model, data.movies, data.profiles, "u0", record.data_until_ms)
    checkpoints.write(registry.path, "v1", model, record, answers)
    movies = [
        CatalogueMovie(number, movie_id, title, None if np.isnan(year) else int(year), tuple(genres))
        for number, (movie_id, title, year, genres) in enumerate(
            zip(data.movies.movie_ids, data.movies.titles, data.movies.years, data.movies.genres, strict=True)
        )
    ]
    unseen = np.unique(parts.held_out.movie_rows)
    # Numbers follow each other, so until the next version the new movies stand there by their ids alone.
    stubs = [CatalogueMovie(movie.number, movie.movie_id) if movie.number in unseen else movie for movie in movies]
    catalogue = Catalogue.empty("c").with_changes(stubs, 1)
    before = Generation.build(CheckpointLoader(registry, torch.device("cpu")).load("v1"), catalogue)

    after = before.over(catalogue.with_changes([movies[number] for number in unseen], 2))

    users, positions = np.unique(parts.held_out.user_rows, return_inverse=True)
    queries = [UserQuery(data.user_ids[row]) for row in users]
    task = RatingTask("c", queries, positions, parts.held_out.movie_rows.astype(np.int64), False)
    (answer,) = DeviceWork(10_000).answer([task], stored(data, parts.train, users), after, NOW_MS)
    assert isinstance(answer, RatingAnswer)
    assert answer.ratings == pytest.approx(judged.predicted, abs=1e-5)
    assert not after.heads.known[unseen].any()
    assert after.heads.known.sum() == len(model.vocabularies()["movies"]) - 1
