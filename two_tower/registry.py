"""Finds checkpoints by version or label. Knows folders and small label files; knows nothing of what a checkpoint holds.

A registry is a folder: each version a folder in it, each label a small file in `labels/`.
"""

import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from two_tower.errors import InvalidNameError, RegistryError, UnknownVersionError

STABLE = "stable"
"""The label that is served unless a setting names another."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LABELS = "labels"
_MAX_LABEL_BYTES = 1 << 20
_MAX_LABEL_HISTORY = 1000


@dataclass(frozen=True, slots=True)
class LabelChange:
    """A label was set: to what, when, and why."""

    version: str
    set_at_ms: int
    reason: str


class Registry:
    """The checkpoints of one folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def require_writable(self) -> None:
        """Makes the folder if it is absent.

        Raises:
            RegistryError: It cannot be made or written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RegistryError(f"the registry {self.path} cannot be made: {error.strerror}") from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise RegistryError(f"the registry {self.path} cannot be written to")

    def versions(self) -> list[str]:
        """Returns all versions, oldest first. A registry that does not exist yet has none.

        Raises:
            RegistryError: The folder cannot be read.
        """
        try:
            return sorted(
                entry.name
                for entry in os.scandir(self.path)
                if entry.is_dir() and entry.name != _LABELS and _NAME.fullmatch(entry.name)
            )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RegistryError(f"the registry {self.path} cannot be read: {error.strerror}") from error

    def path_of(self, version: str) -> Path:
        """Returns the folder of a version.

        Raises:
            InvalidNameError: No version can be called that.
            UnknownVersionError: There is no such version; the message lists the newest that exist.
        """
        _validate("version", version)
        if version not in self.versions():
            newest = ", ".join(reversed(self.versions()[-5:])) or "none at all"
            raise UnknownVersionError(f"the registry {self.path} has no version {version!r}; it has {newest}")
        return self.path / version

    def labels(self) -> dict[str, str]:
        """Returns the version of each label.

        Raises:
            RegistryError: A label cannot be read.
        """
        names = sorted(path.stem for path in (self.path / _LABELS).glob("*.json") if _NAME.fullmatch(path.stem))
        return {name: self._read_label(name)[-1].version for name in names}

    def label(self, name: str = STABLE) -> str | None:
        """Returns the version that a label names, None if it was never set.

        Raises:
            InvalidNameError: No label can be called that.
            RegistryError: The label cannot be read.
        """
        _validate("label", name)
        changes = self._read_label(name)
        return changes[-1].version if changes else None

    def label_history(self, name: str) -> list[LabelChange]:
        """Returns all changes of a label, oldest first.

        Raises:
            InvalidNameError: No label can be called that.
            RegistryError: The label cannot be read.
        """
        _validate("label", name)
        return self._read_label(name)

    def set_label(self, name: str, version: str, *, now: datetime | None = None, reason: str = "") -> None:
        """Points a label at a version; readers see the old or the new one, never half of it.

        Raises:
            InvalidNameError: No label or version can be called that.
            UnknownVersionError: There is no such version.
            RegistryError: The label cannot be read or written.
        """
        _validate("label", name)
        self.path_of(version)
        changes = [*self._read_label(name), LabelChange(version, _to_ms(now or datetime.now(UTC)), reason)]
        content = json.dumps(
            [
                {"version": change.version, "set_at_ms": change.set_at_ms, "reason": change.reason}
                for change in changes[-_MAX_LABEL_HISTORY:]
            ],
            indent=1,
        )
        path = self.path / _LABELS / f"{name}.json"
        aside = path.with_name(f".{name}.partial-{os.getpid()}")
        try:
            path.parent.mkdir(exist_ok=True)
            with aside.open("w", encoding="utf-8") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except OSError as error:
            raise RegistryError(f"label {name!r} cannot be written: {error.strerror}") from error

    def new_version(self, now: datetime) -> str:
        """Returns a name that no version has and that sorts after those made before `now`."""
        taken = set(self.versions())
        moment = _to_ms(now)
        while True:
            seconds, ms = divmod(moment, 1000)
            version = f"{datetime.fromtimestamp(seconds, UTC):%Y%m%d-%H%M%S}-{ms:03d}"
            if version not in taken:
                return version
            moment += 1

    def _read_label(self, name: str) -> list[LabelChange]:
        path = self.path / _LABELS / f"{name}.json"
        try:
            if path.stat().st_size > _MAX_LABEL_BYTES:
                raise RegistryError(f"label {name!r} is larger than {_MAX_LABEL_BYTES} bytes")
            entries = json.loads(path.read_text(encoding="utf-8"))
            changes = [_parse_change(entry) for entry in entries]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RegistryError(f"label {name!r} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RegistryError(f"label {name!r} is damaged: {error!r}; set it again after removing {path}") from error
        if not changes:
            raise RegistryError(f"label {name!r} is damaged: it names no version; set it again after removing {path}")
        return changes


def _parse_change(entry: Any) -> LabelChange:
    change = LabelChange(entry["version"], entry["set_at_ms"], entry["reason"])
    if not (isinstance(change.version, str) and isinstance(change.set_at_ms, int) and isinstance(change.reason, str)):
        raise TypeError("a field has the wrong type")
    _validate("version", change.version)
    return change


def _validate(what: str, name: str) -> None:
    if not _NAME.fullmatch(name) or name == _LABELS:
        raise InvalidNameError(
            f"{name!r:.80} cannot be the name of a {what}: 1 to 64 letters, digits, '.', '_' and '-' are, "
            f"the first a letter or digit, but not {_LABELS!r}"
        )


def _to_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
