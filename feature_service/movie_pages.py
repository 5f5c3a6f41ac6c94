"""Cuts the catalogue into pages and reads page tokens. Knows the mirror; knows no Redis."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass

from marquee.v1 import feature_service_pb2 as pb2

from feature_service.catalogue import Mirror
from feature_service.request_checks import MAX_MOVIES, Violations
from feature_service.value_format import CataloguePointer, StoredMovie
from service_runtime.errors import FailedPrecondition


@dataclass(frozen=True, slots=True)
class Page:
    """Some movies of a catalogue.

    Attributes:
        movies: Numbers and movies, by number.
        next_token: Empty on the last page.
        version: The catalogue version as of the first page.
    """

    movies: Sequence[tuple[int, StoredMovie]]
    next_token: str
    version: int


def page_of(request: pb2.ListMoviesRequest, mirror: Mirror) -> Page:
    """Returns the page that a request asks for.

    Raises:
        InvalidRequest: The size is out of bounds, or the token is none or belongs to another question.
        FailedPrecondition: The catalogue was replaced between the pages.
    """
    wrong = Violations()
    size = request.page_size or MAX_MOVIES
    if size > MAX_MOVIES:
        wrong.add("page_size", f"must be 0 to {MAX_MOVIES}")
    since = request.since_catalogue_version
    first, version = 0, mirror.pointer.version
    if request.page_token:
        token = _read_token(request.page_token)
        if token is None:
            wrong.add("page_token", "must be a next_page_token that this service gave, or empty")
        else:
            pointer, token_since, first = token
            version = pointer.version
            if token_since != since:
                wrong.add("since_catalogue_version", f"must be {token_since} as for the first page")
    wrong.raise_if_any()
    if request.page_token and token is not None and pointer.catalogue_id != mirror.pointer.catalogue_id:
        raise FailedPrecondition("the catalogue was replaced: begin again", reason="FOREIGN_CATALOGUE")

    movies: list[tuple[int, StoredMovie]] = []
    for number in range(first, len(mirror.movies)):
        if mirror.movies[number].version > since:
            if len(movies) == size:
                return Page(movies, _token(mirror.pointer.catalogue_id, version, since, number), version)
            movies.append((number, mirror.movies[number]))
    return Page(movies, "", version)


def _token(catalogue_id: str, version: int, since: int, next_number: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([catalogue_id, version, since, next_number]).encode()).decode()


def _read_token(text: str) -> tuple[CataloguePointer, int, int] | None:
    try:
        catalogue_id, version, since, next_number = json.loads(base64.urlsafe_b64decode(text))
    # A text of many brackets ends in RecursionError.
    except (binascii.Error, ValueError, TypeError, RecursionError):
        return None
    numbers = (version, since, next_number)
    if not isinstance(catalogue_id, str) or not all(type(number) is int and 0 <= number < 2**64 for number in numbers):
        return None
    return CataloguePointer(catalogue_id, version, 0), since, next_number
