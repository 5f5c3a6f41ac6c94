"""Encodes a column of external ids as numbers and orders the ids. Knows no file and no rating."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.readers.raw_table import not_utf8, text_values
from trainer.readers.utf8_stream import quoted

MAX_ID_BYTES = 128
"""What the services take as an id, in UTF-8: protos/marquee/v1/feature_service.proto."""
REFUSED_ID = f"over {MAX_ID_BYTES} bytes of UTF-8 or with a control character, which no service takes"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SHOWN_LETTERS = 40


@dataclass(frozen=True, slots=True)
class EncodedColumn:
    """A column of n values as codes into its distinct texts.

    Attributes:
        codes: int32 [n]
        labels: The distinct values as trimmed text; "" stands for a missing one.
        not_utf8: True where the bytes of the row are not UTF-8; None if they all are. bool [n]
    """

    codes: NDArray[np.int32]
    labels: list[str]
    not_utf8: NDArray[np.bool_] | None


def encode_column(values: pa.Array) -> EncodedColumn:
    """Encodes text, numbers or an already dictionary-encoded column; work per row is one or two table look-ups."""
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    distinct = values.dictionary
    indices = pc.fill_null(values.indices, len(distinct)).to_numpy(zero_copy_only=False)
    text = pa.concat_arrays([text_values(distinct), pa.array([""])])
    broken_labels = not_utf8(text)
    broken = broken_labels[indices] if broken_labels.any() else None
    # Trimming may have made two values one.
    merged = text.dictionary_encode()
    code_of = merged.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    return EncodedColumn(code_of[indices], merged.dictionary.to_pylist(), broken)


def refused_ids(column: EncodedColumn) -> NDArray[np.bool_]:
    """Tells which rows have an id that could be trained on and never be published. bool [n]."""
    together = "".join(column.labels)
    if together.isascii() and together.isprintable() and max(map(len, column.labels), default=0) <= MAX_ID_BYTES:
        return np.zeros(len(column.codes), np.bool_)
    wrong = [len(label.encode()) > MAX_ID_BYTES or _CONTROL.search(label) is not None for label in column.labels]
    return np.asarray(wrong, np.bool_)[column.codes]


def shown_id(label: str) -> str:
    """Writes an id in quotes; of a long one its beginning and its length."""
    if len(label) <= _SHOWN_LETTERS:
        return quoted(label)
    return f"{quoted(label[:_SHOWN_LETTERS])}... of {len(label.encode()):,} bytes"


def ordered_ids(ids: Iterable[str]) -> list[str]:
    """Orders ids as a person expects: by number if all are whole numbers, else by text."""
    listed = list(ids)
    if all(label.isascii() and label.isdigit() for label in listed):
        return sorted(listed, key=lambda label: (int(label), label))
    return sorted(listed)
