"""Answers the RPCs of marquee.v1.FeatureService: message in, store asked, message out. Knows no Redis and no gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing

import numpy as np
from marquee.v1 import feature_service_pb2 as pb2

from feature_service import request_checks
from feature_service.catalogue import Catalogue
from feature_service.change_ring import ChangeRing
from feature_service.event_log import EventLog
from feature_service.exported_events import export_page
from feature_service.histories import Histories, Outcome, WatchEvent
from feature_service.import_plan import ImportColumns
from feature_service.movie_messages import check_upserts, merge_upserts, to_message
from feature_service.movie_pages import page_of
from feature_service.store import StoreMarks
from feature_service.user_answers import add_full_users, add_user_columns
from feature_service.users import Users
from service_runtime.errors import NotFound, Violation
from service_runtime.server import Call

_STATUS = {
    Outcome.APPLIED: pb2.EVENT_STATUS_APPLIED,
    Outcome.DUPLICATE: pb2.EVENT_STATUS_DUPLICATE,
    Outcome.STALE: pb2.EVENT_STATUS_STALE,
}
_OUTCOME = {
    pb2.EVENT_STATUS_APPLIED: "applied",
    pb2.EVENT_STATUS_DUPLICATE: "duplicate",
    pb2.EVENT_STATUS_STALE: "stale",
    pb2.EVENT_STATUS_REFUSED: "refused",
}


class FeatureHandlers:
    """The handlers; `service_runtime.server` calls them by the names of the RPCs.

    Attributes:
        event_outcomes: Events that were taken in so far, by what came of them.
    """

    def __init__(
        self,
        users: Users,
        histories: Histories,
        catalogue: Catalogue,
        event_log: EventLog,
        changes: ChangeRing,
        marks: StoreMarks,
        now_ms: Callable[[], int],
        max_ahead_ms: int,
    ) -> None:
        self._users = users
        self._histories = histories
        self._catalogue = catalogue
        self._event_log = event_log
        self._changes = changes
        self._marks = marks
        self._now_ms = now_ms
        self.event_outcomes = dict.fromkeys(_OUTCOME.values(), 0)
        self._max_ahead_ms = max_ahead_ms

    async def batch_get_users(self, request: pb2.BatchGetUsersRequest, call: Call) -> pb2.BatchGetUsersResponse:
        """Reads users, typed or as columns."""
        query = request_checks.users_query(request, self._histories.window)
        stored = await self._users.read(query.user_ids, with_seen=query.include_seen)
        reply = pb2.BatchGetUsersResponse(
            catalogue_id=stored.pointer.catalogue_id, catalogue_version=stored.pointer.version
        )
        if query.columns:
            add_user_columns(reply, stored, query.history_limit, include_seen=query.include_seen)
        else:
            mirror = await self._catalogue.at_least(stored.pointer)
            add_full_users(reply, query.user_ids, stored.rows(), mirror, query.history_limit)
        return reply

    async def batch_get_movies(self, request: pb2.BatchGetMoviesRequest, call: Call) -> pb2.BatchGetMoviesResponse:
        """Reads movies by id."""
        movie_ids = request_checks.movie_ids(request)
        mirror = await self._catalogue.newest()
        known = [movie_id for movie_id in movie_ids if movie_id in mirror.numbers]
        numbers = [mirror.numbers[movie_id] for movie_id in known]
        return pb2.BatchGetMoviesResponse(
            movies=[to_message(number, mirror.movies[number]) for number in numbers],
            not_found_movie_ids=[movie_id for movie_id in movie_ids if movie_id not in mirror.numbers],
            catalogue_id=mirror.pointer.catalogue_id,
            catalogue_version=mirror.pointer.version,
        )

    async def list_movies(self, request: pb2.ListMoviesRequest, call: Call) -> pb2.ListMoviesResponse:
        """Pages through the catalogue."""
        mirror = await self._catalogue.newest()
        page = page_of(request, mirror)
        return pb2.ListMoviesResponse(
            movies=[to_message(number, movie) for number, movie in page.movies],
            next_page_token=page.next_token,
            catalogue_id=mirror.pointer.catalogue_id,
            catalogue_version=page.version,
            num_movies=len(mirror.movies),
        )

    async def batch_upsert_users(
        self, request: pb2.BatchUpsertUsersRequest, call: Call
    ) -> pb2.BatchUpsertUsersResponse:
        """Creates or changes profiles."""
        changes = request_checks.profile_changes(request)
        return pb2.BatchUpsertUsersResponse(user_versions=await self._users.upsert(changes))

    async def batch_upsert_movies(
        self, request: pb2.BatchUpsertMoviesRequest, call: Call
    ) -> pb2.BatchUpsertMoviesResponse:
        """Creates or changes movies."""
        check_upserts(request)
        scale = request_checks.rating_scale(request)
        mirror = await self._catalogue.change(lambda newest: merge_upserts(request.movies, newest))
        if scale is not None:
            await self._catalogue.set_rating_scale(scale)
        return pb2.BatchUpsertMoviesResponse(
            catalogue_numbers=[mirror.numbers[upsert.movie.movie_id] for upsert in request.movies],
            catalogue_id=mirror.pointer.catalogue_id,
            catalogue_version=mirror.pointer.version,
        )

    async def import_histories(self, request: pb2.ImportHistoriesRequest, call: Call) -> pb2.ImportHistoriesResponse:
        """Loads histories in bulk; a movie that the catalogue lacks refuses the whole call."""
        rows = request_checks.import_rows(request, self._now_ms() + self._max_ahead_ms)
        (numbers, missing), scale = await asyncio.gather(
            self._catalogue.numbers_of(rows.movie_ids), self._catalogue.rating_scale()
        )
        if scale is not None:
            request_checks.ratings_on_scale(rows, scale)
        if missing:
            raise NotFound("movie", missing, reason="MOVIE_NOT_FOUND")
        number_of_index = np.array([numbers[movie_id] for movie_id in rows.movie_ids], np.int64)
        columns = ImportColumns(rows.lengths, number_of_index[rows.movie_indices], rows.ratings, rows.times_ms)
        num_applied, versions = await self._histories.load(
            rows.user_ids, columns, not_for_evaluation=request.not_for_evaluation
        )
        return pb2.ImportHistoriesResponse(
            num_applied=num_applied, num_unchanged=len(rows.ratings) - num_applied, user_versions=versions
        )

    async def write_events(self, request: pb2.WriteEventsRequest, call: Call) -> pb2.WriteEventsResponse:
        """Takes in events; one that cannot be stored is refused alone, unless there is no other."""
        checked = request_checks.events(request, self._now_ms() + self._max_ahead_ms)
        movie_ids = [event.movie_id for event, found in zip(request.events, checked, strict=True) if not found.reason]
        # Asked for at once, both are one read.
        (numbers, _), scale = await asyncio.gather(
            self._catalogue.numbers_of(movie_ids), self._catalogue.rating_scale()
        )
        if scale is not None:
            checked = request_checks.events_on_scale(request, checked, scale)
        results: dict[int, pb2.EventResult] = {}
        accepted: dict[int, WatchEvent] = {}
        for position, (event, found) in enumerate(zip(request.events, checked, strict=True)):
            if found.reason:
                results[position] = _refused(found.reason, position, found.violations)
            elif event.movie_id not in numbers:
                missing = Violation(f"events[{position}].movie_id", f"no movie {event.movie_id!r} in the catalogue")
                results[position] = _refused("MOVIE_NOT_FOUND", position, [missing])
            else:
                rating = event.rating if event.HasField("rating") else None
                number = numbers[event.movie_id]
                accepted[position] = WatchEvent(event.event_id, event.user_id, number, rating, found.time_ms)
        outcomes = await self._histories.write(list(accepted.values()))
        for position, (outcome, version) in zip(accepted, outcomes, strict=True):
            results[position] = pb2.EventResult(status=_STATUS[outcome], user_version=version)
        for result in results.values():
            self.event_outcomes[_OUTCOME[result.status]] += 1
        return pb2.WriteEventsResponse(results=[results[position] for position in range(len(request.events))])

    async def delete_user(self, request: pb2.DeleteUserRequest, call: Call) -> pb2.DeleteUserResponse:
        """Forgets a user."""
        deleted, version = await self._users.delete(request_checks.user_id(request))
        return pb2.DeleteUserResponse(deleted=deleted, user_version=version)

    async def export_events(self, request: pb2.ExportEventsRequest, call: Call) -> pb2.ExportEventsResponse:
        """Reads the event log."""
        limit = request_checks.export_page_size(request)
        with request_checks.positions():
            page = await self._event_log.read(request.position, limit)
        return export_page(page, await self._catalogue.at_least(page.pointer))

    async def register_export(self, request: pb2.RegisterExportRequest, call: Call) -> pb2.RegisterExportResponse:
        """Holds the trimming of the event log back."""
        request_checks.export_name(request)
        with request_checks.positions():
            await self._event_log.hold(request.name, request.position)
        return pb2.RegisterExportResponse()

    async def stream_changes(
        self, request: pb2.StreamChangesRequest, call: Call
    ) -> AsyncIterator[pb2.StreamChangesResponse]:
        """Tells which users change."""
        async with aclosing(self._changes.follow(request.position)) as following:
            async for changes in following:
                yield pb2.StreamChangesResponse(
                    position=changes.position,
                    user_ids=changes.user_ids,
                    catalogue_changed=changes.catalogue,
                    reset=changes.reset,
                    live=changes.live,
                )

    async def get_store_info(self, request: pb2.GetStoreInfoRequest, call: Call) -> pb2.GetStoreInfoResponse:
        """Tells what this store is."""
        epoch, pointer, tainted = await self._marks.read()
        scale = await self._catalogue.rating_scale()
        return pb2.GetStoreInfoResponse(
            store_epoch=epoch,
            catalogue_id=pointer.catalogue_id,
            catalogue_version=pointer.version,
            num_movies=pointer.num_movies,
            history_window=self._histories.window,
            not_for_evaluation=tainted,
            log_position=await self._event_log.end(),
            rating_scale=None if scale is None else pb2.RatingScale(lowest=scale.lowest, highest=scale.highest),
        )


def _refused(reason: str, position: int, violations: Sequence[Violation]) -> pb2.EventResult:
    fields = [violation.field.removeprefix(f"events[{position}].") for violation in violations]
    message = "; ".join(f"{violation.field} {violation.description}" for violation in violations)
    return pb2.EventResult(status=pb2.EVENT_STATUS_REFUSED, reason=reason, message=message, fields=fields)
