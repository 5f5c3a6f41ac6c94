"""Holds what is worth seeing of a trained model, and its JSON form. Knows figures and titles; draws nothing.

report.json lies beside a checkpoint, so that a terminal shows the same lists as the page without data or model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import DataError
from two_tower import strict_json

FINDINGS_FILE = "report.json"

_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Band:
    """Held-out ratings that have something in common.

    Attributes:
        name: What, for example "5 to 9".
        num_ratings: How many.
        rmse: Of their predictions, in stars.
        bias: Mean of prediction minus rating, in stars.
        covered: Share of them within the 80% interval, None if there are no intervals.
    """

    name: str
    num_ratings: int
    rmse: float
    bias: float
    covered: float | None


@dataclass(frozen=True, slots=True)
class Reliability:
    """Held-out ratings that were predicted about alike: a calibrated model is right about them on average."""

    predicted: float
    actual: float
    num_ratings: int


@dataclass(frozen=True, slots=True)
class Interval:
    """How many ratings should lie within an interval, and how many do; both are shares."""

    nominal: float
    actual: float


@dataclass(frozen=True, slots=True)
class Stranger:
    """How well somebody is answered of whom only so many events are known."""

    known: int
    num_users: int
    rmse: float | None
    ndcg_at_10: float | None


@dataclass(frozen=True, slots=True)
class MapPoint:
    """A movie on the map.

    Attributes:
        title: With its year, as the data has it.
        genre: Its first, "" if it has none.
        num_ratings: Training rows.
        x: Of t-SNE; only distances between near neighbours mean anything.
        y: The same.
    """

    title: str
    genre: str
    num_ratings: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class BiasedMovie:
    """A movie and the stars by which somebody unknown would rate it above or below the average movie."""

    title: str
    stars: float
    num_ratings: int


@dataclass(frozen=True, slots=True)
class GenreBias:
    """A genre and the mean stars of its movies above or below the average movie."""

    genre: str
    stars: float
    num_movies: int


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A movie near another one and the cosine between them."""

    title: str
    cosine: float


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """A movie and those nearest to it, nearest first."""

    title: str
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is worth seeing; what a model or data set does not have is empty.

    Attributes:
        title: Model and data.
        facts: Name and value, for a person.
        curves: Figure → (share of the training that was done, value).
        reliability: By predicted rating, ascending.
        intervals: By nominal share, ascending; empty if the model has no deviations.
        by_known: By number of the user's known ratings.
        by_popularity: By number of the movie's training ratings.
        strangers: By number of events that are known, ascending.
        best_movies: Highest bias first.
        worst_movies: Lowest bias first.
        genre_biases: Highest first.
        genres: Of the table of similarities.
        genre_cosines: Row and column in the order of `genres`.
        neighbourhoods: Of the movies with the most ratings, most rated first.
        movie_map: The movies with the most ratings.
    """

    title: str
    facts: tuple[tuple[str, ...], ...]
    curves: dict[str, tuple[tuple[float, ...], ...]]
    reliability: tuple[Reliability, ...]
    intervals: tuple[Interval, ...]
    by_known: tuple[Band, ...]
    by_popularity: tuple[Band, ...]
    strangers: tuple[Stranger, ...]
    best_movies: tuple[BiasedMovie, ...]
    worst_movies: tuple[BiasedMovie, ...]
    genre_biases: tuple[GenreBias, ...]
    genres: tuple[str, ...]
    genre_cosines: tuple[tuple[float, ...], ...]
    neighbourhoods: tuple[Neighbourhood, ...]
    movie_map: tuple[MapPoint, ...]


def dump(findings: Findings) -> bytes:
    """Returns the JSON form."""
    return json.dumps(strict_json.encode(findings), ensure_ascii=False, allow_nan=False).encode()


def read(folder: Path) -> Findings:
    """Reads what lies beside a checkpoint.

    Raises:
        DataError: There is nothing, or it is damaged.
    """
    path = folder / FINDINGS_FILE
    if not path.exists():
        raise DataError(f"{folder.name} was trained without a report; give --data to look at the model itself")
    problems: list[str] = []
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path} is larger than {_MAX_BYTES} bytes")
        fields = json.loads(path.read_text(encoding="utf-8"))
        findings = strict_json.decode(Findings, fields, "report", problems)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if problems or not isinstance(fields, Mapping):
        raise DataError(f"{path} is damaged: {'; '.join(problems[:3])}")
    assert isinstance(findings, Findings)
    if any(len(row) != len(findings.genres) for row in (findings.genre_cosines, *findings.genre_cosines)):
        raise DataError(f"{path} is damaged: report.genre_cosines has other rows and columns than report.genres")
    return findings
