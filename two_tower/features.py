"""Turns users and movies into the numbers that neural towers take: the one home of preprocessing.

The rules: a word that the vocabulary lacks, and an absent one, is row 0; a missing age or year is the mean of the data
and flagged; one outside the data's range is clipped to it. Vocabularies and ranges travel in the checkpoint, so trainer
and model_service cannot differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from two_tower.movie_columns import MovieColumns
from two_tower.user_columns import Histories, Profiles

UNKNOWN = ""
"""Stands in row 0 of every vocabulary. No id or category is empty: the readers refuse such rows."""


class Vocabulary:
    """The words that have a row of their own in an embedding table."""

    def __init__(self, words: Sequence[str]) -> None:
        """Takes all words in row order, `UNKNOWN` in row 0."""
        if not words or words[0] != UNKNOWN:
            raise ValueError(f"row 0 of a vocabulary is {UNKNOWN!r}, for the unknown")
        self.words = list(words)
        self._rows = {word: row for row, word in enumerate(self.words)}

    @classmethod
    def of(cls, words: Sequence[str]) -> "Vocabulary":
        """Returns a vocabulary of these words, all different, in their order."""
        return cls([UNKNOWN, *words])

    def __len__(self) -> int:
        return len(self.words)

    def rows_of(self, words: Sequence[str | None]) -> NDArray[np.int64]:
        """Returns the row of each word, 0 where it is absent or unknown. int64 [n]."""
        rows = self._rows
        return np.fromiter((rows.get(word, 0) if word else 0 for word in words), np.int64, len(words))


@dataclass(frozen=True, slots=True)
class Range:
    """What the data says of a number.

    Attributes:
        low: Smallest value.
        high: Largest value.
        mean: Mean of the known values.
    """

    low: float
    high: float
    mean: float

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> "Range":
        """Returns the range of the values that are not NaN; of none, the range in which everything is 0."""
        known = values[~np.isnan(values)].astype(np.float64)
        if not known.size:
            return cls(0.0, 0.0, 0.0)
        return cls(float(known.min()), float(known.max()), float(known.mean()))

    def scale(self, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Maps the range to 0..1 and tells which values are missing. float32 [n] and bool [n]."""
        missing = np.isnan(values)
        width = self.high - self.low
        if width <= 0:
            return np.zeros(len(values), np.float32), missing
        filled = np.where(missing, self.mean, values)
        return ((np.clip(filled, self.low, self.high) - self.low) / width).astype(np.float32), missing


