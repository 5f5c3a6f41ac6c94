"""What happened since becomes what is served: read from a real store, merged, trained on, judged, labelled."""

import time
from dataclasses import replace

import pytest
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import movie_pb2

from feature_service.keys import EXPORTS, NUM_PARTITIONS, event_log
from tests.integration.rebuild.looped import PLAN, TIMEOUT_S, Looped, rows_of, timestamp
from trainer.promotion import MIN_ROWS
from trainer.rebuild.plan import Plan
from trainer.rebuild.rebuilding import NoSnapshotError
from trainer.rebuild.store_reading import UnconnectedError
from two_tower.checkpoint import load, read_manifest
from two_tower.registry import STABLE


def test_what_was_published_and_what_happened_since_come_together(looped: Looped) -> None:
    """Every row is in the snapshot, in the store's order; the new checkpoint learnt from all and has the label."""
    before = looped.begin()
    looped.feed(looped.new)

    result = looped.rebuild()

    assert result.outcome == "promoted"
    assert (result.num_rows, result.num_events) == (2250, 450)
    found = looped.newest_data()
    assert rows_of(found, found.interactions) == rows_of(looped.data, looped.data.interactions)
    rows = found.interactions
    order = list(zip(rows.user_rows, rows.event_times_ms, rows.movie_rows, strict=True))
    assert order == sorted(order)
    manifest = read_manifest(looped.registry.path_of(looped.label() or ""))
    assert manifest.version == result.version != before
    assert (manifest.trained_rows.count, manifest.trained_rows.holdout) == (2250, "none")
    assert manifest.data_until_ms == looped.data.interactions.event_times_ms.max()
    assert f"rebuilt over {before}" in looped.registry.label_history(STABLE)[-1].reason


def test_the_candidate_has_not_seen_what_it_is_judged_on(looped: Looped) -> None:
    """Its rows end where the comparison begins; the rows of the comparison are news to the incumbent too."""
    before = read_manifest(looped.registry.path_of(looped.begin()))
    looped.feed(looped.new)

    result = looped.rebuild()

    candidate = read_manifest(looped.registry.path_of(result.candidate or ""))
    kind, _, after_ms = candidate.trained_rows.holdout.partition(":")
    assert (kind, int(after_ms) >= before.data_until_ms) == ("after", True)
    assert candidate.data_until_ms <= int(after_ms)
    judged = int((looped.data.interactions.event_times_ms > int(after_ms)).sum())
    assert MIN_ROWS <= judged <= len(looped.new)
    assert {each.metric for each in result.figures} == {"rmse", "ndcg_at_10"}


def test_movies_and_profiles_come_along(looped: Looped) -> None:
    """A movie that was new in the catalogue is known to the checkpoint, and a profile is as the store has it now."""
    looped.begin()
    movie = movie_pb2.Movie(movie_id="brand new", title="Brand New", year=2026, genres=["Drama"])
    looped.features.BatchUpsertMovies(
        pb2.BatchUpsertMoviesRequest(movies=[pb2.MovieUpsert(movie=movie)]), timeout=TIMEOUT_S
    )
    upsert = pb2.UserUpsert(user_id="u3")
    upsert.profile.occupation = "astronaut"
    looped.features.BatchUpsertUsers(pb2.BatchUpsertUsersRequest(users=[upsert]), timeout=TIMEOUT_S)
    late_ms = int(looped.data.interactions.event_times_ms.max()) + 1000
    event = pb2.Event(event_id="e", user_id="somebody new", movie_id="brand new", event_time=timestamp(late_ms))
    looped.features.WriteEvents(pb2.WriteEventsRequest(events=[event]), timeout=TIMEOUT_S)
    looped.feed(looped.new)

    result = looped.rebuild()

    found = looped.newest_data()
    assert found.movies.movie_ids[-1] == "brand new"
    assert found.movies.genres[-1] == ("Drama",)
    assert found.profiles.occupations[found.user_ids.index("u3")] == "astronaut"
    model = load(looped.registry.path_of(result.version or "")).model
    assert "brand new" in model.vocabularies()["movies"]
    assert model.knows_users(["somebody new", "nobody"]).tolist() == [True, False]


def test_a_worse_candidate_changes_nothing_but_the_snapshot(looped: Looped) -> None:
    """The label stays, the reason is on record, what was read is not read again."""
    before = looped.begin()
    looped.feed(looped.new)

    result = looped.rebuild(replace(PLAN, model="random"))

    assert (result.outcome, looped.label()) == ("refused", before)
    assert "it is worse: rmse" in result.reason
    assert looped.newest_data().interactions.event_times_ms.max() == looped.data.interactions.event_times_ms.max()
    again = looped.rebuild()
    assert (again.outcome, again.num_events) == ("promoted", 450)


