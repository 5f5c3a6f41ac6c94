"""Downloads survive cuts, refuse what is not what was published, and leave nothing half-done behind."""

import hashlib
import io
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trainer.download import BLOCK_BYTES, Downloader, licence_of
from trainer.errors import DownloadError
from trainer.readers import read_dataset

README = "Summary\n=======\n\nFilms.\n\nUsage License\n=============\n\nResearch only.\n\nCitation\n========\n\nCite.\n"


def _archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("ml-latest-small/README.txt", README)
        rows = "".join(f"{n},{n % 9},{1 + n % 5},{n}\n" for n in range(60_000))
        archive.writestr("ml-latest-small/ratings.csv", "userId,movieId,rating,timestamp\n" + rows)
    return content.getvalue()


@dataclass
class _Shelf:
    """What the server has and how it misbehaves."""

    content: bytes
    md5: str = ""
    etag: str = '"first"'
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"

    def do_GET(self) -> None:
        shelf = self.server.shelf
        if self.path.endswith(".md5"):
            self._send(200, f"MD5 (ml-latest-small.zip) = {shelf.md5}\n".encode(), {})
            return
        if self.path != "/ml-latest-small.zip":
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        shelf.asked.append(wanted)
        if shelf.statuses:
            self.send_error(shelf.statuses.pop(0))
            return
        headers = {"ETag": shelf.etag}
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted else 0  # type: ignore[index]
        if wanted and start >= len(shelf.content):
            self._send(416, b"", {"Content-Range": f"bytes */{len(shelf.content)}"})
        elif wanted and shelf.ranges and self.headers.get("If-Range") == shelf.etag:
            span = f"bytes {start}-{len(shelf.content) - 1}/{len(shelf.content)}"
            self._send(206, shelf.content[start:], {**headers, "Content-Range": span})
        else:
            self._send(200, shelf.content, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        cuts = self.server.shelf.cut_after
        self.wfile.write(body[: cuts.pop(0)] if cuts and status in (200, 206) and len(body) > 1000 else body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keeps the test's output free of requests."""


class _Server(ThreadingHTTPServer):
    shelf: _Shelf


@pytest.fixture
def shelf() -> _Shelf:
    content = _archive()
    return _Shelf(content, hashlib.md5(content).hexdigest())


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps a machine's proxy out of conversations with itself."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def downloader(shelf: _Shelf, tmp_path: Path) -> Iterator[Downloader]:
    """A downloader whose GroupLens is a server on this machine, and that does not wait between attempts."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.shelf = shelf
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Downloader(tmp_path / "cache", f"http://127.0.0.1:{server.server_port}", pause=lambda seconds: None)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _files(downloader: Downloader) -> list[str]:
    return sorted(path.name for path in downloader.cache.iterdir())


def test_a_download_is_checked_and_read_without_unpacking(
    downloader: Downloader, shelf: _Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive lies whole in the cache, alone, and its name can be given as data."""
    archive = downloader.fetch("ml-latest-small")

    monkeypatch.setenv("MARQUEE_CACHE", str(downloader.cache))
    assert archive.read_bytes() == shelf.content
    assert _files(downloader) == ["ml-latest-small.zip"]
    assert len(read_dataset("ml-latest-small").interactions) == 60_000


def test_what_is_there_is_not_fetched_again(downloader: Downloader, shelf: _Shelf) -> None:
    """A second call asks the server for nothing."""
    downloader.fetch("ml-latest-small")
    asked = len(shelf.asked)

    downloader.fetch("ml-latest-small")

    assert len(shelf.asked) == asked


def test_a_cut_transfer_resumes_where_it_was_cut(downloader: Downloader, shelf: _Shelf) -> None:
    """After each cut only the missing bytes are asked for."""
    shelf.cut_after = [100_000, 50_000]

    archive = downloader.fetch("ml-latest-small")

    assert shelf.asked == [None, "bytes=100000-", "bytes=150000-"]
    assert archive.read_bytes() == shelf.content


def test_a_later_run_resumes_too(downloader: Downloader, shelf: _Shelf) -> None:
    """What one run kept when it gave up, the next one goes on from."""
    shelf.cut_after = [100_000]
    giving_up = Downloader(downloader.cache, downloader.base_url, pause=_give_up)
    with pytest.raises(KeyboardInterrupt):
        giving_up.fetch("ml-latest-small")

    archive = downloader.fetch("ml-latest-small")

    assert shelf.asked == [None, "bytes=100000-"]
    assert archive.read_bytes() == shelf.content


def _give_up(seconds: float) -> None:
    raise KeyboardInterrupt


def test_another_version_is_fetched_from_its_start(downloader: Downloader, shelf: _Shelf) -> None:
    """Bytes of two versions are never put together."""
    shelf.cut_after = [100_000]
    with pytest.raises(KeyboardInterrupt):
        Downloader(downloader.cache, downloader.base_url, pause=_give_up).fetch("ml-latest-small")
    shelf.content = shelf.content[::-1]
    shelf.md5 = hashlib.md5(shelf.content).hexdigest()
    shelf.etag = '"second"'

    archive = downloader.fetch("ml-latest-small")

    assert archive.read_bytes() == shelf.content


def test_a_server_without_ranges_is_asked_from_the_start(downloader: Downloader, shelf: _Shelf) -> None:
    """A full answer to a range request replaces what was there."""
    shelf.ranges = False
    shelf.cut_after = [100_000]

    archive = downloader.fetch("ml-latest-small")

    assert archive.read_bytes() == shelf.content


def test_a_wrong_checksum_is_refused_and_nothing_stays(downloader: Downloader, shelf: _Shelf) -> None:
    """What differs from what was published is deleted, partial files included."""
    shelf.md5 = "0" * 32

    with pytest.raises(DownloadError, match=r"its MD5 is [0-9a-f]{32}, published is 0{32}"):
        downloader.fetch("ml-latest-small")

    assert _files(downloader) == []


def test_errors_of_the_server_are_tried_again(downloader: Downloader, shelf: _Shelf) -> None:
    """A server that recovers costs attempts, not the download."""
    shelf.statuses = [503, 500]

    archive = downloader.fetch("ml-latest-small")

    assert archive.read_bytes() == shelf.content


def test_a_server_that_stays_down_is_reported(downloader: Downloader, shelf: _Shelf) -> None:
    """After several attempts without a byte the message gives the reason."""
    shelf.statuses = [503] * 20

    with pytest.raises(DownloadError, match="Service Unavailable"):
        downloader.fetch("ml-latest-small")


def test_no_server_is_reported(tmp_path: Path) -> None:
    """Without a connection there is a sentence, not a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    absent = Downloader(tmp_path, f"http://127.0.0.1:{port}", pause=lambda seconds: None)

    with pytest.raises(DownloadError, match="refused"):
        absent.fetch("ml-100k")
    with pytest.raises(DownloadError, match=r"ml-25m\.zip\.md5.*refused"):
        absent.fetch("ml-25m")


def test_a_missing_file_is_reported_at_once(downloader: Downloader) -> None:
    """What the server does not have is not asked for twice."""
    with pytest.raises(DownloadError, match="404"):
        downloader.fetch("ml-100k")


def test_unknown_names_list_the_known_ones(downloader: Downloader) -> None:
    """A misspelt name is answered with the right ones."""
    with pytest.raises(DownloadError, match="ml-100k, ml-1m"):
        downloader.fetch("ml-100")


def test_progress_ends_at_the_full_size(downloader: Downloader, shelf: _Shelf, tmp_path: Path) -> None:
    """Progress grows to the size of the archive, across a cut."""
    told: list[tuple[int, int | None]] = []
    shelf.cut_after = [BLOCK_BYTES]
    watched = Downloader(
        tmp_path / "other", downloader.base_url, lambda done, total: told.append((done, total)), pause=lambda s: None
    )

    watched.fetch("ml-latest-small")

    assert told == sorted(told)
    assert told[-1] == (len(shelf.content), len(shelf.content))


def test_the_licence_is_found_in_the_archive(downloader: Downloader) -> None:
    """The section on use is shown, not the rest of the README."""
    licence = licence_of(downloader.fetch("ml-latest-small"))

    assert "Research only." in licence
    assert "Cite." not in licence
    assert "Films." not in licence
