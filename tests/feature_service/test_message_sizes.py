"""The largest request and the largest answer of every RPC fit gRPC's default of 4 MiB."""

from typing import Any

import numpy as np
from marquee.client.columns import decode_user_columns
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import movie_pb2, user_pb2

from feature_service.catalogue import Mirror
from feature_service.event_log import START, LogPage
from feature_service.exported_events import export_page
from feature_service.movie_messages import MAX_MOVIE_BYTES, to_message
from feature_service.request_checks import MAX_TIME_MS
from feature_service.seen_sets import pack_seen
from feature_service.stored_users import StoredUsers, take_apart
from feature_service.user_answers import MAX_SEEN_NUMBERS, add_full_users, add_user_columns
from feature_service.value_format import (
    ENTRY,
    HEADER,
    CataloguePointer,
    LogEntry,
    StoredMovie,
    pack_profile_field,
    pack_state,
    unpack_header,
)

LIMIT = 4 * 1024 * 1024
HIGHEST = 2**32 - 1
VERSION = "f" * 16 + ".63." + "9" * 16
PROFILE: dict[str, Any] = {"gender": "g" * 32, "age": 150, "occupation": "o" * 64, "zip": "z" * 32}
NAMES = [f"{i:064d}" for i in range(64)]


def ids(number: int) -> list[str]:
    return [f"{i:0128d}" for i in range(number)]


def largest_movie(movie_id: str = "m" * 128) -> movie_pb2.Movie:
    """Returns a movie at the limit of its size, and near most of its other limits."""
    movie = movie_pb2.Movie(
        movie_id=movie_id, catalogue_number=HIGHEST, title="t" * 512, year=2200, genres=NAMES[:32], removed=True
    )
    for i in range(8):
        movie.bags[f"{i:064d}"].values.extend(NAMES[i::8])
    while movie.ByteSize() > MAX_MOVIE_BYTES:
        movie.title = movie.title[:-1]
    assert movie.ByteSize() == MAX_MOVIE_BYTES
    return movie


def stored_users(num_users: int, num_entries: int, seen: bytes = b"") -> StoredUsers:
    """Returns users with the largest profile and version."""
    entries = np.zeros(num_entries, ENTRY)
    entries["rating"], entries["time_ms"] = 4.5, MAX_TIME_MS
    profile = b"".join(pack_profile_field(value) for value in PROFILE.values())
    state = pack_state(profile, entries.tobytes(), b"", HIGHEST)
    header = unpack_header(state)._replace(version=10**16 - 1, deleted_at_ms=MAX_TIME_MS)
    state = HEADER.pack(*header) + state[HEADER.size :]
    return take_apart(
        CataloguePointer("c", 1, 1), "f" * 16, [63] * num_users, [state] * num_users, [seen] * num_users, {}, 1
    )


def columns_of(users: StoredUsers, num_entries: int, *, include_seen: bool) -> user_pb2.UserColumns:
    reply = pb2.BatchGetUsersResponse()
    add_user_columns(reply, users, num_entries, include_seen=include_seen)
    assert max(map(len, reply.columns.user_versions)) == len(VERSION)
    return reply.columns


def test_requests_fit():
    """The worst request of each RPC is below 4 MiB."""
    user = pb2.UserUpsert(user_id="u" * 128, profile=user_pb2.UserProfile(**PROFILE), clear_fields=["occupation"] * 4)
    event = pb2.Event(event_id="e" * 128, user_id="u" * 128, movie_id="m" * 128, rating=1)
    event.event_time.FromMilliseconds(MAX_TIME_MS)
    requests = [
        pb2.BatchGetUsersRequest(user_ids=ids(1000)),
        pb2.BatchGetMoviesRequest(movie_ids=ids(500)),
        pb2.BatchUpsertUsersRequest(users=[user] * 1000),
        pb2.BatchUpsertMoviesRequest(movies=[pb2.MovieUpsert(movie=largest_movie())] * 500),
        pb2.WriteEventsRequest(events=[event] * 1000),
        pb2.ImportHistoriesRequest(
            user_ids=ids(1000),
            lengths=bytes(4000),
            movie_ids=ids(20_000),
            movie_indices=bytes(4 * 50_000),
            ratings=bytes(4 * 50_000),
            event_times_ms=bytes(8 * 50_000),
        ),
    ]

    assert {type(request).__name__: request.ByteSize() for request in requests if request.ByteSize() >= LIMIT} == {}


