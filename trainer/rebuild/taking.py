"""Takes a snapshot: the one before, or a data set, and what happened since. Knows how these meet; knows no model.

What cannot be told from the log is asked for: movies that are new, profiles as they are now, and whom the store has
forgotten. A log that does not go on where the snapshot ends is refused, since what is missing would stay missing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import Dataset, Interactions
from trainer.fits import Progress, silent
from trainer.readers.rating_scale import detect_scale, on_scale
from trainer.rebuild.store_reading import Exported, StoredUsers, StoreReader, UnconnectedError
from trainer.store_snapshots.events import Events, Watched, after_deletion, deletion_times, merge
from trainer.store_snapshots.folder import About, Holdings
from two_tower.movie_columns import MovieColumns
from two_tower.serving import RatingScale
from two_tower.user_columns import Profiles

_WHAT_TO_DO = (
    "Nothing was changed. What the log no longer has can be had from the store only as far as the histories of known "
    "users go: `trainer rebuild --resync` reads the whole log and these, and says so in the snapshot"
)


@dataclass(frozen=True, slots=True)
class Base:
    """What a snapshot goes on from.

    Attributes:
        about: Of the snapshot before; None if it is the first of its store.
        data_name: What the data set is called.
        scale: Rating scale, None without ratings.
        holdings: Users, movies and rows.
    """

    about: About | None
    data_name: str
    scale: RatingScale | None
    holdings: Holdings


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that is not written yet."""

    about: About
    holdings: Holdings


def base_of_data(data: Dataset, rows: Interactions) -> Base:
    """Returns some rows of a data set as the store merges what is imported: with event hash 0."""
    watched = merge(
        Events(
            rows.user_rows.astype(np.int64),
            rows.movie_rows.astype(np.int64),
            rows.event_times_ms.astype(np.int64),
            np.zeros(len(rows), np.uint64),
            rows.ratings,
        )
    )
    holdings = Holdings(list(data.user_ids), data.profiles, list(data.zips), data.movies, watched)
    return Base(None, data.name, data.scale, holdings)


def take(reader: StoreReader, base: Base, now: datetime, *, resync: bool = False, progress: Progress = silent) -> Taken:
    """Returns what the base and the event log since come to.

    Args:
        reader: The store.
        base: What to go on from.
        now: When this began.
        resync: Read the whole log and all stored histories, whether or not they connect.
        progress: Told after each call.

    Raises:
        StoreError: The store cannot be read.
        UnconnectedError: The log does not go on where the base ends; says what to do.
    """
    info = reader.info()
    if info.num_movies == 0:
        raise UnconnectedError("feature_service holds no movies: publish some first (`trainer publish`, `bootstrap`)")
    exported = _export(reader, base, info.store_epoch, resync, progress)
    movies = combined_movies(reader.movies(), base.holdings.movies)
    number_of = {movie_id: number for number, movie_id in enumerate(movies.movie_ids)}
    old = base.holdings
    user_ids = list(dict.fromkeys([*old.user_ids, *exported.user_ids]))
    row_of = {user_id: row for row, user_id in enumerate(user_ids)}
    before = take_numbers(old.watched.as_events(), range(len(old.user_ids)), _places(old.movies.movie_ids, number_of))
    news = take_numbers(exported.events, _places(exported.user_ids, row_of), _places(exported.movie_ids, number_of))
    stored = reader.users(user_ids, with_histories=resync, progress=progress)
    deleted_at_ms = np.maximum(deletion_times(user_ids, exported.deleted), stored.deleted_at_ms)
    news = after_deletion(Events.joined([news, stored.histories]), deleted_at_ms)
    kept = after_deletion(before, deleted_at_ms)
    # Of whom nothing is left in the store, nothing is left here, whatever times his events bear.
    is_gone = (stored.deleted_at_ms > 0) & ~stored.is_found
    kept, news = kept.take(~is_gone[kept.users]), news.take(~is_gone[news.users])
    scale, news, num_off_scale = _on_scale(base.scale, news)
    watched = merge(Events.joined([kept, news]))
    has_rows = np.zeros(len(user_ids), np.bool_)
    has_rows[watched.newest.users] = True
    stays = has_rows | ((deleted_at_ms == 0) & (np.arange(len(user_ids)) < len(old.user_ids)))
    holdings = _holdings(user_ids, stays, base.holdings, stored, movies, watched)
    watched_before, watched_now = (np.unique(each.movies) for each in (before, holdings.watched.newest))
    forgotten = {movies.movie_ids[number] for number in np.setdiff1d(watched_before, watched_now)}
    forgotten |= set(base.about.forgotten_movies if base.about else ())
    forgotten -= {movies.movie_ids[number] for number in watched_now}
    num_deleted = _num_deleted(before, kept, stays[: len(old.user_ids)])
    about = About(
        name=_name(now),
        data_name=base.data_name,
        taken_at_ms=int(now.timestamp() * 1000),
        store_epoch=info.store_epoch,
        position=exported.position,
        num_rows=len(holdings.watched),
        num_users=len(holdings.user_ids),
        num_movies=len(movies),
        num_events=len(exported.events) + (base.about.num_events if base.about else 0),
        num_off_scale=num_off_scale + (base.about.num_off_scale if base.about else 0),
        num_deleted=num_deleted,
        forgotten_movies=tuple(sorted(forgotten)),
        resynced=resync or (base.about is not None and base.about.resynced),
        scale=scale,
        has_times=bool((holdings.watched.newest.times_ms > 0).any()),
        sha256={},
    )
    return Taken(about, holdings)


