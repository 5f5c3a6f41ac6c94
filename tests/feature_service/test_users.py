"""Users are stored, read in two layouts, changed and forgotten."""

import time

import numpy as np
import pytest
from marquee.client.columns import decode_user_columns
from marquee.client.user_version import UserVersion
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import user_pb2

from feature_service.histories import Histories
from feature_service.import_plan import ImportColumns
from feature_service.keys import user_keys
from feature_service.lifetimes import Lifetimes
from feature_service.value_format import HEADER, unpack_header, unpack_tombstone
from tests.feature_service import messages as make

NAN = float("nan")


@pytest.fixture
async def stub(feature_stub):
    """A store with ten movies."""
    await feature_stub.BatchUpsertMovies(make.movies(10))
    return feature_stub


async def read(stub, user_id: str = "u") -> user_pb2.User:
    return (await stub.BatchGetUsers(make.users(user_id))).users[0]


async def test_a_user_whom_nobody_stored_is_a_row(stub):
    """One unknown user does not fail his neighbours."""
    await stub.BatchUpsertUsers(make.upsert_user("known", age=30))

    reply = await stub.BatchGetUsers(make.users("nobody", "known", "nobody"))

    assert [user.user_id for user in reply.users] == ["nobody", "known", "nobody"]
    found, missing = user_pb2.USER_STATUS_FOUND, user_pb2.USER_STATUS_NOT_FOUND
    assert [user.status for user in reply.users] == [missing, found, missing]
    assert UserVersion.parse(reply.users[0].user_version).counter == 0


async def test_absent_fields_keep_what_is_stored(stub):
    """An upsert changes what it names, clears what it says, and keeps the rest; zero is not absent."""
    await stub.BatchUpsertUsers(make.upsert_user(gender="F", age=0, occupation="artist", zip="01234"))
    await stub.BatchUpsertUsers(make.upsert_user(occupation="Ärztin", clear_fields=("gender",)))

    profile = (await read(stub)).profile

    assert not profile.HasField("gender")
    assert profile.HasField("age")
    assert (profile.age, profile.occupation, profile.zip) == (0, "Ärztin", "01234")


async def test_a_user_who_outlived_his_time_to_live_is_told_from_one_who_never_was(stub, link):
    """Nothing of him is answered but that he expired; until that moment he is there."""
    await stub.BatchUpsertUsers(make.upsert_user("u", age=30), timeout=5)
    key = user_keys("u").state
    [state] = await link.read([key])
    header = unpack_header(state)

    statuses = []
    for expires_at_ms in (1, 2**52):
        await link.command(
            "SET", key, HEADER.pack(*header._replace(profile_expires_at_ms=expires_at_ms)) + state[HEADER.size :]
        )
        user = await read(stub)
        statuses.append((user.status, user.profile.HasField("age")))

    assert statuses == [(user_pb2.USER_STATUS_EXPIRED, False), (user_pb2.USER_STATUS_FOUND, True)]


async def test_a_profile_and_a_history_do_not_touch_each_other(stub):
    """Events keep the profile, an upsert keeps the history."""
    await stub.BatchUpsertUsers(make.upsert_user(age=30))
    await stub.WriteEvents(make.write(make.event(rating=4)))
    await stub.BatchUpsertUsers(make.upsert_user(zip="1"))

    user = await read(stub)

    assert (user.profile.age, user.profile.zip) == (30, "1")
    assert [entry.movie_id for entry in user.history] == ["m0"]


async def test_the_same_profile_again_changes_nothing(stub):
    """A retried upsert keeps the user's version; a changed one raises it."""
    first = await stub.BatchUpsertUsers(make.upsert_user(age=30))
    again = await stub.BatchUpsertUsers(make.upsert_user(age=30))
    changed = await stub.BatchUpsertUsers(make.upsert_user(age=31))

    assert again == first
    versions = [UserVersion.parse(reply.user_versions[0]) for reply in (first, changed)]
    assert versions[1].counter > versions[0].counter


async def test_history_comes_newest_first_up_to_the_limit(stub):
    """Equal times are ordered by catalogue number; history_limit cuts the old end; num_watched counts all."""
    await stub.WriteEvents(
        make.write(
            make.event("a", movie_id="m3", time_ms=50, rating=2.5),
            make.event("b", movie_id="m5", time_ms=50),
            make.event("c", movie_id="m1", time_ms=99, rating=4),
        )
    )

    full = await read(stub)
    cut = (await stub.BatchGetUsers(make.users("u", history_limit=2))).users[0]

    assert [entry.movie_id for entry in full.history] == ["m1", "m5", "m3"]
    assert [entry.movie_id for entry in cut.history] == ["m1", "m5"]
    assert [entry.HasField("rating") for entry in full.history] == [True, False, True]
    assert full.history[2].rating == 2.5
    assert full.history[0].event_time.ToMilliseconds() == 99
    assert (full.num_watched, cut.num_watched) == (3, 3)


