"""Users and movies become the same numbers wherever they are made."""

import numpy as np
import pytest

from two_tower.features import UNKNOWN, FeatureEncoder, Range, Vocabulary, bag_shares, recent_movies
from two_tower.movie_columns import MovieColumns
from two_tower.user_columns import Histories, Profiles


def histories_of(*lists: list[int]) -> Histories:
    numbers = [number for each in lists for number in each]
    return Histories(
        np.concatenate(([0], np.cumsum([len(each) for each in lists]))).astype(np.int64),
        np.array(numbers, np.int32),
        np.full(len(numbers), np.nan, np.float32),
        np.zeros(len(numbers), np.int64),
        np.ones(len(lists), np.bool_),
    )


def test_unknown_and_absent_words_are_row_zero() -> None:
    """What the vocabulary lacks, what is missing and what is empty share the unknown row."""
    vocabulary = Vocabulary.of(["b", "a"])

    assert vocabulary.rows_of(["a", "zebra", None, "", "b"]).tolist() == [2, 0, 0, 0, 1]


def test_a_vocabulary_without_the_unknown_row_is_refused() -> None:
    """A checkpoint from elsewhere that gives row 0 to a word is found out."""
    with pytest.raises(ValueError, match="row 0"):
        Vocabulary(["a"])


def test_numbers_are_scaled_to_the_range_of_the_data() -> None:
    """Lowest is 0, highest is 1, beyond is clipped, missing is the mean and flagged."""
    scaled, missing = Range.of(np.array([10, 20, 30, np.nan], np.float32)).scale(
        np.array([10, 30, 25, 99, -5, np.nan], np.float32)
    )

    assert scaled.tolist() == [0.0, 1.0, 0.75, 1.0, 0.0, 0.5]
    assert missing.tolist() == [False] * 5 + [True]


@pytest.mark.parametrize("values", [[], [np.nan], [7.0]])
def test_numbers_without_a_range_become_zero(values: list[float]) -> None:
    """Data without ages, or with one age only, divides nothing by zero."""
    scaled, _ = Range.of(np.array(values, np.float32)).scale(np.array([5, np.nan], np.float32))

    assert scaled.tolist() == [0.0, 0.0]


def test_bag_shares_times_a_table_is_the_mean_of_its_rows() -> None:
    """The mean is over the words of the bag; unknown words count as row 0, an empty bag is zeros."""
    shares = bag_shares([("a", "b"), (), ("a", "zebra", "zebra")], Vocabulary.of(["a", "b"]))

    assert shares == pytest.approx(np.array([[0, 0.5, 0.5], [0, 0, 0], [2 / 3, 1 / 3, 0]]))


def test_recent_movies_are_the_newest() -> None:
    """An ordered history gives its head, padded with -1."""
    found = recent_movies(histories_of([5, 4, 3, 2], [], [9]), 3, ordered=True)

    assert found.tolist() == [[5, 4, 3], [-1, -1, -1], [9, -1, -1]]


def test_movies_of_a_history_without_order_are_evenly_spaced() -> None:
    """Where order says nothing but the catalogue number, the choice does not prefer large numbers."""
    found = recent_movies(histories_of(list(range(10, 0, -1)), [7, 6]), 5, ordered=False)

    assert found.tolist() == [[10, 8, 6, 4, 2], [7, 6, -1, -1, -1]]


def test_vocabularies_and_ranges_rebuild_the_encoder(movies: MovieColumns, profiles: Profiles) -> None:
    """What a checkpoint keeps is all that preprocessing needs."""
    encoder = FeatureEncoder.of(["u1"], ["m2"], profiles, movies)

    again = FeatureEncoder.restore(encoder.vocabularies(), encoder.ages, encoder.years)

    users, users_again = (
        encoder.encode_users(["u1", None, "x"], profiles),
        again.encode_users(["u1", None, "x"], profiles),
    )
    assert users.rows.tolist() == users_again.rows.tolist() == [1, 0, 0]
    assert users.genders.tolist() == users_again.genders.tolist() == [2, 1, 0]
    assert users.ages.tolist() == users_again.ages.tolist() == [0.0, 1.0, 0.5]
    assert again.encode_movies(movies).rows.tolist() == [0, 0, 1, 0]
    assert encoder.genres.words == [UNKNOWN, "Comedy", "Crime", "Drama", "Horror"]
