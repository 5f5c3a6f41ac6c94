"""Puts Redis, feature_service and model_service together on this machine. Knows their settings; knows no model."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.processes import ServiceProcess, free_address

START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class LocalStack:
    """Where the parts of one local stack live.

    Attributes:
        folder: Holds the data folder of Redis and the logs.
        registry: The checkpoints.
        feature_address: HOST:PORT of feature_service.
        model_address: HOST:PORT of model_service.
        other_ports: HOST:PORT by the setting of a port that would else be any; the environment goes before it.
    """

    folder: Path
    registry: Path
    feature_address: str
    model_address: str
    other_ports: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def on_free_ports(cls, folder: Path, registry: Path) -> "LocalStack":
        """Returns a stack that does not get in the way of another on this machine."""
        return cls(folder, registry, free_address(), free_address())

    @contextmanager
    def feature_service(self) -> Iterator[ServiceProcess]:
        """Runs feature_service, with a Redis of its own, until the context ends."""
        settings = {
            "FEATURE_LISTEN": self.feature_address,
            "FEATURE_REDIS_URL": "embedded",
            "FEATURE_DATA_DIR": str(self.folder / "redis"),
            **self._other_ports("FEATURE_"),
        }
        log = self.folder / "logs" / "feature_service.log"
        with ServiceProcess("feature_service", self.feature_address, settings, log) as process:
            process.wait_until_serving(START_TIMEOUT_S)
            yield process

    @contextmanager
    def model_service(self, label: str = "stable", device: str = "auto") -> Iterator[ServiceProcess]:
        """Runs model_service with the checkpoint that a label names, until the context ends."""
        settings = {
            "MODEL_LISTEN": self.model_address,
            "MODEL_REGISTRY": str(self.registry),
            "MODEL_LABEL": label,
            "MODEL_DEVICE": device,
            "MODEL_FEATURE_SERVICE": self.feature_address,
            **self._other_ports("MODEL_"),
        }
        log = self.folder / "logs" / "model_service.log"
        with ServiceProcess("model_service", self.model_address, settings, log) as process:
            process.wait_until_serving(START_TIMEOUT_S)
            yield process

    def _other_ports(self, prefix: str) -> dict[str, str]:
        wanted = {name: address for name, address in self.other_ports.items() if name.startswith(prefix)}
        return {name: address for name, address in wanted.items() if name not in os.environ}