def test_pages_of_movies_fit():
    """500 movies of the largest size are below 4 MiB, by id and listed."""
    movies = [largest_movie()] * 500

    listed = pb2.ListMoviesResponse(
        movies=movies, next_page_token="t" * 200, catalogue_id="c" * 16, catalogue_version=2**63
    )

    assert listed.ByteSize() < LIMIT
    assert pb2.BatchGetMoviesResponse(movies=movies, not_found_movie_ids=[]).ByteSize() < LIMIT


def test_answers_about_events_fit():
    """1000 refusals with the longest id are below 4 MiB."""
    refusal = pb2.EventResult(
        status=pb2.EVENT_STATUS_REFUSED, reason="MOVIE_NOT_FOUND", message="m" * 700, user_version=VERSION
    )

    assert pb2.WriteEventsResponse(results=[refusal] * 1000).ByteSize() < LIMIT


def test_pages_of_the_event_log_fit():
    """10,000 events of as many users and movies with the longest ids are below 4 MiB, and so are as many deletions."""
    entry = np.zeros(1, ENTRY)
    mirror = Mirror("c")
    mirror.put(0, StoredMovie("m" * 128))
    events = [LogEntry(MAX_TIME_MS, user_id, entry.tobytes(), "", 0) for user_id in ids(10_000)]
    deletions = [LogEntry(MAX_TIME_MS, "", b"", "d" * 32, MAX_TIME_MS)] * 10_000
    for entries in (events, deletions):
        page = LogPage(entries, START, False, 2**63, "e" * 16, CataloguePointer("c", 1, 1))

        reply = export_page(page, mirror)

        # Distinct movies cannot be made up here without 10,000 of them: their ids are as long as the users'.
        assert reply.ByteSize() + 10_000 * 131 < LIMIT


def test_typed_users_fit():
    """20,000 entries with the longest ids are below 4 MiB, however they spread over users."""
    mirror = Mirror("c")
    mirror.put(0, StoredMovie("m" * 128))
    for num_users, num_entries in ((1000, 20), (20, 1000)):
        rows = stored_users(num_users, num_entries).rows()

        reply = pb2.BatchGetUsersResponse(catalogue_id="c" * 16)
        add_full_users(reply, ["u" * 128] * num_users, rows, mirror, num_entries)

        assert sum(len(user.history) for user in reply.users) == 20_000
        assert reply.ByteSize() < LIMIT


def test_user_columns_fit():
    """200,000 entries of 1000 users with the largest profiles are below 4 MiB."""
    for num_users, num_entries in ((1000, 200), (200, 1000)):
        columns = columns_of(stored_users(num_users, num_entries), num_entries, include_seen=False)

        assert len(columns.ratings) == 4 * 200_000
        assert pb2.BatchGetUsersResponse(columns=columns, catalogue_id="c" * 16).ByteSize() < LIMIT


def test_seen_numbers_take_the_room_that_is_left():
    """Seen sets that do not fit are marked, the others come whole, and the answer is below 4 MiB."""
    seen = pack_seen(np.arange(20_000))
    for num_users, num_entries in ((250, 0), (200, 1000)):
        columns = columns_of(stored_users(num_users, num_entries, seen), num_entries, include_seen=True)

        rows = decode_user_columns(columns)
        size_bytes = pb2.BatchGetUsersResponse(columns=columns, catalogue_id="c" * 16).ByteSize()
        room = min(MAX_SEEN_NUMBERS, (LIMIT - size_bytes) // 4 + len(rows.seen_numbers))
        num_fitting = int(np.count_nonzero(~rows.seen_omitted))
        assert size_bytes < LIMIT
        assert room - 22_000 < num_fitting * 20_000 <= room
        assert rows.seen_omitted.tolist() == [False] * num_fitting + [True] * (num_users - num_fitting)
        assert np.diff(rows.seen_offsets).tolist() == [20_000] * num_fitting + [0] * (num_users - num_fitting)


def test_a_number_is_written_as_long_as_it_may_be():
    """The largest movie leaves room for the largest catalogue number."""
    movie = largest_movie()
    bags = {name: tuple(bag.values) for name, bag in movie.bags.items()}
    stored = StoredMovie(movie.movie_id, 1, movie.title, movie.year, tuple(movie.genres), bags, removed=True)

    assert to_message(HIGHEST, stored).ByteSize() == MAX_MOVIE_BYTES
