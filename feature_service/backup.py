"""Takes a backup of the store while it is written to, and puts one back into an empty Redis. For operators' commands.

A backup is a folder: of each server the snapshot that it gives a new replica, which is of one moment, and a manifest.
Users of one server are therefore as of one moment, with their part of the event log. On a cluster the server of the
catalogue comes last: its movies are never renumbered, so that it knows every movie that a user's history names.
"""

import asyncio
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog
from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from feature_service import keys
from feature_service.redis_link import RedisLink
from feature_service.snapshot_server import opened_snapshot
from feature_service.store import StoreMarks
from feature_service.store_content import Summary, Value, fingerprint, kind_of, reading_of, values_of, writing_of

_log = structlog.get_logger(__name__)
MANIFEST = "manifest.json"
_FORMAT = 1
_SILENT_FOR_S = 60.0
_CHUNK_BYTES = 1 << 20


class BackupError(Exception):
    """A backup cannot be taken, is damaged, or cannot be put back; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class SnapshotFile:
    """The snapshot of one server."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself.

    Attributes:
        format: Of the backup.
        backup_id: Random.
        made_at: ISO 8601.
        store_epoch: Of the store that it was taken of.
        files: The snapshots.
        counts: Values by kind, as read back from the snapshots.
        digest: As `Summary`, in hexadecimal digits.
    """

    format: int
    backup_id: str
    made_at: str
    store_epoch: str
    files: list[SnapshotFile]
    counts: dict[str, int]
    digest: str


async def take_backup(link: RedisLink, folder: Path, made_at: str) -> Manifest:
    """Writes a backup, and reads it back to see that it can be.

    Raises:
        BackupError: It cannot be taken; nothing is left.
        StartError: There is no redis-server that can read it back; nothing is left.
    """
    _require_new(folder)
    epoch, _ = await StoreMarks(link).ensure()
    aside = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    aside.mkdir(parents=True)
    try:
        files = await _take_snapshots(link, aside)
        summary = Summary()
        for file in files:
            async with opened_snapshot(aside / file.name) as client:
                async for page in values_of(client):
                    for value in page:
                        summary.add(value)
        counts = dict(sorted(summary.counts.items()))
        manifest = Manifest(_FORMAT, secrets.token_hex(8), made_at, epoch, files, counts, f"{summary.digest:064x}")
        _write_synced(aside / MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return manifest


async def restore_backup(
    link: RedisLink, folder: Path, progress: Callable[[Summary], None]
) -> tuple[Manifest, Summary, str]:
    """Puts a backup into an empty Redis, compares what is there with it, and gives the store a new epoch.

    One that was broken off is done again by the same call.

    Args:
        link: Where to.
        folder: The backup.
        progress: Told now and then what is restored.

    Returns:
        What the backup says of itself, what was restored, and the new epoch.

    Raises:
        BackupError: The backup is damaged, the Redis is not empty, or what is there afterwards is something else.
        StartError: There is no redis-server that can read the snapshots.
    """
    manifest = read_manifest(folder)
    await _require_empty(link, manifest)
    await link.command("SET", keys.RESTORING, manifest.backup_id)
    restored = Summary()
    for file in manifest.files:
        async with opened_snapshot(folder / file.name) as client:
            async for page in values_of(client):
                await _put(link, page)
                for value in page:
                    restored.add(value)
                progress(restored)
    epoch = await StoreMarks(link).renew_epoch()
    await link.command("DEL", keys.RESTORING)
    return manifest, restored, epoch


def read_manifest(folder: Path) -> Manifest:
    """Reads what a backup says of itself, and holds its files to it.

    Raises:
        BackupError: It is damaged, or of another format.
    """
    try:
        fields = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if fields.get("format") != _FORMAT:
            raise BackupError(f"{folder} has format {fields.get('format')}, this build knows {_FORMAT}")
        manifest = Manifest(**{**fields, "files": [SnapshotFile(**file) for file in fields["files"]]})
    except OSError as error:
        raise BackupError(f"{folder} is no backup: {MANIFEST}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackupError(f"{folder}: {MANIFEST} is damaged: {error!r}") from error
    for file in manifest.files:
        path = folder / file.name
        if Path(file.name).name != file.name or not path.is_file():
            raise BackupError(f"{folder} lacks {file.name}")
        if path.stat().st_size != file.size_bytes or _hash_of(path) != file.sha256:
            raise BackupError(f"{path} is damaged: it is not what the manifest says")
    return manifest


async def _take_snapshots(link: RedisLink, folder: Path) -> list[SnapshotFile]:
    connections = await link.new_connections()
    layout = link.layout()
    try:
        with_catalogue = []
        for connection in connections:
            await connection.connect()  # type: ignore[no-untyped-call]
            with_catalogue.append(await _has_catalogue(connection))
        files = []
        for place in sorted(range(len(connections)), key=with_catalogue.__getitem__):
            files.append(await _receive(connections[place], folder / f"server-{place}.rdb"))
            _log.info("snapshot_taken", file=files[-1].name, size_bytes=files[-1].size_bytes)
    finally:
        for connection in connections:
            await connection.disconnect(nowait=True)
    await link.probe()
    if link.layout() != layout or len(await link.new_connections()) != len(connections):
        raise BackupError("keys moved between servers meanwhile: take the backup again")
    return files


async def _has_catalogue(connection: AbstractConnection) -> bool:
    await connection.send_command("EXISTS", keys.CATALOGUE)
    try:
        return bool(await connection.read_response())
    except exceptions.ResponseError:
        return False  # another server of the cluster has it


async def _receive(connection: AbstractConnection, path: Path) -> SnapshotFile:
    """Asks for what a new replica gets: https://redis.io/docs/latest/develop/reference/protocol-spec, "PSYNC"."""
    # Redis 7 then keeps nothing back for us of what is written meanwhile; older ones do not know it.
    await connection.send_command("REPLCONF", "rdb-only", "1")
    try:
        await connection.read_response()
    except exceptions.ResponseError:
        _log.info("snapshot_without_rdb_only")
    await connection.send_command("PSYNC", "?", "-1")
    # redis-py has no command whose answer is a file.
    stream = connection._reader
    assert stream is not None  # it is connected
    begin = await _line(stream)
    if not begin.startswith(b"+FULLRESYNC"):
        raise BackupError(f"Redis gives no snapshot: {begin.decode(errors='replace')}")
    length = await _line(stream)
    if not length.startswith(b"$") or not length[1:].isdigit():
        raise BackupError(f"Redis gives no snapshot: {length.decode(errors='replace')}")
    left = size_bytes = int(length[1:])
    content = hashlib.sha256()
    with path.open("xb") as file:
        while left:
            async with asyncio.timeout(_SILENT_FOR_S):
                chunk = await stream.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise BackupError(f"Redis ended the snapshot {left} bytes before its end")
            file.write(chunk)
            content.update(chunk)
            left -= len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return SnapshotFile(path.name, size_bytes, content.hexdigest())