async def test_columns_say_the_same_as_typed_fields(stub):
    """Both views of the same users agree in everything."""
    await stub.BatchUpsertUsers(make.upsert_user("a", age=7, gender="M"))
    await stub.WriteEvents(
        make.write(*(make.event(f"e{i}", "a", f"m{i}", i or None, 1000 + i) for i in range(4)), make.event("x", "b"))
    )
    await stub.DeleteUser(pb2.DeleteUserRequest(user_id="b"))
    user_ids = ["a", "b", "c", "a"]

    full = await stub.BatchGetUsers(make.users(*user_ids, history_limit=3))
    reply = await stub.BatchGetUsers(
        make.users(*user_ids, history_limit=3, view=pb2.USER_VIEW_COLUMNS, include_seen=True)
    )

    rows = decode_user_columns(reply.columns)
    assert (reply.catalogue_id, reply.catalogue_version) == (full.catalogue_id, full.catalogue_version)
    for position, user in enumerate(full.users):
        entries = slice(rows.offsets[position], rows.offsets[position + 1])
        ratings = [entry.rating if entry.HasField("rating") else NAN for entry in user.history]
        assert rows.statuses[position] == user.status
        assert rows.profiles[position] == user.profile
        assert rows.user_versions[position] == user.user_version
        assert [f"m{number}" for number in rows.movie_numbers[entries]] == [entry.movie_id for entry in user.history]
        np.testing.assert_array_equal(rows.ratings[entries], np.array(ratings, np.float32))
        assert rows.event_times_ms[entries].tolist() == [e.event_time.ToMilliseconds() for e in user.history]
        assert rows.num_watched[position] == user.num_watched
        assert rows.deleted_at_ms[position] == user.deleted_at.ToMilliseconds()
    assert rows.seen_numbers.tolist() == [0, 1, 2, 3] * 2
    assert rows.seen_offsets.tolist() == [0, 4, 4, 4, 8]


async def test_a_deleted_user_is_gone_and_says_when(stub):
    """Profile, history and seen set vanish; the deletion has a time and a newer version."""
    await stub.BatchUpsertUsers(make.upsert_user(age=30))
    written = await stub.WriteEvents(make.write(make.event()))

    deleted = await stub.DeleteUser(pb2.DeleteUserRequest(user_id="u"))

    user = await read(stub)
    assert deleted.deleted
    assert user.status == user_pb2.USER_STATUS_NOT_FOUND
    assert user.deleted_at.ToMilliseconds() > 0
    assert user.user_version == deleted.user_version
    before, after = (UserVersion.parse(text) for text in (written.results[0].user_version, deleted.user_version))
    assert after.counter > before.counter


async def test_nothing_of_a_deleted_user_stays_in_redis(stub, raw_redis):
    """What a deletion leaves behind names the user nowhere."""
    await stub.BatchUpsertUsers(make.upsert_user("alice@example.org", zip="90210"))
    await stub.WriteEvents(make.write(make.event(user_id="alice@example.org")))

    await stub.DeleteUser(pb2.DeleteUserRequest(user_id="alice@example.org"))

    keys = list(raw_redis.scan_iter())  # of a cluster, of all its masters
    assert not [key for key in keys if b"alice" in key]
    tombstones = [key for key in keys if b":t:" in key]
    assert len(tombstones) == 1
    assert len(raw_redis.get(tombstones[0])) == 24


async def test_deleting_an_absent_user_is_idempotent(stub):
    """Deleting again, or somebody who never was, is no error and says so."""
    await stub.BatchUpsertUsers(make.upsert_user(age=30))

    replies = [await stub.DeleteUser(pb2.DeleteUserRequest(user_id=name)) for name in ("u", "u", "nobody")]

    assert [reply.deleted for reply in replies] == [True, False, False]
    late = await stub.WriteEvents(make.write(make.event(user_id="nobody", time_ms=1000)))
    assert late.results[0].status == pb2.EVENT_STATUS_STALE


