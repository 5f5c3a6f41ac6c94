"""Attacks the checkpoint loader. Whatever the files hold, CheckpointError is all that may come of it.

Where a hash would end everything early it is made to fit: the attacker wrote the file that way.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.trained_stack import QUICK
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import take_snapshot
from trainer.synthesis import SynthesisPlan, write_synthetic
from trainer.training import Request, train
from two_tower import checkpoint
from two_tower.errors import CheckpointError
from two_tower.registry import Registry

MODELS = ("two-tower-history", "content-fc", "item-knn", "bias", "dot-bias")
_HASHED = {
    "weights.safetensors": "weights_sha256",
    "vocabularies.json": "vocabularies_sha256",
    "popularity.safetensors": "popularity",
}
_PARTS = ("manifest.json", "fields of the manifest", "config", *_HASHED)


class Checkpoints:
    """The first byte of an input says which model's checkpoint, the second which part of it is replaced by the rest."""

    def __init__(self, folder: Path) -> None:
        """Trains the checkpoints that are spoiled, in a folder."""
        write_synthetic(SynthesisPlan(num_users=20, num_movies=20, num_ratings=150, seed=7), folder / "data")
        snapshot = take_snapshot(str(folder / "data"), ReadOptions())
        registry = Registry(folder / "registry")
        self._folders = []
        for model in MODELS:
            request = Request(model=model, label=None, options=QUICK.get(model, ()), reported=False, calibrated=False)
            self._folders.append(train(snapshot, registry, request).folder)
        self._spoilt = folder / "spoilt"

    def seeds(self) -> Sequence[bytes]:
        """Returns inputs that spoil nothing."""
        found = []
        for model, folder in enumerate(self._folders):
            manifest = json.loads((folder / "manifest.json").read_text())
            contents = [
                (folder / "manifest.json").read_bytes(),
                json.dumps({name: value for name, value in manifest.items() if name != "config"}).encode(),
                json.dumps(manifest["config"]).encode(),
                *((folder / name).read_bytes() if (folder / name).exists() else b"" for name in _HASHED),
            ]
            found += [bytes([model, part]) + content for part, content in enumerate(contents)]
        return found

    def attack(self, data: bytes) -> None:
        """Loads what an input makes of a checkpoint. Raises what should not be raised."""
        if len(data) < 2:
            return
        source = self._folders[data[0] % len(self._folders)]
        folder = self._spoilt / source.name
        shutil.rmtree(self._spoilt, ignore_errors=True)
        shutil.copytree(source, folder)
        _replace(folder, _PARTS[data[1] % len(_PARTS)], data[2:])
        try:
            checkpoint.self_check(checkpoint.load(folder))
        except CheckpointError:
            return


def _replace(folder: Path, part: str, content: bytes) -> None:
    path = folder / "manifest.json"
    fields: dict[str, Any] = json.loads(path.read_text())
    del fields["manifest_sha256"]
    if part in _HASHED:
        (folder / part).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        if part == "popularity.safetensors":
            fields["popularity"] = {"half_life_days": 365.0, "sha256": sha256}
        else:
            fields[_HASHED[part]] = sha256
    elif part == "manifest.json":
        path.write_bytes(content)
        return
    else:
        try:
            made = json.loads(content)
        except (ValueError, RecursionError):
            return
        if part == "config":
            fields["config"] = made
        elif isinstance(made, dict):
            fields = {"config": fields["config"], **made}
            fields.pop("manifest_sha256", None)
    try:
        text = json.dumps(fields, sort_keys=True)
        fields["manifest_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        path.write_text(json.dumps(fields))
    except (ValueError, RecursionError):
        # What cannot be written is no file: lone surrogates, lists in a thousand lists.
        return
