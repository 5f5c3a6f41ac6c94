"""Runs Feast on users of ours: its Redis online store loaded, its Python feature server serving. Knows no figure.

Feast lives in .venv-feast (make feast); benchmarks/feast says how it keeps a user.
"""

import http.client
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.synthetic_users import SyntheticUsers
from deploy.local.processes import free_address

BIN = Path(".venv-feast/bin")
HISTORY_WINDOW = 200
"""Newest movies in the lists of the history, as feature_service keeps; the list of all watched has the others too."""
PROFILE = ("gender", "age", "occupation", "zip")
HISTORY = ("movies", "ratings", "times_ms")
WATCHED = ("watched",)
_START_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 60.0


def load_feast(users: SyntheticUsers, folder: Path, redis_port: int) -> None:
    """Puts all users into Feast's online store; the folder is made and keeps what `FeastServer` needs."""
    _require_feast()
    folder.mkdir(parents=True)
    blocks = list(users.blocks())
    movies, ratings, times = (
        np.concatenate([getattr(block, name) for block in blocks])
        for name in ("movie_rows", "ratings", "event_times_ms")
    )
    newest = np.lexsort((-movies, -times), axis=1)[:, :HISTORY_WINDOW]
    profiles = [profile for block in blocks for profile in block.profiles]
    np.savez(
        folder / "users.npz",
        user_id=np.array([user_id for block in blocks for user_id in block.user_ids]),
        gender=np.array([profile.gender for profile in profiles]),
        age=np.array([profile.age for profile in profiles], np.int32),
        occupation=np.array([profile.occupation for profile in profiles]),
        zip=np.array([profile.zip for profile in profiles]),
        movies=np.take_along_axis(movies, newest, axis=1).astype(np.int32),
        ratings=np.take_along_axis(ratings, newest, axis=1),
        times_ms=np.take_along_axis(times, newest, axis=1),
        watched=np.sort(movies, axis=1).astype(np.int32),
    )
    loader = Path(__file__).parent / "feast" / "load.py"
    subprocess.run([BIN / "python", loader, folder, str(redis_port)], check=True, stdout=subprocess.DEVNULL)


class FeastServer:
    """`feast serve` with one worker, asked over one connection that stays open; its own log of accesses is off."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self.pid = process.pid
        self._connection = http.client.HTTPConnection(address, timeout=60)

    def request(self, user_ids: Sequence[str], fields: Sequence[str]) -> bytes:
        """Returns the body of a request for some features."""
        asked = {"features": [f"u:{field}" for field in fields], "entities": {"user_id": list(user_ids)}}
        return json.dumps(asked).encode()

    def read(self, body: bytes) -> bytes:
        """Sends a request; returns the answer, not parsed."""
        self._connection.request("POST", "/get-online-features", body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"Feast answers {answer.status}: {content[:500].decode()}")
        return content

    def healthy(self) -> bool:
        """Tells whether it answers."""
        try:
            self._connection.request("GET", "/health")
            return bool(self._connection.getresponse().read() or True)
        except OSError:
            self._connection.close()
            return False


@contextmanager
def feast_server(folder: Path) -> Iterator[FeastServer]:
    """Runs Feast's Python feature server on a folder that `load_feast` has made, until the block ends."""
    address = free_address()
    host, _, port = address.partition(":")
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(BIN / "feast", "-c", folder, "serve", "-h", host, "-p", port, "-w", "1", "--no-access-log"),
                # It would start a new worker after every 1000 requests.
                *("--max-requests", "1000000000", "--max-requests-jitter", "0", "--registry_ttl_sec", "86400"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "FEAST_USAGE": "False"},
        )
    try:
        server = FeastServer(process, address)
        give_up = time.monotonic() + _START_TIMEOUT_S
        while not server.healthy():
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"feast serve does not start: {(folder / 'serve.log').read_text()}")
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait(_STOP_TIMEOUT_S)


def _require_feast() -> None:
    if not (BIN / "feast").exists():
        raise SystemExit("Feast is not installed: make feast")
