"""Checks the parts that a model is rebuilt from, and names each that does not fit. Knows no model."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from two_tower import strict_json
from two_tower.errors import MismatchedCheckpointError

T = TypeVar("T")


def decode_config(kind: type[T], config: Mapping[str, Any]) -> T:
    """Returns a model's config as its dataclass.

    Raises:
        MismatchedCheckpointError: A field is missing, superfluous or of another type.
    """
    problems: list[str] = []
    decoded = strict_json.decode(kind, dict(config), "config", problems)
    if problems:
        raise MismatchedCheckpointError(problems)
    assert isinstance(decoded, kind)
    return decoded


def require_vocabularies(vocabularies: Mapping[str, Sequence[str]], names: Sequence[str]) -> None:
    """Checks that there are exactly these vocabularies and that no word stands in one twice.

    Raises:
        MismatchedCheckpointError: There are others, or fewer, or a word is repeated.
    """
    problems = [f"vocabulary {name!r} is missing" for name in names if name not in vocabularies]
    problems += [f"vocabulary {name!r} is not one of this model" for name in vocabularies if name not in names]
    problems += [
        f"vocabulary {name!r} repeats a word" for name, words in vocabularies.items() if len(set(words)) != len(words)
    ]
    if problems:
        raise MismatchedCheckpointError(problems)


def require_tensors(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, torch.dtype] | None = None,
) -> None:
    """Checks that there are exactly these tensors in exactly these shapes; float32 where `dtypes` does not say.

    Raises:
        MismatchedCheckpointError: A tensor is missing, superfluous or misshapen.
    """
    problems = [f"tensor {name!r} is missing" for name in shapes if name not in tensors]
    problems += [f"tensor {name!r} is not one of this model" for name in tensors if name not in shapes]
    for name, shape in shapes.items():
        if name not in tensors:
            continue
        dtype = (dtypes or {}).get(name, torch.float32)
        if tuple(tensors[name].shape) != shape:
            problems.append(f"tensor {name!r} has shape {list(tensors[name].shape)}; {list(shape)} is needed")
        if tensors[name].dtype != dtype:
            problems.append(f"tensor {name!r} is {tensors[name].dtype}; {dtype} is needed")
    if problems:
        raise MismatchedCheckpointError(problems)
