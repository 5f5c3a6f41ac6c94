"""Holds what model_service can be told. The only place that reads its environment."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import torch
from marquee.client.credentials import Credentials, CredentialsError
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import SettingsConfigDict

from model_service.waiting_room import BatchingKnobs
from service_runtime.security import NO_LIMITS
from service_runtime.server import Security
from service_runtime.settings import OFF, ListenAddress, OptionalListenAddress, ReadableFile, ServiceSettings
from two_tower.registry import STABLE

_BATCHES_ON_CPU = 1
"""A fifth less processor time a request than 2, at 64 callers: benchmarks/results/batching_knobs.json."""

NUMPY_ROWS_ON_CPU = 12
"""Numpy is cheaper up to 8 to 24 users, by the catalogue's size: benchmarks/results/scoring_crossover.json."""

_INDEX_MIN_MOVIES = 100_000
"""Below it an exact list costs less than reading its user: benchmarks/results/topk_scaling.json."""

_NEAR_CACHE_BYTES = 256 << 20
"""Some 35,000 users with 200 movies each, or 80,000 with 20: benchmarks/results/near_cache.json."""


class ModelSettings(ServiceSettings):
    """Settings of model_service; variables are named MODEL_ and the field in capitals."""

    model_config = SettingsConfigDict(env_prefix="MODEL_")

    registry: Path = Field(description="Folder of the checkpoint registry; it must exist and be readable.")
    label: str = Field(
        default=STABLE,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Label of the checkpoint that is served; where it is moved to is followed.",
    )
    also_labels: tuple[str, ...] = Field(
        default=(),
        max_length=8,
        description="Further labels, as a JSON list, whose checkpoints are in memory for requests that name them.",
    )
    registry_poll_s: float = Field(
        default=2.0, ge=0.05, le=3600, description="How often the labels of the registry are looked at, in seconds."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where weights and embeddings live; auto takes CUDA if there is a device."
    )
    listen: ListenAddress = Field(default="127.0.0.1:50052", description="host:port of the gRPC server; port 0: any.")
    metrics_listen: OptionalListenAddress = Field(
        default="127.0.0.1:51052",
        description="host:port of the HTTP server with /metrics; port 0 takes a free one and logs it, `off` none.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that serve on the port, each with a model and a near cache of its own; for a CPU only. "
        "More than one needs MODEL_ADMIN_LISTEN=off: what an admin asks for would reach one of them.",
    )
    admin_listen: OptionalListenAddress = Field(
        default="127.0.0.1:50053",
        description="host:port of ModelAdminService, which shows and moves models; port 0 takes a free one and logs "
        "it, `off` none.",
    )
    feature_service: str = Field(
        default="127.0.0.1:50051", min_length=1, description="host:port, or any gRPC target, of feature_service."
    )
    feature_tls: bool = Field(
        default=False, description="Whether feature_service speaks TLS; implied by a file of certificates for it."
    )
    feature_tls_ca_file: Path | None = Field(
        default=None,
        description="Certificates (PEM) of who signed that of feature_service; by default those this machine trusts.",
    )
    feature_tls_cert_file: Path | None = Field(
        default=None, description="A certificate of our own (PEM), if feature_service asks its callers for one."
    )
    feature_tls_key_file: Path | None = Field(default=None, description="Its key (PEM), without a password.")
    feature_token_file: Path | None = Field(
        default=None, description="File that holds our token for feature_service, and nothing else."
    )
    feature_token: SecretStr = Field(
        default=SecretStr(""), description="Our token for feature_service; rather name a file that holds it."
    )
    feature_token_in_clear: bool = Field(
        default=False,
        description="Whether our token may go to another machine without TLS, where something else encrypts.",
    )
    admin_tokens_file: ReadableFile | None = Field(
        default=None, description="As MODEL_TOKENS_FILE, for ModelAdminService: its callers are other people."
    )
    feature_timeout_s: float = Field(
        default=2.0, gt=0, le=60, description="How long one read of feature_service may take, in seconds."
    )
    answer_without_features: bool = Field(
        default=False,
        description="While feature_service cannot be read: true answers a user by his trained vector, or as one of "
        "whom nothing is known, and may recommend what he has seen; false answers UNAVAILABLE.",
    )
    near_cache_bytes: int = Field(
        default=_NEAR_CACHE_BYTES,
        ge=0,
        le=1 << 40,
        description="Memory for users that were read before, as they were read and embedded; kept while the feed of "
        "changes is live. 0 turns it off: every user is read for every batch.",
    )
    embed_ahead_users: int = Field(
        default=10_000,
        ge=0,
        le=10_000_000,
        description="Users, those asked about last, who are embedded by a new model before it serves; 0 leaves all to "
        "its first answers.",
    )
    catalogue_poll_s: float = Field(
        default=3.0, ge=0.05, le=3600, description="How often changes of the catalogue are asked for, in seconds."
    )
    catalogue_patience_s: float = Field(
        default=0.1,
        ge=0,
        le=10,
        description="How long a batch waits for a catalogue that is newer than the known one, in seconds; then it is "
        "answered from the known one.",
    )
    catalogue_min_interval_s: float = Field(
        default=0.05, ge=0, le=60, description="Shortest time between two reads of the catalogue, in seconds."
    )
    max_batch_rows: int = Field(
        default=250,
        ge=1,
        le=10_000,
        description="Users in one batch at most; at 250 a batch with seen movies is one read of feature_service.",
    )
    max_waiting_rows: int = Field(
        default=2000, ge=1, le=1_000_000, description="Users that may wait, for each priority; more are refused."
    )
    batch_gap_ms: float = Field(
        default=2.0,
        ge=0,
        le=1000,
        description="How long a batch is held that began to form while the device was busy or right after one left, in "
        "milliseconds. A caller who is alone hardly ever waits for it.",
    )
    company_gap_ms: float = Field(
        default=3.0,
        ge=0,
        le=100,
        description="How long a rating or a list that could be given at once is held while the service is busy, so "
        "that others are given with it, in milliseconds; four times that at most, and 0 never. Users who are "
        "not near are held for up to seven times that, while the service is fairly busy, to be read together.",
    )
    max_batches_in_flight: int | None = Field(
        default=None,
        ge=1,
        le=16,
        description="Batches under way: one on the device, the others reading features; by default 1 on a CPU, where "
        "reading and scoring share the processor, and 2 on a GPU.",
    )
    interactive_max_rows: int = Field(
        default=64, ge=1, le=10_000, description="A request for more users than this gives way to smaller ones."
    )
    bulk_patience_ms: float = Field(
        default=200.0,
        ge=0,
        le=60_000,
        description="After this wait a large request has every second batch, in milliseconds.",
    )
    max_bulk_rows: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="Users of large requests in one batch at most: a small request waits for no more than these.",
    )
    numpy_max_rows: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="Batches of up to so many users are scored by numpy, larger ones by torch; by default 12 on a CPU "
        "and 0 on a GPU.",
    )
    index_min_movies: int = Field(
        default=_INDEX_MIN_MOVIES,
        ge=1000,
        description="From so many movies on, a CPU ranks by an index; smaller catalogues are ranked exactly, and all "
        "of them where faiss is not installed.",
    )
    index_min_recall: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="Share of the best movies that an index must find on average, measured when it is built on "
        "users of the checkpoint; at 1 no index is built.",
    )
    default_timeout_s: float = Field(
        default=10.0, gt=0, le=3600, description="How long a caller without a deadline is taken to wait, in seconds."
    )
    retry_s: float = Field(
        default=2.0, ge=0.05, le=600, description="About how long to wait before looking again for what is absent."
    )

    @model_validator(mode="after")
    def _admin_is_guarded_too(self) -> Self:
        if self.tokens_file is not None and self.admin_listen != OFF and self.admin_tokens_file is None:
            raise PydanticCustomError(
                "admin", "MODEL_TOKENS_FILE without MODEL_ADMIN_TOKENS_FILE: name one, or set MODEL_ADMIN_LISTEN=off"
            )
        if self.tokens_file is not None and self.tokens_file == self.admin_tokens_file:
            raise PydanticCustomError(
                "admin", "MODEL_ADMIN_TOKENS_FILE is MODEL_TOKENS_FILE: every caller could move models"
            )
        try:
            credentials = self.feature_credentials()
            credentials.for_channel()
            credentials.token_for(self.feature_service)
        except CredentialsError as error:
            raise PydanticCustomError("hop", "{error}", {"error": str(error)}) from None
        return self

    @model_validator(mode="after")
    def _workers_are_equal(self) -> Self:
        if self.workers > 1 and self.torch_device().type != "cpu":
            raise PydanticCustomError(
                "workers", "MODEL_WORKERS: a GPU has one owner; set MODEL_WORKERS=1, or MODEL_DEVICE=cpu"
            )
        if self.workers > 1 and self.admin_listen != OFF:
            raise PydanticCustomError(
                "workers",
                "MODEL_WORKERS: ModelAdminService would reach one worker of several; set MODEL_ADMIN_LISTEN=off, and "
                "move the labels of the registry, which all workers follow",
            )
        return self

    def admin_security(self) -> Security:
        """Returns who may move models, by the certificates of the other port."""
        # Who moves models is not to wait for those who ask them, and has his limits in his own file.
        return replace(self.security(), tokens_file=self.admin_tokens_file, health_listen="", limits=NO_LIMITS)

    def feature_credentials(self) -> Credentials:
        """Returns who we are to feature_service, and whom we trust.

        Raises:
            CredentialsError: They contradict each other.
        """
        return Credentials(
            self.feature_tls or bool(self.feature_tls_ca_file or self.feature_tls_cert_file),
            self.feature_tls_ca_file,
            self.feature_tls_cert_file,
            self.feature_tls_key_file,
            self.feature_token.get_secret_value(),
            self.feature_token_file,
            self.feature_token_in_clear,
            "MODEL_FEATURE_",
        )

    @field_validator("registry")
    @classmethod
    def _is_readable(cls, registry: Path) -> Path:
        if not registry.is_dir():
            raise PydanticCustomError("registry", "{path} is not a folder", {"path": str(registry)})
        if not os.access(registry, os.R_OK | os.X_OK):
            raise PydanticCustomError("registry", "{path} cannot be read", {"path": str(registry)})
        return registry

    @field_validator("device")
    @classmethod
    def _is_there(cls, device: str) -> str:
        if device == "cuda" and not torch.cuda.is_available():
            raise PydanticCustomError("device", "cuda was asked for and torch finds no CUDA device")
        return device

    def torch_device(self) -> torch.device:
        """Returns the device to use."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def numpy_rows(self) -> int:
        """Returns up to how many users numpy scores."""
        if self.numpy_max_rows is not None:
            return self.numpy_max_rows
        return NUMPY_ROWS_ON_CPU if self.torch_device().type == "cpu" else 0

    def knobs(self) -> BatchingKnobs:
        """Returns what the batching policy is told."""
        in_flight = self.max_batches_in_flight or (_BATCHES_ON_CPU if self.torch_device().type == "cpu" else 2)
        return BatchingKnobs(
            max_batch_rows=self.max_batch_rows,
            max_waiting_rows=self.max_waiting_rows,
            gap_s=self.batch_gap_ms / 1000,
            max_in_flight=in_flight,
            bulk_patience_s=self.bulk_patience_ms / 1000,
            max_bulk_rows=self.max_bulk_rows,
        )
