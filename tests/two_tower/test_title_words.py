"""Titles become words, and words sums of vectors, as the published notebook made them."""

import numpy as np
import pytest
import torch

from two_tower.features import Vocabulary
from two_tower.title_words import WordBags, count_words, words_of


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("Toy Story (1995)", ["toy", "story"]),
        ("Alien³: Director's Cut", ["alien", "directors", "cut"]),
        ("2001: A Space Odyssey", ["2001", "a", "space", "odyssey"]),
        ("Amélie (2001) ", ["amlie"]),
        ("New York, New York", ["new", "york", "new", "york"]),
        ("…", []),
        ("", []),
    ],
)
def test_a_title_is_cleaned_and_split(title: str, words: list[str]) -> None:
    """Year and signs go, letters become small; a number that is no year stays; accented letters go, as they did."""
    assert words_of(title) == words


def test_the_vocabulary_counts_titles_not_occurrences() -> None:
    """A word that one title repeats stands in one title; ties are in the order of the alphabet."""
    vocabulary = count_words(["New York, New York", "Old York", "Old Boys"])

    assert vocabulary.words == ["", "old", "york", "boys", "new"]
    assert count_words(["New York, New York", "Old York"], min_titles=2).words == ["", "york"]


def test_a_title_is_the_sum_of_its_known_words() -> None:
    """Repeated words count as often as they occur, unknown words and empty titles add nothing."""
    table = torch.tensor([[100.0, 100.0], [1.0, 0.0], [0.0, 2.0]])
    bags = WordBags.of(["New York, New York", "nowhere", "", "York"], Vocabulary.of(["new", "york"]))

    assert bags.sums(table).tolist() == [[2, 4], [0, 0], [0, 0], [0, 2]]
    assert bags.take(np.array([3, 1, 0, 3])).sums(table).tolist() == [[0, 2], [0, 0], [2, 4], [0, 2]]
    assert WordBags.of([], Vocabulary.of(["new"])).sums(table).shape == (0, 2)


def test_word_vectors_can_be_learnt() -> None:
    """The gradient of a word counts how often titles name it."""
    table = torch.zeros(3, 2, requires_grad=True)

    WordBags.of(["new york new"], Vocabulary.of(["new", "york"])).sums(table).sum().backward()

    assert table.grad is not None
    assert table.grad[:, 0].tolist() == [0, 2, 1]
