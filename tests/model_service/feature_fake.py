"""A FeatureService in memory that behaves like one: real gRPC, real limits, real versions. It can be switched off."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np
from marquee.v1 import feature_service_pb2, movie_pb2, user_pb2

from service_runtime.errors import InvalidRequest, Unavailable, Violation
from service_runtime.health import Health
from service_runtime.server import Server, Service, snake_case

EPOCH = "0123456789abcdef"
SERVICE = feature_service_pb2.DESCRIPTOR.services_by_name["FeatureService"]


class FeatureFake:
    """The store. Knows what it was asked, and can be made to hold its answers back.

    `reads` and `lists` are what was asked; `gate` holds answers about users back; `room_for_seen` is how many seen
    numbers fit into an answer. `follow` lets it tell of changes, as soon as they are made unless they are held back.
    """

    def __init__(self):
        self.catalogue_id = "catalogue-1"
        self.catalogue_version = 0
        self.movies = []
        self.changed_at = []
        self.profiles = {}
        self.events = {}
        self.versions = {}
        self.deleted_at_ms = {}
        self.expires_at_ms = {}
        self.reads = []
        self.lists = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_off = False
        self.room_for_seen = 700_000
        self.window = 200
        self.changes = None
        self.held_back = False
        self.epoch = EPOCH
        self.is_live = True
        self.is_silent = False

    def follow(self):
        """Tells changes from here on."""
        self.changes = asyncio.Queue()

    def lose_the_feed(self):
        """Ends the feed; a subscriber who comes again is told to begin anew."""
        self.changes.put_nowait(None)

    def say(self, **fields):
        """Says something on the feed; keyword arguments as of the message."""
        self.changes.put_nowait(feature_service_pb2.StreamChangesResponse(position="1", **fields))

    def put_movie(self, movie_id, **fields):
        """Adds or changes a movie; keyword arguments as of the message."""
        self.catalogue_version += 1
        number = next((m.catalogue_number for m in self.movies if m.movie_id == movie_id), len(self.movies))
        movie = movie_pb2.Movie(movie_id=movie_id, catalogue_number=number, **fields)
        if number == len(self.movies):
            self.movies.append(movie)
            self.changed_at.append(0)
        self.movies[number] = movie
        self.changed_at[number] = self.catalogue_version
        return number

    def watch(self, user_id, movie_id, time_ms, rating=None):
        """Stores an event; returns the user_version."""
        number = next(m.catalogue_number for m in self.movies if m.movie_id == movie_id)
        events = self.events.setdefault(user_id, {})
        known = events.get(number)
        if known is None or time_ms >= known[0]:
            events[number] = (time_ms, known[1] if rating is None and known else rating)
        self.profiles.setdefault(user_id, user_pb2.UserProfile())
        return self._change(user_id)

    def put_user(self, user_id, **fields):
        """Stores a profile; returns the user_version."""
        self.profiles[user_id] = user_pb2.UserProfile(**fields)
        return self._change(user_id)

    def delete_user(self, user_id, time_ms):
        """Forgets a user."""
        self.profiles.pop(user_id, None)
        self.events.pop(user_id, None)
        self.deleted_at_ms[user_id] = time_ms
        return self._change(user_id)

    def replace_catalogue(self):
        """Empties the store, as if another one had taken its place."""
        self.catalogue_id += "-next"
        self.catalogue_version = 0
        self.movies.clear()
        self.changed_at.clear()
        self.events.clear()

    async def batch_get_users(self, request, call):
        """Answers view COLUMNS."""
        self._require_on()
        self.reads.append(list(request.user_ids))
        await self.gate.wait()
        most = 250 if request.include_seen else 1000
        if not 1 <= len(request.user_ids) <= most or len(request.user_ids) * request.history_limit > 200_000:
            raise InvalidRequest([Violation("user_ids", "too many")])
        histories, seen, omitted = [], [], []
        room = self.room_for_seen
        for user_id in request.user_ids:
            ordered = sorted(self.events.get(user_id, {}).items(), key=lambda entry: (-entry[1][0], -entry[0]))
            histories.append(ordered[: self.window][: request.history_limit])
            numbers = sorted(self.events.get(user_id, {}))
            omitted.append(len(numbers) > room)
            seen.append([] if omitted[-1] else numbers)
            room -= len(seen[-1])
        entries = [entry for history in histories for entry in history]
        columns = user_pb2.UserColumns(
            statuses=[
                user_pb2.USER_STATUS_FOUND if user_id in self.profiles else user_pb2.USER_STATUS_NOT_FOUND
                for user_id in request.user_ids
            ],
            profiles=[self.profiles.get(user_id, user_pb2.UserProfile()) for user_id in request.user_ids],
            user_versions=[self.version_of(user_id) for user_id in request.user_ids],
            lengths=np.array([len(history) for history in histories], "<u4").tobytes(),
            movie_numbers=np.array([number for number, _ in entries], "<u4").tobytes(),
            ratings=np.array([np.nan if rating is None else rating for _, (_, rating) in entries], "<f4").tobytes(),
            event_times_ms=np.array([time_ms for _, (time_ms, _) in entries], "<i8").tobytes(),
            num_watched=np.array([len(self.events.get(user, ())) for user in request.user_ids], "<u4").tobytes(),
            deleted_at_ms=np.array([self.deleted_at_ms.get(user, 0) for user in request.user_ids], "<i8").tobytes(),
            expires_at_ms=np.array([self.expires_at_ms.get(user, 0) for user in request.user_ids], "<i8").tobytes(),
        )
        if request.include_seen:
            columns.seen_lengths = np.array([len(numbers) for numbers in seen], "<u4").tobytes()
            columns.seen_numbers = np.array([number for numbers in seen for number in numbers], "<u4").tobytes()
            columns.seen_omitted = np.array(omitted, "u1").tobytes()
        return feature_service_pb2.BatchGetUsersResponse(
            columns=columns, catalogue_id=self.catalogue_id, catalogue_version=self.catalogue_version
        )

    async def list_movies(self, request, call):
        """Answers pages of the catalogue or of its changes."""
        self._require_on()
        self.lists.append(request.since_catalogue_version)
        start = int(request.page_token or 0)
        size = request.page_size or 500
        changed = [
            movie
            for movie, version in zip(self.movies, self.changed_at, strict=True)
            if version > request.since_catalogue_version
        ]
        return feature_service_pb2.ListMoviesResponse(
            movies=changed[start : start + size],
            next_page_token=str(start + size) if start + size < len(changed) else "",
            catalogue_id=self.catalogue_id,
            catalogue_version=self.catalogue_version,
            num_movies=len(self.movies),
        )

    async def stream_changes(self, request, call):
        """Tells that it is live, then every change."""
        if self.changes is None:
            raise Unavailable("nobody tells", retry_after_s=0.5)
        self.is_live = True
        yield feature_service_pb2.StreamChangesResponse(position="1", reset=True, live=True)
        while True:
            try:
                async with asyncio.timeout(0.5):
                    change = await self.changes.get()
            except TimeoutError:
                if not self.is_silent:
                    yield feature_service_pb2.StreamChangesResponse(position="1", live=self.is_live)
                continue
            if change is None:
                return
            self.is_live = change.live
            yield change

    def version_of(self, user_id):
        """Returns the user_version."""
        return f"{self.epoch}.7.{self.versions.get(user_id, 0)}"

    async def _unused(self, request, call):
        raise NotImplementedError

    def __getattr__(self, name):
        """Stands in for the RPCs that model_service has no use for."""
        if name in {snake_case(method.name) for method in SERVICE.methods}:
            return self._unused
        raise AttributeError(name)

    def _require_on(self):
        if self.is_off:
            raise Unavailable("switched off", retry_after_s=0.5)

    def _change(self, user_id):
        self.versions[user_id] = self.versions.get(user_id, 0) + 1
        if self.changes is not None and not self.held_back:
            self.say(user_ids=[user_id], live=True)
        return self.version_of(user_id)


@asynccontextmanager
async def serving(fake):
    """Serves a fake on a free port; gives the address."""
    async with Server([Service(SERVICE, fake)], Health([], []), listen="127.0.0.1:0", drain_timeout_s=0.5) as server:
        yield server.address
