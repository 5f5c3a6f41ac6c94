"""Lays out what the towers take, by user and by table row, before training begins. Knows data; knows no gradient."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.dataset import Dataset, Interactions
from trainer.errors import DataError
from trainer.fits.two_tower_options import ATTENTION_HEADS, ATTENTION_SIZE, Options
from trainer.readers.word_vectors import read_word_vectors
from two_tower.features import FeatureEncoder, Vocabulary
from two_tower.models.two_tower_config import TwoTowerConfig
from two_tower.models.two_tower_content import ContentWords, WeightedWords
from two_tower.title_words import count_words, words_of

MOVIE_DAMPING = 3.0
"""Ratings that a movie's mean is pulled to the global mean by: the recipe's damped biases."""

MIN_TITLES = 2
"""A title word of a single movie tells nothing of another."""

_ROWS_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Statistics:
    """What one pass over the training rows gives.

    Attributes:
        mean: Mean rating, 0 without ratings.
        deviation: Standard deviation of a rating about its movie's mean.
        user_counts: Rows of each user row. int64 [U]
        movie_counts: Rows of each movie row. int64 [M]
        rating_counts: Ratings of each movie row. int64 [M]
        rating_sums: Sum of (rating - mean) of each movie row. float64 [M]
    """

    mean: float
    deviation: float
    user_counts: NDArray[np.int64]
    movie_counts: NDArray[np.int64]
    rating_counts: NDArray[np.int64]
    rating_sums: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Interactions, num_users: int, num_movies: int) -> "Statistics":
        """Counts; holds no more than a million rows at once."""
        user_counts, movie_counts = np.zeros(num_users, np.int64), np.zeros(num_movies, np.int64)
        counts, sums, squares = np.zeros(num_movies, np.int64), np.zeros(num_movies), np.zeros(num_movies)
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            some = slice(first, first + _ROWS_AT_ONCE)
            movies, ratings = rows.movie_rows[some], rows.ratings[some].astype(np.float64)
            user_counts += np.bincount(rows.user_rows[some], minlength=num_users)
            movie_counts += np.bincount(movies, minlength=num_movies)
            rated = ~np.isnan(ratings)
            counts += np.bincount(movies[rated], minlength=num_movies)
            sums += np.bincount(movies[rated], ratings[rated], num_movies)
            squares += np.bincount(movies[rated], ratings[rated] ** 2, num_movies)
        total = int(counts.sum())
        if not total:
            return cls(0.0, 1.0, user_counts, movie_counts, counts, sums)
        mean = float(sums.sum() / total)
        within = float((squares - sums**2 / np.maximum(counts, 1)).sum()) / total
        return cls(mean, max(within, 1e-4) ** 0.5, user_counts, movie_counts, counts, sums - counts * mean)

    @property
    def movie_means(self) -> NDArray[np.float32]:
        """Damped mean rating of each movie row, less the global mean. float32 [M]."""
        return (self.rating_sums / (self.rating_counts + MOVIE_DAMPING)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class TrainingFeatures:
    """What the towers take. Letters: U user rows, M movie rows of the data, T rows of the movie tables.

    Attributes:
        encoder: Vocabularies of the users and movies that have training rows.
        words: Vocabularies of content.
        content: Words of each row of the movie tables, of none for row 0.
        profile_rows: Rows of id, gender, occupation. int64 [U, 3]
        ages: Age and a flag "unknown". float32 [U, 2]
        table_rows: Row in the movie tables of each movie row, 0 where nobody watched it. int64 [M]
        frequencies: Share of the training rows, by table row. float32 [T]
        rating_counts: Ratings, by table row. float32 [T]
        movie_means: Damped mean rating less the global mean, by table row. float32 [T]
        title_vectors: Given vectors of the title words; None where those are trained. float32 [words, width]
    """

    encoder: FeatureEncoder
    words: ContentWords
    content: WeightedWords
    profile_rows: NDArray[np.int64]
    ages: NDArray[np.float32]
    table_rows: NDArray[np.int64]
    frequencies: NDArray[np.float32]
    rating_counts: NDArray[np.float32]
    movie_means: NDArray[np.float32]
    title_vectors: NDArray[np.float32] | None

    @classmethod
    def of(cls, data: Dataset, statistics: Statistics, options: Options) -> "TrainingFeatures":
        """Learns vocabularies and encodes all users and movies.

        Raises:
            DataError: A bag is asked for that the movies do not have.
        """
        movies = data.movies
        watched = np.flatnonzero(statistics.movie_counts)
        encoder = FeatureEncoder.of(
            [data.user_ids[int(row)] for row in np.flatnonzero(statistics.user_counts)],
            [movies.movie_ids[int(row)] for row in watched],
            data.profiles,
            movies,
        )
        titles, title_vectors = _title_words(movies.titles, options)
        words = ContentWords.of(movies, bag_names(data, options), titles)
        content = words.encode(movies).take(watched)
        unknown_first = WeightedWords(content.rows, np.concatenate(([0], content.offsets)), content.weights)
        users = encoder.encode_users(data.user_ids, data.profiles)

        def by_table_row(column: NDArray[np.generic]) -> NDArray[np.float32]:
            return np.concatenate(([0], column[watched])).astype(np.float32)

        counts = statistics.movie_counts
        return cls(
            encoder,
            words,
            unknown_first,
            np.stack([users.rows, users.genders, users.occupations], axis=-1),
            np.stack([users.ages, users.age_missing.astype(np.float32)], axis=-1),
            encoder.movies.rows_of(movies.movie_ids),
            by_table_row(counts / max(1, int(counts.sum()))),
            by_table_row(statistics.rating_counts),
            by_table_row(statistics.movie_means),
            title_vectors,
        )


def _title_words(titles: Sequence[str], options: Options) -> tuple[Vocabulary, NDArray[np.float32] | None]:
    if not options.titles:
        return Vocabulary.of([]), None
    if not options.title_vectors:
        return count_words(titles, min_titles=MIN_TITLES), None
    read = read_word_vectors(Path(options.title_vectors), {word for title in titles for word in words_of(title)})
    return Vocabulary.of(read.words), read.table


def bag_names(data: Dataset, options: Options) -> tuple[str, ...]:
    """Returns the bags that the movie tower reads.

    Raises:
        DataError: One is asked for that the movies do not have.
    """
    present = tuple(sorted(data.movies.bags))
    if options.bags.strip() == "*":
        return present
    asked = tuple(dict.fromkeys(name.strip() for name in options.bags.split(",") if name.strip()))
    absent = [name for name in asked if name not in present]
    if absent:
        raise DataError(
            f"bags: the movies of {data.name} have no column {', '.join(map(repr, absent))}; they have "
            f"{', '.join(map(repr, present)) or 'none'} (--movie-bag NAME reads one)"
        )
    return asked


def make_config(data: Dataset, statistics: Statistics, features: TrainingFeatures, options: Options) -> TwoTowerConfig:
    """Returns the shape of the network."""
    return TwoTowerConfig(
        scale=data.scale,
        mean_rating=statistics.mean,
        rating_deviation=statistics.deviation,
        ranking_size=options.ranking_size,
        rating_size=options.rating_size,
        hidden_size=options.hidden_size,
        id_size=options.id_size,
        attention_size=ATTENTION_SIZE if options.attention else 0,
        attention_heads=ATTENTION_HEADS,
        history_length=options.history_length,
        ordered=data.has_times,
        recency=options.recency,
        history_ratings=options.history_ratings and data.scale is not None,
        movie_means=options.movie_means and data.scale is not None,
        user_scale=options.user_scale and data.scale is not None,
        title_size=0 if features.title_vectors is None else features.title_vectors.shape[1],
        bags=tuple(features.words.bags),
        ages=features.encoder.ages,
        years=features.encoder.years,
    )


def as_tensor(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Returns the array on the device."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