def _export(reader: StoreReader, base: Base, epoch: str, resync: bool, progress: Progress) -> Exported:
    about = base.about
    if about is not None and not resync and about.store_epoch != epoch:
        raise UnconnectedError(
            f"feature_service has another store ({epoch}) than the one that snapshot {about.name} was taken of "
            f"({about.store_epoch}): it was restored or replaced, or it is the wrong one. {_WHAT_TO_DO}"
        )
    try:
        exported = reader.export("" if resync or about is None else about.position, progress)
    except UnconnectedError as error:
        raise UnconnectedError(f"{error}. {_WHAT_TO_DO}") from error
    if exported.gap and not resync:
        since = "the log's beginning" if about is None else f"snapshot {about.name}"
        raise UnconnectedError(
            f"events were trimmed from the log that came after {since}: FEATURE_LOG_MAX_ENTRIES was reached, or nobody "
            f"was registered to hold them. {_WHAT_TO_DO}"
        )
    return exported


def combined_movies(catalogue: MovieColumns, others: MovieColumns) -> MovieColumns:
    """Returns a catalogue, and after it what it lacks of other movies: not available."""
    known = set(catalogue.movie_ids)
    lost = [row for row, movie_id in enumerate(others.movie_ids) if movie_id not in known]
    if not lost:
        return catalogue
    available = np.ones(len(catalogue), np.bool_) if catalogue.available is None else catalogue.available
    bags = {**dict.fromkeys(catalogue.bags), **dict.fromkeys(others.bags)}

    def bag(movies: MovieColumns, name: str, rows: Iterable[int]) -> list[tuple[str, ...]]:
        return [tuple(movies.bags[name][row]) if name in movies.bags else () for row in rows]

    return MovieColumns(
        [*catalogue.movie_ids, *(others.movie_ids[row] for row in lost)],
        [*catalogue.titles, *(others.titles[row] for row in lost)],
        np.concatenate([catalogue.years, others.years[lost]]),
        [*catalogue.genres, *(others.genres[row] for row in lost)],
        {name: bag(catalogue, name, range(len(catalogue))) + bag(others, name, lost) for name in bags},
        np.concatenate([available, np.zeros(len(lost), np.bool_)]),
    )


def _num_deleted(before: Events, kept: Events, stays: NDArray[np.bool_]) -> int:
    """Returns of how many users something was taken away."""
    num_users = len(stays)
    rows_before, rows_kept = (np.bincount(each.users, minlength=num_users)[:num_users] for each in (before, kept))
    return int(((rows_kept < rows_before) | ~stays).sum())


def _places(ids: Sequence[str], place_of: dict[str, int]) -> list[int]:
    return [place_of[each] for each in ids]


def take_numbers(events: Events, users: Sequence[int], movies: Sequence[int]) -> Events:
    """Returns events whose users and movies are named by other lists: position p of theirs is `users[p]` there."""
    if not len(events):
        return events
    return replace(
        events, users=np.array(users, np.int64)[events.users], movies=np.array(movies, np.int64)[events.movies]
    )


def _on_scale(scale: RatingScale | None, news: Events) -> tuple[RatingScale | None, Events, int]:
    """Returns the scale, the events with no stars off it, and how many had some."""
    rated = ~np.isnan(news.ratings)
    stars = news.ratings[rated].astype(np.float64)
    if scale is None:
        scale = detect_scale(*np.unique(stars, return_counts=True))
    if scale is None:
        return None, news, 0
    off = np.zeros(len(news), np.bool_)
    off[rated] = ~on_scale(stars, scale)
    return scale, replace(news, ratings=np.where(off, np.float32(np.nan), news.ratings)), int(off.sum())


def _holdings(
    user_ids: list[str],
    stays: NDArray[np.bool_],
    old: Holdings,
    stored: StoredUsers,
    movies: MovieColumns,
    watched: Watched,
) -> Holdings:
    """Puts together who stays, with his profile as the store has it now, or as it was if the store never had him."""
    rows = np.flatnonzero(stays)
    new_row = np.cumsum(stays) - 1

    def chosen(now: Sequence[str | None], before: Sequence[str | None]) -> list[str | None]:
        return [now[row] if stored.is_found[row] or row >= len(before) else before[row] for row in rows.tolist()]

    ages = stored.profiles.ages.copy()
    unknown = ~stored.is_found[: len(old.user_ids)]
    ages[: len(old.user_ids)][unknown] = old.profiles.ages[unknown]
    return Holdings(
        [user_ids[row] for row in rows],
        Profiles(
            chosen(stored.profiles.genders, old.profiles.genders),
            ages[rows].astype(np.float32),
            chosen(stored.profiles.occupations, old.profiles.occupations),
        ),
        chosen(stored.zips, old.zips),
        movies,
        replace(watched, newest=replace(watched.newest, users=new_row[watched.newest.users].astype(np.int64))),
    )


def _name(now: datetime) -> str:
    moment = now.astimezone(UTC)
    return f"{moment:%Y%m%d-%H%M%S}-{moment.microsecond // 1000:03d}"
