"""Word vectors are read from GloVe's text format, and what is no such file is refused."""

import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest

from trainer.errors import DataError
from trainer.readers.word_vectors import read_word_vectors


def written(folder: Path, text: str) -> Path:
    path = folder / "vectors.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_wanted_and_frequent_words_are_kept(tmp_path: Path) -> None:
    """The first lines hold the most frequent words; beyond them only what is wanted is kept."""
    path = written(tmp_path, "the 1 2\nof 3 4\nrare -5 6e-1\nunasked 7 8\n")

    vectors = read_word_vectors(path, {"rare", "absent"}, most_frequent=1)

    assert vectors.words == ["the", "rare"]
    assert vectors.table == pytest.approx(np.array([[1, 2], [-5, 0.6]]))


def test_headers_repeats_and_words_with_spaces_are_understood(tmp_path: Path) -> None:
    """word2vec's header is no word, the first of a repeated word counts, and a word may hold spaces."""
    path = written(tmp_path, "3 2\nthe 1 2\n. . 3 4\nthe 9 9\n")

    assert read_word_vectors(path, []).words == ["the", ". ."]
    assert read_word_vectors(path, []).table.tolist() == [[1, 2], [3, 4]]


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    """Published files come compressed."""
    path = tmp_path / "vectors.txt.gz"
    path.write_bytes(gzip.compress(b"the 1 2\n"))

    assert read_word_vectors(path, []).words == ["the"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no word vectors"),
        ("the 1 2\nof 3\n", "line 2: a word and 2 numbers are expected"),
        ("the 1 2\nof x 3\n", "line 2: could not convert"),
        ("the 1 nan\n", "line 1: holds a number that is not finite"),
        ("word\n", "line 1: a word and some numbers are expected"),
    ],
)
def test_what_is_no_vector_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """The message names the line and what would be right."""
    with pytest.raises(DataError, match=message):
        read_word_vectors(written(tmp_path, text), [])


def test_damage_of_a_compressed_file_is_told(tmp_path: Path) -> None:
    """Wherever it is: cut off, or with another byte at any place."""
    whole = gzip.compress("".join(f"word{row} {row} 2\n" for row in range(300)).encode())
    path = tmp_path / "vectors.gz"
    told = []
    for place in range(0, len(whole), 11):
        for damaged in (whole[:place], bytes([*whole[:place], whole[place] ^ 0x55, *whole[place + 1 :]])):
            path.write_bytes(damaged)
            try:
                read_word_vectors(path, [])
            except DataError as error:
                told.append(str(error))

    assert len(told) > len(whole) / 11
    assert all(str(path) in message for message in told)


def test_a_number_beyond_single_precision_is_refused_in_silence(tmp_path: Path) -> None:
    """It has no finite value; the error alone says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="line 1: holds a number that is not finite"):
            read_word_vectors(written(tmp_path, "the 1 1e39\n"), [])


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    """So is one that is no text at all but says .gz."""
    with pytest.raises(DataError, match="cannot be read"):
        read_word_vectors(tmp_path / "absent.txt", [])
    (tmp_path / "broken.gz").write_bytes(b"not compressed")
    with pytest.raises(DataError, match="cannot be read"):
        read_word_vectors(tmp_path / "broken.gz", [])
