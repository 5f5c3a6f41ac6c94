"""A Parquet file with one byte that is not as it was written is read as it stands or refused, whole or by batches."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.errors import DataError
from trainer.readers.dataset_reader import read_dataset

PLACES = ("ratings.parquet", "interactions/1.parquet")


def written(users: list[str]) -> bytes:
    stream = BytesIO()
    table = pa.table({"user": users, "movie": ["1", "2", "1"], "rating": [4.0, 3.5, None], "time": [1, 2, 3]})
    pq.write_table(table, stream, compression="NONE", use_dictionary=False, write_statistics=False, store_schema=False)
    return stream.getvalue()


@pytest.fixture
def refusal_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes], str]:
    """Reads bytes as a data set and returns what a person is told."""
    monkeypatch.setenv("MARQUEE_CACHE", str(tmp_path / "cache"))

    def refusal_of(place: str, content: bytes) -> str:
        path = tmp_path / "data" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        with pytest.raises(DataError) as refusal:
            read_dataset(tmp_path / "data")
        return str(refusal.value)

    return refusal_of


@pytest.mark.parametrize("place", PLACES)
def test_a_column_name_that_is_not_text_is_told(refusal_of: Callable[[str, bytes], str], place: str) -> None:
    """The name stands in the footer."""
    content = written(["a", "a", "b"]).replace(b"movie", b"mov\xffe")

    told = refusal_of(place, content)

    assert Path(place).name in told
    assert "not a readable Parquet file" in told


@pytest.mark.parametrize("place", PLACES)
def test_an_id_that_is_not_utf8_is_told(refusal_of: Callable[[str, bytes], str], place: str) -> None:
    """Parquet promises UTF-8 in a column of text."""
    content = written(["anna", "anna", "bert"]).replace(b"bert", b"b\xffrt")

    told = refusal_of(place, content)

    assert "cannot be read" in told
    assert "UTF8" in told


@pytest.mark.parametrize("place", PLACES)
def test_values_that_end_too_early_are_told(refusal_of: Callable[[str, bytes], str], place: str) -> None:
    """A length in front of an id that reaches beyond the page."""
    content = written(["anna", "anna", "bert"]).replace(b"\4\0\0\0bert", b"\xff\xff\0\0bert")

    told = refusal_of(place, content)

    assert "cannot be read" in told
    assert "write the file again" in told


@pytest.mark.parametrize("place", PLACES)
def test_a_footer_that_counts_other_rows_is_told(refusal_of: Callable[[str, bytes], str], place: str) -> None:
    """The file's own number of rows stands after its columns: 6 is three rows in Thrift's compact integers."""
    sound = written(["a", "a", "b"])
    footer = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    count = sound.index(b"\x16\x06\x19\x1c", footer)

    told = refusal_of(place, sound[: count + 1] + b"\x04" + sound[count + 2 :])

    assert "differ in the number of rows" in told


@pytest.mark.parametrize("place", PLACES)
def test_a_flipped_bit_ends_in_data_or_a_refusal(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third byte of a file, one bit of it: nothing but `DataError` comes out."""
    monkeypatch.setenv("MARQUEE_CACHE", str(tmp_path / "cache"))
    sound = written(["a", "a", "b"])
    path = tmp_path / "data" / place
    path.parent.mkdir(parents=True)
    refused = 0

    for number in range(0, len(sound), 3):
        spoilt = bytearray(sound)
        spoilt[number] ^= 1 << number % 8
        path.write_bytes(spoilt)
        try:
            read_dataset(tmp_path / "data")
        except DataError:
            refused += 1

    assert len(sound) / 12 < refused < len(sound) / 3
