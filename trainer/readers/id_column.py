"""Encodes a column of external ids as numbers and orders the ids. Knows no file and no rating."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.readers.raw_table import not_utf8, text_values


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


def ordered_ids(ids: Iterable[str]) -> list[str]:
    """Orders ids as a person expects: by number if all are whole numbers, else by text."""
    listed = list(ids)
    if all(label.isascii() and label.isdigit() for label in listed):
        return sorted(listed, key=lambda label: (int(label), label))
    return sorted(listed)
