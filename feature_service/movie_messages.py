"""Translates movies between the wire and the store, and checks them. Knows messages; knows no Redis."""

from collections.abc import Sequence
from dataclasses import replace

from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import movie_pb2

from feature_service.catalogue import Mirror
from feature_service.request_checks import MAX_CLEAR_FIELDS, MAX_MOVIES, Violations
from feature_service.value_format import StoredMovie

MAX_MOVIE_BYTES = 7500
_MAX_TITLE_BYTES = 512
_YEARS = (1800, 2200)
_MAX_GENRES = 32
_MAX_NAME_BYTES = 64
_MAX_BAGS = 8
_MAX_BAG_VALUES = 64
_CLEARABLE = ("title", "year", "genres")
_BAG = "bags."


def to_message(number: int, movie: StoredMovie) -> movie_pb2.Movie:
    """Returns a movie as callers see it."""
    return movie_pb2.Movie(
        movie_id=movie.movie_id,
        catalogue_number=number,
        title=movie.title,
        year=movie.year,
        genres=movie.genres,
        bags={name: movie_pb2.MovieBag(values=values) for name, values in movie.bags.items()},
        removed=movie.removed or None,
    )


def check_upserts(request: pb2.BatchUpsertMoviesRequest) -> None:
    """Checks what can be told without the catalogue. Raises `InvalidRequest`."""
    wrong = Violations()
    movie_ids = [upsert.movie.movie_id for upsert in request.movies]
    wrong.ids("movies", movie_ids, MAX_MOVIES, distinct=True, within="movie.movie_id")
    for position, upsert in enumerate(request.movies[:MAX_MOVIES]):
        _check_movie(wrong, f"movies[{position}].movie", upsert.movie)
        cleared = upsert.clear_fields
        if not wrong.at_most(f"movies[{position}].clear_fields", len(cleared), MAX_CLEAR_FIELDS):
            continue
        for at, name in enumerate(cleared):
            path = f"movies[{position}].clear_fields[{at}]"
            if name.startswith(_BAG):
                conflict = name.removeprefix(_BAG) in upsert.movie.bags
            elif name in _CLEARABLE:
                conflict = name in {field.name for field, _ in upsert.movie.ListFields()}
            else:
                wrong.add(path, f"must be one of {', '.join(_CLEARABLE)}, bags.NAME")
                continue
            if conflict:
                wrong.add(path, f"{name} is set and cleared at once")
    wrong.raise_if_any()


def merge_upserts(upserts: Sequence[pb2.MovieUpsert], mirror: Mirror) -> list[StoredMovie]:
    """Returns the movies that upserts make of a catalogue. Raises `InvalidRequest` if one grows beyond its limits."""
    wrong = Violations()
    merged = [_merge(upsert, mirror.find(upsert.movie.movie_id)) for upsert in upserts]
    for position, movie in enumerate(merged):
        path = f"movies[{position}].movie"
        num_values = sum(len(values) for values in movie.bags.values())
        if len(movie.bags) > _MAX_BAGS:
            wrong.add(f"{path}.bags", f"would make {len(movie.bags)} bags with those stored, at most {_MAX_BAGS}")
        if num_values > _MAX_BAG_VALUES:
            wrong.add(f"{path}.bags", f"would make {num_values} values with those stored, at most {_MAX_BAG_VALUES}")
        # The number is not known yet; the longest is assumed.
        size_bytes = to_message(2**32 - 1, movie).ByteSize()
        if size_bytes > MAX_MOVIE_BYTES:
            wrong.add(path, f"would be {size_bytes} bytes with what is stored, at most {MAX_MOVIE_BYTES}")
    wrong.raise_if_any()
    return merged


def _merge(upsert: pb2.MovieUpsert, stored: StoredMovie | None) -> StoredMovie:
    movie, cleared = upsert.movie, upsert.clear_fields
    before = stored or StoredMovie(movie.movie_id)
    bags = {name: values for name, values in before.bags.items() if f"{_BAG}{name}" not in cleared}
    bags.update((name, tuple(bag.values)) for name, bag in movie.bags.items())
    return replace(
        before,
        title=movie.title if movie.HasField("title") else None if "title" in cleared else before.title,
        year=movie.year if movie.HasField("year") else None if "year" in cleared else before.year,
        genres=tuple(movie.genres) if movie.genres else () if "genres" in cleared else before.genres,
        bags=dict(sorted(bags.items())),
        removed=movie.removed if movie.HasField("removed") else before.removed,
    )


def _check_movie(wrong: Violations, path: str, movie: movie_pb2.Movie) -> None:
    if movie.HasField("title"):
        wrong.text(f"{path}.title", movie.title, 0, _MAX_TITLE_BYTES)
    if movie.HasField("year") and not _YEARS[0] <= movie.year <= _YEARS[1]:
        wrong.add(f"{path}.year", f"must be {_YEARS[0]} to {_YEARS[1]}")
    if wrong.at_most(f"{path}.genres", len(movie.genres), _MAX_GENRES):
        _check_names(wrong, f"{path}.genres", movie.genres)
    if not wrong.at_most(f"{path}.bags", len(movie.bags), _MAX_BAGS):
        return
    num_values = sum(len(bag.values) for bag in movie.bags.values())
    if num_values > _MAX_BAG_VALUES:
        wrong.add(f"{path}.bags", f"must have at most {_MAX_BAG_VALUES} values over all bags, not {num_values}")
        return
    for name, bag in movie.bags.items():
        wrong.text(f"{path}.bags[{name[:_MAX_NAME_BYTES]!r}]", name, 1, _MAX_NAME_BYTES)
        _check_names(wrong, f"{path}.bags[{name[:_MAX_NAME_BYTES]!r}].values", bag.values)


def _check_names(wrong: Violations, path: str, names: Sequence[str]) -> None:
    for position, name in enumerate(names):
        wrong.text(f"{path}[{position}]", name, 1, _MAX_NAME_BYTES)
    wrong.distinct(path, names)
