"""Writes and reads one checkpoint folder: weights, popularity (both safetensors), vocabularies.json, manifest.json."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from two_tower import golden as golden_answers
from two_tower import manifest as manifest_form
from two_tower.errors import (
    FAILURES_OF_A_MODEL,
    CheckpointError,
    CorruptCheckpointError,
    ForeignCheckpointError,
    MismatchedCheckpointError,
    RegistryError,
    SelfCheckError,
    UnknownModelError,
)
from two_tower.golden import Golden
from two_tower.manifest import Manifest, TrainingRecord
from two_tower.models import model_class
from two_tower.popularity import Popularity, PopularityRecord
from two_tower.serving import Model

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CorruptCheckpointError",
    "ForeignCheckpointError",
    "MismatchedCheckpointError",
    "SelfCheckError",
    "load",
    "read_manifest",
    "self_check",
    "write",
]

WEIGHTS = "weights.safetensors"
VOCABULARIES = "vocabularies.json"
MANIFEST = "manifest.json"
POPULARITY = "popularity.safetensors"

_MAX_MANIFEST_BYTES = 16 << 20
_MAX_VOCABULARIES_BYTES = 4 << 30
_ABANDONED_AFTER_S = 24 * 3600
"""No checkpoint is written for so long, whatever its size and disk."""
_SCORES = "scores"
_MAX_HEADER_BYTES = 100 << 20
"""The format's own limit: https://github.com/huggingface/safetensors, "Format"."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        version: Its name in the registry.
        model: The model, on the device that was asked for.
        manifest: What it says about itself.
        popularity: What ranks for users of whom nothing is known; None where the model does it.
    """

    version: str
    model: Model
    manifest: Manifest
    popularity: Popularity | None = None

    def popularity_over(self, movie_ids: Sequence[str]) -> NDArray[np.float32] | None:
        """Returns how popular each movie of a catalogue is; None where that is left to the model. float32 [M]."""
        if self.popularity is None:
            return None
        return self.popularity.over(self.model.vocabularies()["movies"], movie_ids)


def write(
    parent: Path,
    version: str,
    model: Model,
    record: TrainingRecord,
    golden: Golden,
    beside: Mapping[str, bytes] | None = None,
    popularity: Popularity | None = None,
) -> Path:
    """Writes a checkpoint so that at no moment a half-written one can be seen, also over a power loss.

    Args:
        parent: The registry's folder; made if it is not there.
        version: Name of the new folder.
        model: The model.
        record: What the trainer knows about it.
        golden: Synthetic users and their answers.
        beside: Further files by name, for people: nothing that serves reads them, and no hash in the manifest covers
            them, so that one may be deleted.
        popularity: What ranks for users of whom nothing is known.

    Returns:
        The new folder.

    Raises:
        CheckpointError: The folder exists, or the model holds numbers that are not finite.
        RegistryError: The folder cannot be written, for example because the disk is full.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.tensors().items()}
    _refuse_not_finite(tensors)
    folder = parent / version
    if folder.exists():
        raise CheckpointError(f"{folder} exists; a checkpoint is never overwritten")
    aside = parent / f".{version}.partial-{os.getpid()}"
    aside.mkdir(parents=True)
    _remove_abandoned(parent)
    try:
        save_file(tensors, aside / WEIGHTS)
        vocabularies = json.dumps(model.vocabularies(), ensure_ascii=False).encode()
        (aside / VOCABULARIES).write_bytes(vocabularies)
        popular = None
        if popularity is not None:
            save_file({_SCORES: torch.from_numpy(popularity.scores).contiguous()}, aside / POPULARITY)
            popular = PopularityRecord(popularity.half_life_days, _hash_of(aside / POPULARITY))
        known = {field.name: getattr(record, field.name) for field in fields(TrainingRecord)}
        manifest = Manifest(
            **known,
            version=version,
            model=model.name,
            config=model.config(),
            weights_sha256=_hash_of(aside / WEIGHTS),
            vocabularies_sha256=hashlib.sha256(vocabularies).hexdigest(),
            golden=golden,
            popularity=popular,
        )
        (aside / MANIFEST).write_bytes(manifest_form.dump(manifest))
        for name, content in (beside or {}).items():
            (aside / name).write_bytes(content)
        written = (WEIGHTS, VOCABULARIES, MANIFEST, *([] if popular is None else [POPULARITY]))
        for name in (*written, *(beside or {})):
            _sync(aside / name)
        _sync(aside)
        aside.rename(folder)
        _sync(parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise RegistryError(f"checkpoint {version} cannot be written to {parent}: {error}") from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return folder


def read_manifest(folder: Path) -> Manifest:
    """Reads what a checkpoint says about itself and nothing more.

    Raises:
        CheckpointError: The manifest is missing, damaged, foreign or of another shape.
    """
    manifest = manifest_form.parse(_read(folder / MANIFEST, _MAX_MANIFEST_BYTES))
    if manifest.version != folder.name:
        raise MismatchedCheckpointError(
            [f"the folder is called {folder.name!r} and its manifest says version {manifest.version!r}"]
        )
    return manifest


def load(folder: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Reads a checkpoint, strictly.

    Does not ask the golden users: `self_check` does.

    Raises:
        CheckpointError: It cannot be served; says what is wrong and what would be right. Nothing else is raised
            whatever the files hold.
    """
    manifest = read_manifest(folder)
    try:
        model_kind = model_class(manifest.model)
    except UnknownModelError as error:
        raise ForeignCheckpointError(f"the checkpoint is of a model that this code does not have: {error}") from error
    vocabularies = _read_vocabularies(folder / VOCABULARIES, manifest.vocabularies_sha256)
    tensors = _read_weights(folder / WEIGHTS, manifest.weights_sha256)
    popularity = _read_popularity(folder / POPULARITY, manifest.popularity, vocabularies)
    try:
        model = model_kind.restore(manifest.config, tensors, vocabularies, torch.device(device))
    except FAILURES_OF_A_MODEL as error:
        # The hashes are right, so the writer's code and this code disagree in a way that `restore` did not foresee.
        raise MismatchedCheckpointError(
            [f"{manifest.model} cannot be rebuilt from config, tensors and vocabularies: {error!r}"]
        ) from error
    if _scale_of(model) != _scale_of(manifest):
        raise MismatchedCheckpointError(
            [f"the model's rating scale is {_scale_of(model)} and the manifest says {_scale_of(manifest)}"]
        )
    return Checkpoint(manifest.version, model, manifest, popularity)


def self_check(checkpoint: Checkpoint) -> None:
    """Asks the golden users again.

    Raises:
        SelfCheckError: The model answers otherwise than when the checkpoint was written, or not at all.
    """
    golden_answers.check(checkpoint.model, checkpoint.manifest.golden)


def _remove_abandoned(parent: Path) -> None:
    """Removes what processes that were killed while they wrote have left; nobody ever reads it."""
    for aside in parent.glob(".*.partial-*"):
        try:
            if time.time() - aside.stat().st_mtime > _ABANDONED_AFTER_S:
                shutil.rmtree(aside)
        except OSError:
            # Somebody else removes it too, or may not: it is in nobody's way.
            continue


def _scale_of(owner: Model | Manifest) -> dict[str, float] | None:
    return None if owner.rating_scale is None else asdict(owner.rating_scale)


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        size_bytes = path.stat().st_size
        if size_bytes > max_bytes:
            raise CorruptCheckpointError(f"{path.name} has {size_bytes} bytes; at most {max_bytes} are allowed")
        return path.read_bytes()
    except OSError as error:
        raise CorruptCheckpointError(f"{path.name} cannot be read: {error.strerror}") from error


def _read_vocabularies(path: Path, sha256: str) -> dict[str, list[str]]:
    content = _read(path, _MAX_VOCABULARIES_BYTES)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CorruptCheckpointError(f"{path.name} does not match its hash in the manifest: it was altered or damaged")
    try:
        vocabularies = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpointError(f"{path.name} is not readable JSON: {error}") from error
    if not isinstance(vocabularies, dict):
        raise MismatchedCheckpointError([f"{path.name} does not hold an object of lists of strings"])
    problems = [
        f"vocabulary {name!r} is not a list of strings"
        for name, words in vocabularies.items()
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words)
    ]
    if problems:
        raise MismatchedCheckpointError(problems)
    return vocabularies


def _read_weights(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
        found = _hash_of(path)
    except OSError as error:
        raise CorruptCheckpointError(f"{path.name} cannot be read: {error.strerror}") from error
    if size_bytes < 8 or header_bytes > min(size_bytes - 8, _MAX_HEADER_BYTES):
        raise CorruptCheckpointError(
            f"{path.name} has {size_bytes} bytes and claims a header of {header_bytes}: it was cut short or damaged"
        )
    if found != sha256:
        raise CorruptCheckpointError(f"{path.name} does not match its hash in the manifest: it was altered or damaged")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            # Cloned, for the file is mapped into memory and whoever shortens it would end this process.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        _refuse_not_finite(tensors)
    except (SafetensorError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        # Its hash is right, so somebody wrote it that way: with a layout or a number format that torch does not take.
        raise CorruptCheckpointError(f"{path.name} is not a readable safetensors file: {error}") from error
    return tensors


def _read_popularity(
    path: Path, record: PopularityRecord | None, vocabularies: Mapping[str, list[str]]
) -> Popularity | None:
    if record is None:
        return None
    scores = _read_weights(path, record.sha256).get(_SCORES)
    shape = [len(vocabularies.get("movies", []))]
    if scores is None or list(scores.shape) != shape or scores.dtype != torch.float32:
        raise MismatchedCheckpointError([f"{path.name} should hold {_SCORES!r}, float32 of shape {shape}"])
    return Popularity(record.half_life_days, scores.numpy())


def _refuse_not_finite(tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CorruptCheckpointError(f"tensor {name!r} holds numbers that are not finite")


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
