"""A checkpoint comes back as it was written, or it is refused with the reason."""

import hashlib
import json
import os
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from two_tower import checkpoint as checkpoints
from two_tower import golden
from two_tower.errors import (
    CheckpointError,
    CorruptCheckpointError,
    ForeignCheckpointError,
    MismatchedCheckpointError,
    RegistryError,
    SelfCheckError,
)
from two_tower.manifest import TrainingRecord
from two_tower.models.item_knn import ItemKnn
from two_tower.models.two_tower_history import TwoTowerHistory
from two_tower.movie_columns import MovieColumns
from two_tower.user_columns import Profiles

FILES = ("weights.safetensors", "vocabularies.json", "manifest.json")


@pytest.fixture
def folder(
    tmp_path: Path, model: TwoTowerHistory, record: TrainingRecord, movies: MovieColumns, profiles: Profiles
) -> Path:
    """A checkpoint, written."""
    answers = golden.make(model, movies, profiles, "u0", record.data_until_ms)
    return checkpoints.write(tmp_path / "registry", "v1", model, record, answers)


def rewrite_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the manifest as a careful forger would: its own hash is made to fit."""
    path = folder / "manifest.json"
    fields = json.loads(path.read_text())
    fields.pop("manifest_sha256")
    change(fields)
    fields["manifest_sha256"] = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(fields))


def rewrite_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Changes the weights and makes the manifest's hash fit."""
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    rewrite_manifest(folder, lambda fields: fields.update(weights_sha256=sha256))


def test_loading_gives_back_every_bit(folder: Path, model: TwoTowerHistory, record: TrainingRecord) -> None:
    """Weights, vocabularies, config and record survive the round trip unchanged."""
    loaded = checkpoints.load(folder)

    assert loaded.version == "v1"
    assert loaded.model.config() == model.config()
    assert loaded.model.vocabularies() == model.vocabularies()
    written, read = model.tensors(), loaded.model.tensors()
    assert written.keys() == read.keys()
    assert all(torch.equal(written[name], read[name]) for name in written)
    for name in TrainingRecord.__dataclass_fields__:
        assert getattr(loaded.manifest, name) == getattr(record, name)


def test_self_check_passes_on_what_was_written(folder: Path) -> None:
    """A checkpoint that nobody touched answers its golden users as before."""
    checkpoints.self_check(checkpoints.load(folder))