def test_with_too_little_to_judge_on_nothing_is_trained(looped: Looped) -> None:
    """Rows gather over several rebuilds until there are enough; a reason given makes it at once."""
    before = looped.begin()
    looped.feed(looped.part(0, 50))

    first = looped.rebuild()

    assert (first.outcome, first.candidate, looped.label()) == ("nothing_new", None, before)
    assert looped.registry.versions() == [before]
    looped.feed(looped.part(50, 170))
    assert looped.rebuild().outcome == "promoted"
    looped.feed(looped.part(170, 180))
    forced = looped.rebuild(replace(PLAN, forced="somebody asked to be forgotten"))
    assert (forced.outcome, forced.reason) == ("promoted", "forced: somebody asked to be forgotten")


def test_without_a_model_the_settings_of_the_labelled_one_are_taken(looped: Looped) -> None:
    """As they stand in its manifest, its seed too."""
    looped.begin("popular")
    looped.feed(looped.new)

    result = looped.rebuild(Plan(reported=False))

    manifest = read_manifest(looped.registry.path_of(result.version or ""))
    assert (result.outcome, manifest.model, manifest.options) == ("promoted", "popular", {"movie_damping": 3.0})


def test_a_gap_in_the_log_is_not_passed_over(looped: Looped, raw_redis, one_server: None) -> None:
    """Nothing is trained or kept; the message says what to do, and that does it."""
    before = looped.begin()
    looped.feed(looped.new)
    for partition in range(NUM_PARTITIONS):
        raw_redis.xtrim(event_log(partition), maxlen=1, approximate=False)
    snapshot = looped.snapshots.newest()

    with pytest.raises(UnconnectedError, match=r"events were trimmed .* --resync"):
        looped.rebuild()

    assert (looped.label(), looped.snapshots.newest()) == (before, snapshot)
    result = looped.rebuild(replace(PLAN, resync=True))
    assert result.outcome == "promoted"
    # Nobody has more than the store keeps, so that the histories held all that the log had lost.
    found = looped.newest_data()
    assert rows_of(found, found.interactions) == rows_of(looped.data, looped.data.interactions)


def test_another_store_is_not_gone_on_with_unasked(looped: Looped, raw_redis, one_server: None) -> None:
    """A registry that meets the wrong store, or a restored one, says so."""
    looped.begin()
    raw_redis.flushall()
    looped.features.BatchUpsertMovies(
        pb2.BatchUpsertMoviesRequest(movies=[pb2.MovieUpsert(movie=movie_pb2.Movie(movie_id="m1"))]), timeout=TIMEOUT_S
    )

    with pytest.raises(UnconnectedError, match=r"another store .* --resync"):
        looped.rebuild()

    assert looped.rebuild(replace(PLAN, resync=True)).num_rows == 1800


def test_nothing_to_go_on_from_is_said(looped: Looped) -> None:
    """Neither was anything published for this registry nor data given."""
    looped.features.BatchUpsertMovies(
        pb2.BatchUpsertMoviesRequest(movies=[pb2.MovieUpsert(movie=movie_pb2.Movie(movie_id="m1"))]), timeout=TIMEOUT_S
    )

    with pytest.raises(NoSnapshotError, match="--data DATA"):
        looped.rebuild()


def test_the_log_is_held_until_the_snapshot_is_durable(looped: Looped, raw_redis, one_server: None) -> None:
    """The registered position moves after the snapshot was written, never before."""
    looped.begin()
    held = raw_redis.hgetall(EXPORTS)
    looped.feed(looped.new)
    seen: list[tuple[str, bool]] = []

    looped.rebuild(told=lambda step: seen.append((step, raw_redis.hgetall(EXPORTS) == held)))

    assert held
    assert seen[:3] == [("snapshot", True), ("journal of snapshot", True), ("position", False)]


def test_a_checkpoint_that_cannot_be_read_stops_nobody(looped: Looped) -> None:
    """Somebody's damaged folder is no reason to keep a label on what is old."""
    looped.begin()
    looped.feed(looped.new)
    (looped.registry.path / "99990101-000000-000").mkdir()

    result = looped.rebuild(replace(PLAN, model="popular", forced="a new kind of model"))

    assert result.outcome == "promoted"


def test_old_snapshots_and_checkpoints_go(looped: Looped) -> None:
    """Of snapshots and of versions of the label as many are kept as was asked for, and the last candidate."""
    first = looped.begin()
    plan = replace(PLAN, keep=2)
    results = []
    for start in (0, 150, 300):
        looped.feed(looped.part(start, start + 150))
        results.append(looped.rebuild(plan))

    assert [result.outcome for result in results] == ["promoted"] * 3
    assert looped.snapshots.names() == [result.snapshot for result in results[-2:]]
    # What people trained themselves stays.
    kept = {first, results[1].version, results[2].version, results[2].candidate}
    assert set(looped.registry.versions()) == kept
    assert time.time() * 1000 > results[-1].ended_at_ms > results[-1].started_at_ms
