"""What is published is the data, entry for entry, and nothing but the rows that were asked for."""

from dataclasses import replace

import numpy as np
import pytest
from marquee.client.channel import open_sync_channel

from tests.toy_dataset import toy_dataset
from tests.trainer.recording_services import RecordingFeatureService, recording_features, served
from trainer import publishing
from trainer.dataset import Dataset, Interactions
from trainer.publishing import Published, PublishError, publish


def publish_to(
    service: RecordingFeatureService, data: Dataset, rows: Interactions, *, not_for_evaluation: bool = False
) -> Published:
    with served(features=service) as address, open_sync_channel(address) as channel:
        return publish(channel, data, rows, not_for_evaluation=not_for_evaluation)


def test_everything_arrives_as_it_is_in_the_data() -> None:
    """Movies in the order of their rows, profiles without what is missing, and each entry once."""
    data, service = toy_dataset(), recording_features()
    rows = data.interactions.take(np.arange(600))

    sent = publish_to(service, data, rows)

    assert list(service.movies) == list(data.movies.movie_ids)
    first, last = service.movies["m0"], service.movies["m39"]
    assert (first.title, first.year, list(first.genres)) == ("Movie 0", 1960, ["Comedy"])
    assert not last.HasField("year")
    assert not last.genres
    assert service.profiles.keys() == set(data.user_ids[:-1])
    profile = service.profiles["u1"]
    assert (profile.gender, profile.age, profile.occupation, profile.zip) == ("F", 21, "doctor", "12345")
    expected: dict[str, set[tuple[str, float, int]]] = {}
    for user, movie, rating, moment in zip(
        rows.user_rows, rows.movie_rows, rows.ratings, rows.event_times_ms, strict=True
    ):
        expected.setdefault(f"u{user}", set()).add((f"m{movie}", float(rating), int(moment)))
    assert service.histories == expected
    assert not service.not_for_evaluation
    assert sent == Published(40, 59, len(expected), 600, 600, True)


def test_all_rows_mark_the_store() -> None:
    """A store with held-out rows says so."""
    data, service = toy_dataset(), recording_features()

    publish_to(service, data, data.interactions, not_for_evaluation=True)

    assert service.not_for_evaluation


def test_publishing_twice_changes_nothing() -> None:
    """Whoever was interrupted starts again."""
    data, service = toy_dataset(), recording_features()
    publish_to(service, data, data.interactions)
    histories = {user: set(history) for user, history in service.histories.items()}

    again = publish_to(service, data, data.interactions)

    assert service.histories == histories
    assert again.num_applied == 0
    assert again.num_entries == 900


def test_small_batches_send_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are an implementation detail."""
    data, whole, pieces = toy_dataset(), recording_features(), recording_features()
    publish_to(whole, data, data.interactions)
    monkeypatch.setattr(publishing, "MAX_MOVIES_A_CALL", 7)
    monkeypatch.setattr(publishing, "MAX_USERS_A_CALL", 7)

    sent = publish_to(pieces, data, data.interactions)

    assert pieces.num_calls > whole.num_calls
    assert sent.numbers_equal_rows
    assert (pieces.movies, pieces.profiles, pieces.histories) == (whole.movies, whole.profiles, whole.histories)


def test_a_store_with_other_movies_is_noticed() -> None:
    """Then catalogue numbers are not the rows of the data, which the answer says."""
    data, service = toy_dataset(), recording_features()
    publish_to(service, toy_dataset(num_movies=5, rows_per_user=2), data.interactions.take(np.zeros(0, np.int64)))
    movies = data.movies
    reversed_movies = replace(movies, movie_ids=list(reversed(movies.movie_ids)))

    sent = publish_to(service, replace(data, movies=reversed_movies), data.interactions)

    assert not sent.numbers_equal_rows


def test_long_titles_are_cut_between_characters() -> None:
    """At most 512 bytes, and never half a letter."""
    data, service = toy_dataset(), recording_features()
    titles = ["é" * 300, *data.movies.titles[1:]]

    publish_to(service, replace(data, movies=replace(data.movies, titles=titles)), data.interactions)

    assert service.movies["m0"].title == "é" * 256


def test_progress_ends_at_the_end() -> None:
    """A bar that is drawn from it is full when everything is sent."""
    data, told = toy_dataset(), []

    with served(features=recording_features()) as address, open_sync_channel(address) as channel:
        publish(channel, data, data.interactions, progress=lambda *report: told.append(report))

    assert [message for _, _, message in told] == ["movies", "profiles", "histories"]
    assert told[-1][0] == told[-1][1] == 40 + 59 + 900


def test_a_refusal_is_one_sentence() -> None:
    """What the service says is what a person reads."""
    data = toy_dataset()

    with pytest.raises(PublishError, match="feature_service: INVALID_ARGUMENT: not today"):
        publish_to(recording_features(num_failures=1), data, data.interactions)
