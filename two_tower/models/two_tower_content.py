"""Turns what is known of a movie, apart from events, into weighted words of one table. Knows no event and no weight.

Genres, title words, the values of each further bag and "released in year Y or later" are all words; a movie is a bag of
them, each kind weighing 1/√(words of that kind) (a factorisation machine's usual norm, Rendle 2012, section 3.2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from two_tower.features import Range, Vocabulary
from two_tower.models.marquee_content import YEAR_THRESHOLDS
from two_tower.movie_columns import MovieColumns
from two_tower.title_words import words_of

_BAG = "bag:"
"""Before a bag's name, the name of its vocabulary."""


@dataclass(frozen=True, slots=True)
class WeightedWords:
    """The known words of M movies, laid end to end (E in all).

    Attributes:
        rows: Rows of the content table. int64 [E]
        offsets: Movie m is entries offsets[m]:offsets[m + 1]. int64 [M + 1]
        weights: float32 [E]
    """

    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, movies: NDArray[np.integer]) -> "WeightedWords":
        """Returns the bags of the given movies, by position."""
        lengths = self.offsets[movies + 1] - self.offsets[movies]
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - self.offsets[movies], lengths)
        return WeightedWords(self.rows[places], offsets, self.weights[places])


@dataclass(frozen=True, slots=True)
class ContentWords:
    """The words that have a row in the content table: year flags, then genres, title words and each bag's values.

    Title words come last, so that a table of given title vectors can stand at the end.
    """

    genres: Vocabulary
    bags: Mapping[str, Vocabulary]
    title_words: Vocabulary
    years: Range

    @classmethod
    def of(cls, movies: MovieColumns, bag_names: Sequence[str], title_words: Vocabulary) -> "ContentWords":
        """Learns genres and bag values; a value of a single movie tells nothing and gets no row."""
        genres = Vocabulary.of(sorted({genre for genres in movies.genres for genre in genres if genre}))
        bags = {name: _repeated(movies.bags.get(name, ())) for name in bag_names}
        return cls(genres, bags, title_words, Range.of(movies.years))

    @classmethod
    def restore(
        cls, vocabularies: Mapping[str, Sequence[str]], bag_names: Sequence[str], years: Range
    ) -> "ContentWords":
        """Rebuilds what `vocabularies` gave out."""
        bags = {name: Vocabulary(vocabularies[_BAG + name]) for name in bag_names}
        return cls(Vocabulary(vocabularies["genres"]), bags, Vocabulary(vocabularies["title_words"]), years)

    @staticmethod
    def vocabulary_names(bag_names: Sequence[str]) -> tuple[str, ...]:
        """Returns the names under which the vocabularies are kept, genres left out: the encoder keeps those."""
        return ("title_words", *(_BAG + name for name in bag_names))

    def vocabularies(self) -> dict[str, list[str]]:
        """Returns the vocabularies by name, genres left out."""
        return {
            "title_words": self.title_words.words,
            **{_BAG + name: vocabulary.words for name, vocabulary in self.bags.items()},
        }

    @property
    def num_trained(self) -> int:
        """Rows of the content table before the title words."""
        own = len(YEAR_THRESHOLDS) + 1 + len(self.genres) - 1
        return own + sum(len(vocabulary) - 1 for vocabulary in self.bags.values())

    @property
    def num_title_words(self) -> int:
        """Title words with a row."""
        return len(self.title_words) - 1

    def encode(self, movies: MovieColumns) -> WeightedWords:
        """Looks up the words of each movie; unknown ones are left out. A missing year is the mean year, flagged."""
        missing = np.isnan(movies.years)
        years = np.where(missing, self.years.mean, movies.years)
        reached = np.concatenate([years[:, None] >= YEAR_THRESHOLDS, missing[:, None]], axis=1)  # [M, thresholds + 1]
        movie, flag = np.nonzero(reached)
        parts = [(movie, flag, np.full(len(movie), len(YEAR_THRESHOLDS) ** -0.5))]
        first = len(YEAR_THRESHOLDS) + 1
        columns: list[tuple[Vocabulary, Sequence[Sequence[str]]]] = [(self.genres, movies.genres)]
        empty: Sequence[Sequence[str]] = [()] * len(movies)
        columns += [(vocabulary, movies.bags.get(name, empty)) for name, vocabulary in self.bags.items()]
        if self.num_title_words:
            columns.append((self.title_words, [words_of(title) for title in movies.titles]))
        for vocabulary, bags in columns:
            owner, rows = _known_words(bags, vocabulary)
            counts = np.bincount(owner, minlength=len(movies))
            parts.append((owner, first + rows - 1, counts[owner] ** -0.5))
            first += len(vocabulary) - 1
        owners, rows, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(owners, kind="stable")
        offsets = np.concatenate(([0], np.cumsum(np.bincount(owners, minlength=len(movies)))))
        return WeightedWords(rows[order].astype(np.int64), offsets.astype(np.int64), weights[order].astype(np.float32))


def _known_words(bags: Sequence[Sequence[str]], vocabulary: Vocabulary) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    lengths = np.fromiter((len(bag) for bag in bags), np.int64, len(bags))
    rows = vocabulary.rows_of([word for bag in bags for word in bag])
    owner = np.repeat(np.arange(len(bags)), lengths)
    return owner[rows > 0], rows[rows > 0]


def _repeated(bags: Sequence[Sequence[str]]) -> Vocabulary:
    counts: dict[str, int] = {}
    for bag in bags:
        for value in set(bag):
            counts[value] = counts.get(value, 0) + 1
    return Vocabulary.of(sorted(value for value, count in counts.items() if value and count > 1))