async def test_events_from_before_the_deletion_stay_forgotten(stub):
    """Old events and imports of a deleted user change nothing; new ones make him anew, and he stays marked."""
    await stub.WriteEvents(make.write(make.event("a", time_ms=1000)))
    await stub.DeleteUser(pb2.DeleteUserRequest(user_id="u"))
    deleted_at_ms = (await read(stub)).deleted_at.ToMilliseconds()

    old = await stub.WriteEvents(make.write(make.event("a", time_ms=1000), make.event("b", time_ms=deleted_at_ms)))
    imported = await stub.ImportHistories(make.import_histories({"u": [("m1", 5, 0), ("m2", 5, deleted_at_ms)]}))
    between = await read(stub)
    new = await stub.WriteEvents(make.write(make.event("c", movie_id="m3", time_ms=deleted_at_ms + 1)))
    both = await stub.ImportHistories(make.import_histories({"u": [("m1", 5, 9), ("m2", 5, deleted_at_ms + 2)]}))

    assert [result.status for result in old.results] == [pb2.EVENT_STATUS_STALE] * 2
    assert (imported.num_applied, imported.num_unchanged) == (0, 2)
    assert between.status == user_pb2.USER_STATUS_NOT_FOUND
    assert new.results[0].status == pb2.EVENT_STATUS_APPLIED
    assert (both.num_applied, both.num_unchanged) == (1, 1)
    user = await read(stub)
    assert [entry.movie_id for entry in user.history] == ["m2", "m3"]
    assert user.num_watched == 2
    assert user.deleted_at.ToMilliseconds() == deleted_at_ms


async def test_an_event_from_a_clock_that_is_ahead_is_forgotten_too(stub):
    """Who reads the event log knows what is forgotten by its time, and sending it again does not bring it back."""
    in_an_hour = time.time_ns() // 1_000_000 + 3_600_000
    ahead = make.write(make.event(time_ms=in_an_hour))
    await stub.WriteEvents(ahead)

    await stub.DeleteUser(pb2.DeleteUserRequest(user_id="u"))

    user = (await stub.BatchGetUsers(make.users("u"))).users[0]
    assert user.deleted_at.ToMilliseconds() == in_an_hour
    assert (await stub.WriteEvents(ahead)).results[0].status == pb2.EVENT_STATUS_STALE


async def test_a_stored_time_of_a_distant_future_does_not_lock_a_user_out(stub, link, marks):
    """Older builds imported it. It does not count as the time of a deletion: events of the days after are taken in."""
    histories = Histories(link, marks, lambda: 0, window=200, log_entries=1000, lifetimes=Lifetimes())
    one = np.ones(1, np.int64)
    columns = ImportColumns(one, one, np.ones(1, np.float32), one * 253_402_300_799_999)
    await histories.load(["u"], columns, not_for_evaluation=False)

    await stub.DeleteUser(pb2.DeleteUserRequest(user_id="u"))

    user = (await stub.BatchGetUsers(make.users("u"))).users[0]
    assert user.deleted_at.ToMilliseconds() < time.time_ns() // 1_000_000 + 2 * 86_400_000


async def test_a_new_user_may_be_imported_after_a_deletion(stub):
    """The fast path of imports respects a deletion as well."""
    await stub.DeleteUser(pb2.DeleteUserRequest(user_id="u"))
    deleted_at_ms = (await read(stub)).deleted_at.ToMilliseconds()

    reply = await stub.ImportHistories(
        make.import_histories({"v": [("m0", 1, 0)], "u": [("m1", 5, 9), ("m2", 4, deleted_at_ms + 1)]})
    )

    user = await read(stub)
    assert (reply.num_applied, reply.num_unchanged) == (2, 1)
    assert [entry.movie_id for entry in user.history] == ["m2"]
    assert user.num_watched == 1
    assert reply.user_versions[1] == user.user_version


async def test_versions_of_a_partition_never_go_back(stub):
    """Over writes, retries, deletions and new lives a user's version only grows."""
    counters = []
    for round_ in range(3):
        for _ in range(2):
            reply = await stub.WriteEvents(make.write(make.event(f"e{round_}", time_ms=2**42 // 1000 + round_)))
            counters.append(reply.results[0].user_version)
        counters.append((await stub.BatchUpsertUsers(make.upsert_user(age=round_))).user_versions[0])
        counters.append((await stub.DeleteUser(pb2.DeleteUserRequest(user_id="u"))).user_version)

    numbers = [UserVersion.parse(text).counter for text in counters]
    assert numbers == sorted(numbers)
    assert numbers[0] == numbers[1]
    assert numbers[-1] > numbers[3]


async def test_each_life_of_a_user_has_its_own_incarnation(stub, raw_redis):
    """A deletion that removed somebody begins a new incarnation, in which the trained vector of the old is not used."""
    found = []
    for _ in range(3):
        await stub.BatchUpsertUsers(make.upsert_user(age=30))
        found.append(unpack_header(raw_redis.get(user_keys("u").state)).incarnation)
        for _ in range(2):
            await stub.DeleteUser(pb2.DeleteUserRequest(user_id="u"))
            found.append(unpack_tombstone(raw_redis.get(user_keys("u").tombstone)).incarnation)

    assert found == [0, 1, 1, 1, 2, 2, 2, 3, 3]