@dataclass(frozen=True, slots=True)
class UserFeatures:
    """B users as numbers.

    Attributes:
        rows: Row in the user vocabulary. int64 [B]
        genders: Row in the gender vocabulary. int64 [B]
        ages: Within 0..1. float32 [B]
        age_missing: bool [B]
        occupations: Row in the occupation vocabulary. int64 [B]
    """

    rows: NDArray[np.int64]
    genders: NDArray[np.int64]
    ages: NDArray[np.float32]
    age_missing: NDArray[np.bool_]
    occupations: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MovieFeatures:
    """M movies as numbers.

    Attributes:
        rows: Row in the movie vocabulary. int64 [M]
        genres: Share of each genre row in the movie's bag; a row sums to 1, or to 0 without genres. float32 [M, G]
        years: Within 0..1. float32 [M]
        year_missing: bool [M]
    """

    rows: NDArray[np.int64]
    genres: NDArray[np.float32]
    years: NDArray[np.float32]
    year_missing: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class FeatureEncoder:
    """Vocabularies and ranges of one data set."""

    users: Vocabulary
    movies: Vocabulary
    genders: Vocabulary
    occupations: Vocabulary
    genres: Vocabulary
    ages: Range
    years: Range

    @classmethod
    def of(
        cls, user_ids: Sequence[str], movie_ids: Sequence[str], profiles: Profiles, movies: MovieColumns
    ) -> "FeatureEncoder":
        """Learns vocabularies and ranges.

        Args:
            user_ids: Users that get a row of their own: those trained on.
            movie_ids: Movies that get a row of their own: those trained on.
            profiles: Profiles to learn genders, occupations and ages from.
            movies: Movies to learn genres and years from.
        """
        return cls(
            Vocabulary.of(user_ids),
            Vocabulary.of(movie_ids),
            Vocabulary.of(sorted({gender for gender in profiles.genders if gender})),
            Vocabulary.of(sorted({occupation for occupation in profiles.occupations if occupation})),
            Vocabulary.of(sorted({genre for genres in movies.genres for genre in genres if genre})),
            Range.of(profiles.ages),
            Range.of(movies.years),
        )

    @classmethod
    def restore(cls, vocabularies: Mapping[str, Sequence[str]], ages: Range, years: Range) -> "FeatureEncoder":
        """Rebuilds what `vocabularies` gave out.

        Raises:
            KeyError: A vocabulary is missing.
            ValueError: Row 0 of a vocabulary is not `UNKNOWN`.
        """
        users, movies, genders, occupations, genres = (
            Vocabulary(vocabularies[name]) for name in cls.vocabulary_names()
        )
        return cls(users, movies, genders, occupations, genres, ages, years)

    @staticmethod
    def vocabulary_names() -> tuple[str, ...]:
        """Returns the names under which the vocabularies are kept."""
        return ("users", "movies", "genders", "occupations", "genres")

    def vocabularies(self) -> dict[str, list[str]]:
        """Returns all vocabularies by name."""
        return {name: getattr(self, name).words for name in self.vocabulary_names()}

    def encode_users(self, user_ids: Sequence[str | None], profiles: Profiles) -> UserFeatures:
        """Returns users as numbers."""
        ages, age_missing = self.ages.scale(profiles.ages)
        return UserFeatures(
            self.users.rows_of(user_ids),
            self.genders.rows_of(profiles.genders),
            ages,
            age_missing,
            self.occupations.rows_of(profiles.occupations),
        )

    def encode_movies(self, movies: MovieColumns) -> MovieFeatures:
        """Returns movies as numbers."""
        years, year_missing = self.years.scale(movies.years)
        return MovieFeatures(
            self.movies.rows_of(movies.movie_ids), bag_shares(movies.genres, self.genres), years, year_missing
        )


def bag_shares(bags: Sequence[Sequence[str]], vocabulary: Vocabulary) -> NDArray[np.float32]:
    """Returns the share of each vocabulary row in each bag: times a table, this is the mean of the bag's rows.

    Words that the vocabulary lacks count as row 0; an empty bag is a row of zeros. float32 [n, len(vocabulary)]
    """
    lengths = np.fromiter((len(bag) for bag in bags), np.int64, len(bags))
    shares = np.zeros((len(bags), len(vocabulary)), np.float32)  # [n, V]
    positions = np.repeat(np.arange(len(bags)), lengths)  # [entries]
    np.add.at(shares, (positions, vocabulary.rows_of([word for bag in bags for word in bag])), 1.0)
    shares /= np.maximum(lengths, 1).astype(np.float32)[:, None]
    return shares


def recent_movies(histories: Histories, length: int, *, ordered: bool) -> NDArray[np.int64]:
    """Returns the movies of each history that a tower looks at, padded with -1. int64 [B, length].

    Args:
        histories: Newest first.
        length: Movies per user at most.
        ordered: True takes the newest. False, for data without times, where order says nothing, takes evenly spaced
            ones, the first included: what is first in such a history is what has the largest catalogue numbers.
    """
    sizes = np.diff(histories.offsets)  # [B]
    columns = np.arange(length)
    used = np.minimum(sizes, length)  # [B]
    inside = columns < used[:, None]  # [B, L]
    within = np.broadcast_to(columns, inside.shape)
    if not ordered:
        within = within * sizes[:, None] // np.maximum(used, 1)[:, None]  # [B, L]
    entries = np.where(inside, histories.offsets[:-1, None] + within, 0)
    if not histories.movie_numbers.size:
        return np.full(inside.shape, -1, np.int64)
    return np.where(inside, histories.movie_numbers[entries], -1).astype(np.int64)
