"""Turns titles into words and words into vectors. Knows no movie id, no network and no file.

The rule is that of the published notebook: year removed, characters outside A-Z, a-z, 0-9 and white space removed (so
"WALL·E" is "walle" and "Amélie" is "amlie"), lower case, split at white space. A title's vector is the *sum* of its
words' vectors; words without a vector add nothing, so a title without known words is zeros.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from two_tower.features import Vocabulary

_YEAR = re.compile(r"\s*\(\d{4}\)\s*$")
_REMOVED = re.compile(r"[^A-Za-z0-9\s]")


def words_of(title: str) -> list[str]:
    """Returns the words of a title, in its order, repeated words repeated."""
    return _REMOVED.sub("", _YEAR.sub("", title)).lower().split()


def count_words(titles: Sequence[str], *, min_titles: int = 1) -> Vocabulary:
    """Returns the words that occur in at least `min_titles` titles, those of most titles first, then by alphabet."""
    counts = Counter(word for title in titles for word in set(words_of(title)))
    return Vocabulary.of(
        sorted((word for word, count in counts.items() if count >= min_titles), key=lambda word: (-counts[word], word))
    )


@dataclass(frozen=True, slots=True)
class WordBags:
    """The known words of M titles, laid end to end (E words in all).

    Attributes:
        rows: Rows of the word vocabulary; never 0, for unknown words are left out. int64 [E]
        offsets: Title m is rows[offsets[m]:offsets[m + 1]]. int64 [M + 1]
    """

    rows: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, titles: Sequence[str], vocabulary: Vocabulary) -> "WordBags":
        """Looks up the words of each title."""
        words = [words_of(title) for title in titles]
        rows = vocabulary.rows_of([word for each in words for word in each])  # [all words]
        lengths = np.fromiter((len(each) for each in words), np.int64, len(words))
        known = rows > 0
        title_of_word = np.repeat(np.arange(len(words)), lengths)
        counts = np.bincount(title_of_word[known], minlength=len(words))
        return cls(rows[known], np.concatenate(([0], np.cumsum(counts))).astype(np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, titles: NDArray[np.integer]) -> "WordBags":
        """Returns the bags of the given titles, by position; one may be named several times."""
        starts, lengths = self.offsets[titles], self.offsets[titles + 1] - self.offsets[titles]
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths) + np.repeat(starts, lengths)
        return WordBags(self.rows[places], offsets)

    def sums(self, table: Tensor) -> Tensor:
        """Returns the sum of each title's rows of a table [W, D], differentiable by the table. [M, D]."""
        rows = torch.from_numpy(self.rows).to(table.device)
        starts = torch.from_numpy(self.offsets[:-1]).to(table.device)
        return nn.functional.embedding_bag(rows, table, starts, mode="sum")  # [M, D]
