"""Finds checkpoints by version or label. Knows folders and small label files; knows nothing of what a checkpoint holds.

A registry is a folder: each version a folder in it, each label a small file in `labels/`. What is in
`snapshots/` is the trainer's.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from two_tower.errors import InvalidNameError, RegistryError, UnknownVersionError

STABLE = "stable"
"""The label that is served unless a setting names another."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SNAPSHOTS = "snapshots"
"""The folder in a registry that holds what its checkpoints were made from; `trainer rebuild` writes it."""

_LABELS = "labels"
_RESERVED = (_LABELS, SNAPSHOTS)
_MAX_LABEL_BYTES = 1 << 20
_MAX_LABEL_HISTORY = 1000
_LOCK_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Canary:
    """A version that answers some of the users of a label.

    Attributes:
        version: The version on trial.
        percent: Its share of the users, above 0 and at most 100.
    """

    version: str
    percent: float


@dataclass(frozen=True, slots=True)
class LabelChange:
    """A label was set: to what, when, and why.

    Attributes:
        version: What it names since.
        set_at_ms: When.
        reason: Why.
        canary: What is on trial beside it.
        is_rollback: Whether back to what it named before.
    """

    version: str
    set_at_ms: int
    reason: str
    canary: Canary | None = None
    is_rollback: bool = False


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
                if entry.is_dir() and entry.name not in _RESERVED and _NAME.fullmatch(entry.name)
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

    def rollback_line(self, name: str) -> list[str]:
        """Returns what a label names and, in this order, what it may be rolled back to, each version once.

        Versions that are gone stand there too; what a rollback left does not.

        Raises:
            InvalidNameError: No label can be called that.
            RegistryError: The label cannot be read.
        """
        _validate("label", name)
        return list(dict.fromkeys(reversed(_line(self._read_label(name)))))

    def set_label(
        self,
        name: str,
        version: str,
        *,
        now: datetime | None = None,
        reason: str = "",
        canary: Canary | None = None,
    ) -> LabelChange:
        """Points a label at a version; readers see the old or the new one, never half of it.

        Args:
            name: The label.
            version: What it names from now on.
            now: Kept in its history.
            reason: Kept in its history.
            canary: A version on trial beside it; None ends one that runs.

        Returns:
            What the history says of it.

        Raises:
            InvalidNameError: No label or version can be called that.
            UnknownVersionError: There is no such version.
            RegistryError: The label cannot be read or written.
        """
        _validate("label", name)
        self.path_of(version)
        if canary is not None:
            self.path_of(canary.version)
        change = LabelChange(version, _to_ms(now or datetime.now(UTC)), reason, canary)
        with self._writing(name):
            self._write_label(name, [*self._read_label(name), change])
        return change

    def put_label_history(self, name: str, changes: list[LabelChange]) -> None:
        """Writes a label with all its changes, oldest first, as a copy of a registry needs it.

        Raises:
            InvalidNameError: No label can be called that.
            UnknownVersionError: There is no version of the newest change.
            RegistryError: The label cannot be written.
        """
        _validate("label", name)
        self.path_of(changes[-1].version)
        with self._writing(name):
            self._write_label(name, changes)

    def roll_back(self, name: str, *, now: datetime | None = None, reason: str) -> LabelChange:
        """Points a label at the version that it named before the present one, and ends a canary.

        Once more, it goes one further back: what was left is not returned to. What is gone is passed over.

        Raises:
            InvalidNameError: No label can be called that.
            UnknownVersionError: The label never named another version that is still there.
            RegistryError: The label cannot be read or written.
        """
        _validate("label", name)
        with self._writing(name):
            changes = self._read_label(name)
            line, existing = _line(changes), set(self.versions())
            version = next((each for each in reversed(line[:-1]) if each in existing and each != line[-1]), None)
            if version is None:
                raise UnknownVersionError(
                    f"label {name!r} has named no other version before, or none that is still there"
                )
            change = LabelChange(version, _to_ms(now or datetime.now(UTC)), reason, is_rollback=True)
            self._write_label(name, [*changes, change])
        return change

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

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """Keeps other writers of a label out: each adds to what the one before wrote."""
        folder = self.path / _LABELS
        try:
            folder.mkdir(exist_ok=True)
            with FileLock(folder / f".{name}.lock", timeout=_LOCK_TIMEOUT_S):
                yield
        except Timeout as error:
            raise RegistryError(f"label {name!r} is being written by somebody else") from error
        except OSError as error:
            raise RegistryError(f"label {name!r} cannot be written: {error.strerror}") from error

    def _write_label(self, name: str, changes: list[LabelChange]) -> None:
        content = json.dumps([_form_of(change) for change in changes[-_MAX_LABEL_HISTORY:]], indent=1)
        path = self.path / _LABELS / f"{name}.json"
        aside = path.with_name(f".{name}.partial-{os.getpid()}")
        with aside.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)

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


def _line(changes: list[LabelChange]) -> list[str]:
    """Returns what a label named, oldest first: a rollback counts as if what it left had never been."""
    named: list[str] = []
    for change in changes:
        if change.is_rollback and change.version in named:
            del named[len(named) - named[::-1].index(change.version) :]
        elif not named or named[-1] != change.version:
            named.append(change.version)
    return named


def _form_of(change: LabelChange) -> dict[str, Any]:
    form: dict[str, Any] = {"version": change.version, "set_at_ms": change.set_at_ms, "reason": change.reason}
    if change.canary is not None:
        form["canary"] = {"version": change.canary.version, "percent": change.canary.percent}
    if change.is_rollback:
        form["is_rollback"] = True
    return form


def _parse_change(entry: Any) -> LabelChange:
    version, canary = entry["version"], entry.get("canary")
    trial = None if canary is None else Canary(canary["version"], float(canary["percent"]))
    change = LabelChange(version, entry["set_at_ms"], entry["reason"], trial, entry.get("is_rollback") is True)
    if not (isinstance(change.version, str) and isinstance(change.set_at_ms, int) and isinstance(change.reason, str)):
        raise TypeError("a field has the wrong type")
    _validate("version", change.version)
    if trial is not None:
        _validate("version", trial.version)
        if not 0 < trial.percent <= 100:
            raise ValueError("a canary's percent must lie above 0 and be at most 100")
    return change


def _validate(what: str, name: str) -> None:
    if not _NAME.fullmatch(name) or name in _RESERVED:
        raise InvalidNameError(
            f"{name!r:.80} cannot be the name of a {what}: 1 to 64 letters, digits, '.', '_' and '-' are, "
            f"the first a letter or digit, but not {' or '.join(map(repr, _RESERVED))}"
        )


def _to_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