async def _line(stream: asyncio.StreamReader) -> bytes:
    """Returns the next line that says something: while Redis prepares the snapshot it sends empty ones."""
    while True:
        async with asyncio.timeout(_SILENT_FOR_S):
            line = await stream.readline()
        if not line:
            raise BackupError("Redis closed the connection")
        if line.strip():
            return line.strip()


async def _require_empty(link: RedisLink, manifest: Manifest) -> None:
    restoring = await link.command("GET", keys.RESTORING)
    if restoring is not None and restoring.decode() != manifest.backup_id:
        raise BackupError("another backup was being restored here: empty this Redis (FLUSHALL) first")
    _, pointer = await StoreMarks(link).ensure()
    if restoring is not None:
        return
    if pointer.num_movies:
        raise BackupError("this Redis holds a catalogue already: restore into an empty one")
    for connection in await link.new_connections():
        await connection.connect()  # type: ignore[no-untyped-call]
        try:
            cursor = b"0"
            while True:
                await connection.send_command("SCAN", cursor, "COUNT", 1000)
                cursor, found = await connection.read_response()
                if any(kind_of(key) not in ("", "marks") for key in found):
                    raise BackupError("this Redis holds users already: restore into an empty one")
                if cursor == b"0":
                    break
        finally:
            await connection.disconnect()


async def _put(link: RedisLink, values: list[Value]) -> None:
    if not values:
        return
    await link.commands([command for value in values for command in writing_of(value)])
    for value, found in zip(values, await link.commands([reading_of(value.key) for value in values]), strict=True):
        if fingerprint(value.key, found) != value.fingerprint and not (value.ttl_ms and not found):
            raise BackupError("what is there now is not what was restored: does a service write to this Redis?")


def _require_new(folder: Path) -> None:
    if folder.exists():
        raise BackupError(f"{folder} exists: name a new folder")


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