def test_writing_leaves_nothing_beside_the_checkpoint(folder: Path) -> None:
    """The folder it was written in aside is gone."""
    assert [path.name for path in folder.parent.iterdir()] == ["v1"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_a_checkpoint_is_never_overwritten(
    folder: Path, model: TwoTowerHistory, record: TrainingRecord, movies: MovieColumns, profiles: Profiles
) -> None:
    """Writing a version twice is refused and leaves the first as it was."""
    before = (folder / "manifest.json").read_bytes()

    with pytest.raises(CheckpointError, match="never overwritten"):
        checkpoints.write(folder.parent, "v1", model, record, golden.make(model, movies, profiles, None, 0))

    assert (folder / "manifest.json").read_bytes() == before


def test_what_a_disk_does_not_take_is_told_and_removed(
    tmp_path: Path, model: TwoTowerHistory, record: TrainingRecord, movies: MovieColumns, profiles: Profiles
) -> None:
    """A limit to the size of files stands in for a full disk: the reason is the system's, and nothing is left."""
    answers = golden.make(model, movies, profiles, None, 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(RegistryError, match=r"v1 cannot be written.*File too large"):
            checkpoints.write(tmp_path, "v1", model, record, answers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_not_written(
    tmp_path: Path, model: TwoTowerHistory, record: TrainingRecord, movies: MovieColumns, profiles: Profiles
) -> None:
    """A fit that diverged is found out before it is in the registry."""
    answers = golden.make(model, movies, profiles, None, 0)
    model._towers.age.weight[0, 0] = torch.nan

    with pytest.raises(CorruptCheckpointError, match=r"age\.weight.*not finite"):
        checkpoints.write(tmp_path / "registry", "v1", model, record, answers)

    assert not (tmp_path / "registry" / "v1").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    """Whoever loses a file is told which."""
    (folder / name).unlink()

    with pytest.raises(CorruptCheckpointError, match=name):
        checkpoints.load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_is_refused(folder: Path, name: str) -> None:
    """A copy that stopped half-way never loads and never raises anything but a CheckpointError."""
    content = (folder / name).read_bytes()

    for length in {0, 1, 7, 8, 9, len(content) // 2, len(content) - 1}:
        (folder / name).write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=name.split(".")[0]):
            checkpoints.load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_refused(folder: Path, name: str) -> None:
    """A byte that changed on the way, in the header, the numbers, the words or the braces, is found out."""
    content = (folder / name).read_bytes()
    places = range(0, len(content), max(1, len(content) // 150))

    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        (folder / name).write_bytes(bytes(damaged))
        with pytest.raises(CheckpointError):
            checkpoints.load(folder)


@pytest.mark.parametrize("claimed", [2**63, 2**32, 100 << 20, 10**6])
def test_an_absurd_header_length_is_refused(folder: Path, claimed: int) -> None:
    """A header that claims to be larger than the file is refused before it is believed."""
    path = folder / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", claimed) + path.read_bytes()[8:])

    with pytest.raises(CorruptCheckpointError, match="claims a header"):
        checkpoints.load(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{", b"[" * 100_000, b"\xff\xfe", b'{"a": NaN}', b'{"a": 1e999}', b'"\\ud800"', b"9" * 5000],
)
def test_a_manifest_that_is_not_one_is_refused(folder: Path, content: bytes) -> None:
    """Whatever stands in manifest.json, the answer is a CheckpointError."""
    (folder / "manifest.json").write_bytes(content)

    with pytest.raises(CheckpointError):
        checkpoints.load(folder)


def test_a_huge_manifest_is_not_read(folder: Path) -> None:
    """A file of a size that no manifest has is refused by its size."""
    os.truncate(folder / "manifest.json", 1 << 40)

    with pytest.raises(CorruptCheckpointError, match="at most"):
        checkpoints.load(folder)


def test_a_folder_where_a_file_should_be_is_refused(folder: Path) -> None:
    """An odd file system entry is a damaged checkpoint like any other."""
    (folder / "weights.safetensors").unlink()
    (folder / "weights.safetensors").mkdir()

    with pytest.raises(CorruptCheckpointError, match="weights"):
        checkpoints.load(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("format", "pickle", "'marquee-checkpoint' is needed"),
        ("format_version", 99, "format version 99; this code reads 1"),
        ("model", "oracle", "there is no model 'oracle'; the models are bias, "),
    ],
)
def test_a_foreign_checkpoint_is_refused_with_what_would_be_right(
    folder: Path, field: str, value: object, message: str
) -> None:
    """Another format, format version or model says what this code knows."""
    rewrite_manifest(folder, lambda fields: fields.update({field: value}))

    with pytest.raises(ForeignCheckpointError, match=message):
        checkpoints.load(folder)


def test_every_field_that_does_not_fit_is_named(folder: Path) -> None:
    """Missing, superfluous and mistyped fields are all listed at once."""

    def change(fields: dict[str, Any]) -> None:
        fields["seed"] = "three"
        fields["history_window"] = None

    rewrite_manifest(folder, change)

    with pytest.raises(MismatchedCheckpointError) as caught:
        checkpoints.load(folder)

    assert caught.value.mismatches == (
        "manifest.seed should be int and is str",
        "manifest.history_window should be int and is null",
    )


def test_missing_and_superfluous_fields_are_named(folder: Path) -> None:
    """A field too few and a field too many are both said."""

    def change(fields: dict[str, Any]) -> None:
        del fields["commit"]
        fields["colour"] = "red"

    rewrite_manifest(folder, change)

    with pytest.raises(MismatchedCheckpointError, match=r"commit is missing.*colour is not a field"):
        checkpoints.load(folder)


def test_tensors_that_do_not_fit_are_named(folder: Path) -> None:
    """A missing, a superfluous and a misshapen tensor are each named with what is needed."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["age.bias"]
        tensors["extra"] = torch.zeros(1)
        tensors["year.weight"] = torch.zeros(2, 2)

    rewrite_weights(folder, change)

    with pytest.raises(MismatchedCheckpointError) as caught:
        checkpoints.load(folder)

    assert set(caught.value.mismatches) == {
        "tensor 'age.bias' is missing",
        "tensor 'extra' is not one of this model",
        "tensor 'year.weight' has shape [2, 2]; [1, 1] is needed",
    }


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    """A NaN in a checkpoint from elsewhere never reaches an answer."""
    rewrite_weights(folder, lambda tensors: tensors["age.bias"].fill_(torch.inf))

    with pytest.raises(CorruptCheckpointError, match=r"age\.bias.*not finite"):
        checkpoints.load(folder)


def safetensors_of(header: dict[str, Any], data: bytes) -> bytes:
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


@pytest.mark.parametrize(
    "content",
    [
        b"\0" * 8,
        b"\2\0\0\0\0\0\0\0[]",
        b"\4\0\0\0\0\0\0\0null",
        safetensors_of({"x": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}}, b"\0" * 4),
        safetensors_of({"x": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, b"\0" * 8),
        safetensors_of({"x": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
        safetensors_of({"x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, b"\0" * 4),
        safetensors_of({"x": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]}}, b"\7" * 4),
        safetensors_of({}, b""),
    ],
)
def test_weights_that_somebody_made_up_are_refused(folder: Path, content: bytes) -> None:
    """With a hash that fits, an impossible layout or number format is still a CheckpointError and nothing else."""
    (folder / "weights.safetensors").write_bytes(content)
    rewrite_manifest(folder, lambda fields: fields.update(weights_sha256=hashlib.sha256(content).hexdigest()))

    with pytest.raises(CheckpointError):
        checkpoints.load(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"users": 1}', b'{"users": ["", 1]}', b'{"users": ["", "a", "a"]}', b"\xff", b"[" * 10**5],
)
def test_vocabularies_that_somebody_made_up_are_refused(folder: Path, content: bytes) -> None:
    """With a hash that fits, what is not lists of different strings is still refused."""
    (folder / "vocabularies.json").write_bytes(content)
    rewrite_manifest(folder, lambda fields: fields.update(vocabularies_sha256=hashlib.sha256(content).hexdigest()))

    with pytest.raises(CheckpointError):
        checkpoints.load(folder)


def test_a_config_that_does_not_fit_is_refused(folder: Path) -> None:
    """A config value that no model has is named."""
    rewrite_manifest(folder, lambda fields: fields["config"].update(activation="softplus"))

    with pytest.raises(MismatchedCheckpointError, match="softplus"):
        checkpoints.load(folder)


def test_a_renamed_folder_is_refused(folder: Path) -> None:
    """A version answers under its own name only."""
    moved = folder.rename(folder.with_name("v2"))

    with pytest.raises(MismatchedCheckpointError, match=r"'v2'.*v1"):
        checkpoints.load(moved)


def test_self_check_finds_weights_that_were_exchanged(folder: Path) -> None:
    """Weights of the right shape that are not the trained ones give other answers, and are found out by them."""
    rewrite_weights(folder, lambda tensors: tensors["movie_layers.1.weight"].mul_(-1))

    with pytest.raises(SelfCheckError, match="golden user 0 gets rating"):
        checkpoints.self_check(checkpoints.load(folder))


def test_self_check_finds_a_model_that_cannot_answer(folder: Path) -> None:
    """What the model raises of itself, here over a time beyond 64 bits, is told as wrong with the checkpoint."""

    def change(fields: dict[str, Any]) -> None:
        fields["golden"]["users"][2]["history"][0]["event_time_ms"] = 1 << 70

    rewrite_manifest(folder, change)

    with pytest.raises(SelfCheckError, match="cannot answer its golden users"):
        checkpoints.self_check(checkpoints.load(folder))


@pytest.mark.parametrize("row", [-1.0, 2.5, 4.0])
def test_neighbours_that_are_no_movies_are_refused(model: TwoTowerHistory, row: float) -> None:
    """Rows of a neighbourhood model point into its own tables."""
    kept = {name: model.config()[name] for name in ("scale", "ages", "years")}
    constants = {"global_mean": 3.0, "user_damping": 5.0, "residual_damping": 1.0, "decay_events": 0.0}
    config = {**kept, **constants, "decay_floor": 0.0, "neighbours": 2, "vector_size": 3}
    shapes = {f"{head}_{what}": (4, 2) for head in ("rating", "ranking") for what in ("neighbours", "similarities")}
    tensors = {f"movies.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    tensors |= {"movies.vectors": torch.zeros(4, 3), "movies.biases": torch.zeros(4), "users.biases": torch.zeros(3)}
    tensors["movies.ranking_neighbours"][2, 1] = row

    with pytest.raises(
        MismatchedCheckpointError, match=r"ranking_neighbours holds what is no row of a movie; .* 0 to 3"
    ):
        ItemKnn.restore(config, tensors, model.vocabularies(), torch.device("cpu"))


def test_self_check_refuses_golden_users_that_make_no_sense(folder: Path) -> None:
    """Forged expectations end in a SelfCheckError and in nothing else."""

    def change(fields: dict[str, Any]) -> None:
        fields["golden"]["users"][2]["history"][0]["movie"] = 99

    rewrite_manifest(folder, change)

    with pytest.raises(SelfCheckError, match="not among the golden movies"):
        checkpoints.self_check(checkpoints.load(folder))
