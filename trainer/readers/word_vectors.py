"""Reads word vectors in GloVe's text format: a word and its numbers a line. Knows no title and no model.

https://nlp.stanford.edu/projects/glove: no header, single spaces, the most frequent words first. The header line of
word2vec's text format ("400000 25") is passed over. A few published files have words that hold spaces, so numbers are
counted from the end of the line.
"""

import gzip
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.errors import DataError

MOST_FREQUENT = 20_000
"""Words kept beside those of the data's titles, so that a movie of next year finds common words: 2 MB at 25 numbers."""


@dataclass(frozen=True, slots=True)
class WordVectors:
    """Words and their vectors.

    Attributes:
        words: All different.
        table: Row = position of the word. float32 [W, D]
    """

    words: list[str]
    table: NDArray[np.float32]


def read_word_vectors(path: Path, wanted: Collection[str], *, most_frequent: int = MOST_FREQUENT) -> WordVectors:
    """Reads the vectors of the wanted words and of the first `most_frequent` lines; of a repeated word, the first.

    Args:
        path: A text file, or one compressed by gzip (.gz).
        wanted: Words to look for wherever they stand.
        most_frequent: How many of the first lines are kept, wanted or not.

    Raises:
        DataError: It cannot be read, holds no vector, or a line of it holds another number of numbers than the first.
    """
    vectors: dict[str, NDArray[np.float32]] = {}
    looked_for = frozenset(wanted)
    width = 0
    num_kept = 0
    for number, line in enumerate(_lines(path), start=1):
        parts = line.rstrip("\n ").split(" ")
        if number == 1 and len(parts) == 2:
            continue
        width = width or len(parts) - 1
        word = " ".join(parts[:-width]) if width else ""
        if not word:
            raise DataError(
                f"{path}, line {number:,}: a word and {width or 'some'} numbers are expected, separated by single "
                f"spaces, and there are {len(parts) - 1} numbers; is it word vectors in GloVe's text format?"
            )
        if word in vectors or (num_kept >= most_frequent and word not in looked_for):
            continue
        vectors[word] = _numbers(path, number, parts[-width:])
        num_kept += 1
    if not vectors:
        raise DataError(f"{path}: no word vectors in it; GloVe's text format has a word and its numbers on each line")
    return WordVectors(list(vectors), np.stack(list(vectors.values())))


def _lines(path: Path) -> Iterator[str]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", errors="replace", newline="\n") as file:
            yield from file
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as word vectors: {error}") from error


def _numbers(path: Path, line: int, texts: list[str]) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):
            values = np.array(texts, np.float32)
    except ValueError as error:
        raise DataError(f"{path}, line {line:,}: {error}; numbers are expected after the word") from error
    if not np.isfinite(values).all():
        raise DataError(f"{path}, line {line:,}: holds a number that is not finite")
    return values
