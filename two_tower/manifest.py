"""Holds what a checkpoint says about itself, and its JSON form. Knows no folder and no tensor."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from two_tower import strict_json
from two_tower.errors import CorruptCheckpointError, ForeignCheckpointError, MismatchedCheckpointError
from two_tower.golden import Golden
from two_tower.popularity import PopularityRecord
from two_tower.rating_spread import RatingSpread
from two_tower.serving import RatingScale

FORMAT = "marquee-checkpoint"
FORMAT_VERSION = 1

_OPTIONAL = ("popularity", "rating_spread")
"""Fields that came after format version 1 was in use. Where there is nothing to say they are left out, so that a
checkpoint without them is the same to older and newer code; older code refuses one with them, naming the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedRows:
    """Names the rows that a checkpoint was trained on, so that they can be found again and nothing else is published.

    Attributes:
        holdout: The split, as `--holdout` takes it.
        seed: Seed of the split.
        count: Number of training rows.
        sha256: Hash over user id, movie id, rating and time of each training row, independent of their order.
    """

    holdout: str
    seed: int
    count: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """How well the checkpoint does on rows that it was not trained on; None where that cannot be said.

    Attributes:
        rmse: Root mean squared error of the clipped ratings, in stars.
        mae: Mean absolute error of the clipped ratings, in stars.
        ndcg_at_10: Over the full catalogue with training rows removed, mean over users with held-out rows.
        recall_at_10: The same.
        protocol: How the rows were held out.
        num_ratings: Held-out rows that rmse and mae average over.
        num_users: Users that ndcg_at_10 and recall_at_10 average over.
    """

    rmse: float | None
    mae: float | None
    ndcg_at_10: float | None
    recall_at_10: float | None
    protocol: str
    num_ratings: int
    num_users: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """What only the trainer knows about a checkpoint.

    Attributes:
        data_name: What the data set is called.
        data_sha256: Hash over all rows of the data set, users and movies included.
        has_times: Whether the data has timestamps.
        data_until_ms: Newest event time trained on, 0 without times. What is newer is news to the model.
        snapshot_time_ms: When the data was taken. A user deleted later has a trained vector that must not be used.
        trained_rows: The rows trained on.
        rating_scale: Scale of the data, None if the data has no ratings.
        metrics: How well it does on held-out rows.
        options: What the fit was told, defaults included.
        seed: Seed of the fit.
        history_window: Events of a user that training and evaluation saw at most.
        libraries: Versions of the libraries that made it.
        commit: Commit of the code that made it, None if that is not known.
        created_at_ms: When it was made.
        rating_spread: How far ratings scatter about what it predicts; None if the model tells that itself, has no
            ratings, or was trained without measuring it.
    """

    data_name: str
    data_sha256: str
    has_times: bool
    data_until_ms: int
    snapshot_time_ms: int
    trained_rows: TrainedRows
    rating_scale: RatingScale | None
    metrics: Metrics
    options: dict[str, Any]
    seed: int
    history_window: int
    libraries: dict[str, str]
    commit: str | None
    created_at_ms: int
    rating_spread: RatingSpread | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(TrainingRecord):
    """Everything that a checkpoint says about itself.

    Attributes:
        format: Always `FORMAT`.
        format_version: Always `FORMAT_VERSION`.
        version: Its name in the registry.
        model: Name of the model in `two_tower.models`.
        config: What the model rebuilds itself from, beside tensors and vocabularies.
        weights_sha256: Hash of weights.safetensors.
        vocabularies_sha256: Hash of vocabularies.json.
        golden: Synthetic users and what they were answered.
        popularity: What ranks for users of whom nothing is known; None in a checkpoint that leaves it to its model.
    """

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    version: str
    model: str
    config: dict[str, Any]
    weights_sha256: str
    vocabularies_sha256: str
    golden: Golden
    popularity: PopularityRecord | None = None


def dump(manifest: Manifest) -> bytes:
    """Returns the JSON form, which ends in a hash of itself."""
    fields = strict_json.encode(manifest)
    for name in _OPTIONAL:
        if fields[name] is None:
            del fields[name]
    fields["manifest_sha256"] = _hash_of(fields)
    return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False).encode()


def parse(content: bytes) -> Manifest:
    """Reads the JSON form.

    Raises:
        CorruptCheckpointError: It is not JSON, or it was altered after it was written.
        ForeignCheckpointError: It has another format or format version.
        MismatchedCheckpointError: Fields are missing, superfluous or of another type.
    """
    fields = _parse_object(content)
    if fields.get("format") != FORMAT:
        raise ForeignCheckpointError(f"manifest.json has format {fields.get('format')!r:.80}; {FORMAT!r} is needed")
    if fields.get("format_version") != FORMAT_VERSION:
        raise ForeignCheckpointError(
            f"manifest.json has format version {fields.get('format_version')!r:.80}; this code reads {FORMAT_VERSION}"
        )
    stated = fields.pop("manifest_sha256", None)
    if stated != _hash_of(fields):
        raise CorruptCheckpointError("manifest.json does not match the hash that it ends in: it was altered or damaged")
    problems: list[str] = []
    fields = dict.fromkeys(_OPTIONAL) | fields
    manifest = strict_json.decode(Manifest, fields, "manifest", problems)
    if manifest is not None and manifest.rating_spread is not None:
        problems += manifest.rating_spread.problems()
    if problems:
        raise MismatchedCheckpointError(problems)
    assert isinstance(manifest, Manifest)
    return manifest


def _parse_object(content: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
        # Encoding again is what the hash does: a lone surrogate or a number beyond float range fails here.
        json.dumps(fields, sort_keys=True, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpointError(f"manifest.json is not readable JSON: {error}") from error
    if not isinstance(fields, dict):
        raise CorruptCheckpointError("manifest.json does not hold an object")
    return fields


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON knows")


def _hash_of(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True, allow_nan=False).encode()).hexdigest()
