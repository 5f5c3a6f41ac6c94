"""Fetches the MovieLens archives from GroupLens: resumed when cut, checked against their MD5, finished atomically.

Written on urllib because no kept library does it: pooch checks and finishes atomically but starts over after a cut,
which 250 MB on a weak line do not survive, and the resuming clients are command-line programs.

While a transfer runs its bytes lie in NAME.zip.part, with what identifies the server's version in NAME.zip.version.
NAME.zip appears only once it is whole and has the right checksum. The archive is never unpacked.
"""

import hashlib
import http
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.data_cache import DATASET_NAMES, archive_of
from trainer.errors import DownloadError
from trainer.readers.source import list_files

GROUPLENS_URL = "https://files.grouplens.org/datasets/movielens"
PINNED_MD5 = {
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
}
"""Archives that will not change any more; the others are compared with the .md5 file beside them."""
BLOCK_BYTES = 256 * 1024
TIMEOUT_S = 30.0
"""How long the server may be silent."""
MAX_ATTEMPTS = 6
"""Attempts without a single new byte before giving up."""
FIRST_PAUSE_S = 1.0
"""Pause after the first failed attempt; each further one doubles it."""
MAX_MD5_FILE_BYTES = 4096
LICENCE_HEADING = re.compile(r"^(?:SUMMARY & )?USAGE LICENSE$", re.MULTILINE | re.IGNORECASE)
NEXT_HEADING = re.compile(r"^[A-Z][^\n]*\n(?:[=-]{5,})$", re.MULTILINE)

Progress = Callable[[int, int | None], None]
"""Told how many bytes are there and how many there will be, None if the server does not say."""


@dataclass(frozen=True, slots=True)
class Downloader:
    """Fetches archives into one folder.

    Attributes:
        cache: The folder; made if absent.
        base_url: Where the archives and their .md5 files lie.
        on_progress: Told after each block.
        pause: Waits between attempts, in seconds.
        timeout_s: How long the server may be silent.
    """

    cache: Path
    base_url: str = GROUPLENS_URL
    on_progress: Progress = lambda done, total: None
    pause: Callable[[float], None] = time.sleep
    timeout_s: float = TIMEOUT_S

    def fetch(self, name: str) -> Path:
        """Fetches a data set unless it is there already, and returns its archive.

        Raises:
            DownloadError: Unknown name, no connection, no space, or another checksum than published; in the last case
                nothing of the transfer is kept.
        """
        if name not in DATASET_NAMES:
            raise DownloadError(f"{name}: no data set of that name; there are {', '.join(DATASET_NAMES)}")
        archive = archive_of(name, self.cache)
        if archive.exists():
            return archive
        url = f"{self.base_url}/{name}.zip"
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            expected = PINNED_MD5.get(name) or self._published_md5(url)
            part, version = archive.with_suffix(".zip.part"), archive.with_suffix(".zip.version")
            self._transfer(url, part, version)
            actual = _md5(part)
            if actual != expected:
                part.unlink()
                version.unlink(missing_ok=True)
                raise DownloadError(
                    f"{url}: its MD5 is {actual}, published is {expected}; what came was deleted. Try again; if it "
                    "stays so, the file was changed on the way or at its source"
                )
            part.replace(archive)
            version.unlink(missing_ok=True)
        except OSError as error:
            raise DownloadError(f"{self.cache}: cannot be written ({error.strerror or error})") from error
        return archive

    def _published_md5(self, url: str) -> str:
        try:
            with self._answer(urllib.request.Request(f"{url}.md5")) as answer:
                text = answer.read(MAX_MD5_FILE_BYTES).decode("ascii", errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise DownloadError(f"{url}.md5: {getattr(error, 'reason', error)}; try again later") from error
        found = re.search(r"\b[0-9a-f]{32}\b", text.lower())
        if not found:
            raise DownloadError(f"{url}.md5: holds no MD5 checksum; the archive cannot be checked and is not fetched")
        return found.group()

    def _transfer(self, url: str, part: Path, version: Path) -> None:
        """Fills `part` until it is whole, resuming as often as new bytes keep coming."""
        failures = 0
        while True:
            before = part.stat().st_size if part.exists() else 0
            try:
                if self._receive(url, part, version):
                    return
                reason = "the connection was cut"
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                reason = str(getattr(error, "reason", error))
            came = part.exists() and part.stat().st_size > before
            failures = 0 if came else failures + 1
            if failures >= MAX_ATTEMPTS:
                kept = part.stat().st_size if part.exists() else 0
                raise DownloadError(f"{url}: {reason}; {kept:,} bytes are kept, the same command resumes")
            self.pause(FIRST_PAUSE_S * 2 ** max(failures - 1, 0))

    def _receive(self, url: str, part: Path, version: Path) -> bool:
        """Asks for what is missing and appends it; tells whether the file is whole."""
        have = part.stat().st_size if part.exists() and version.exists() else 0
        request = urllib.request.Request(url)
        if have:
            # Only bytes of the same version may be appended; a server with another one sends it from the start.
            request.add_header("Range", f"bytes={have}-")
            request.add_header("If-Range", version.read_text())
        try:
            answer = self._answer(request)
        except _NothingLeft as nothing_left:
            if nothing_left.size_bytes == have:
                return True
            part.unlink()
            return False
        with answer:
            resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
            if resumed and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                part.unlink()
                return False
            done = have if resumed else 0
            length = answer.headers.get("Content-Length")
            total = done + int(length) if length is not None else None
            validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            if validator and not validator.startswith("W/"):
                version.write_text(validator)
            else:
                version.unlink(missing_ok=True)
            with part.open("ab" if resumed else "wb") as file:
                while block := _next_block(answer):
                    file.write(block)
                    done += len(block)
                    self.on_progress(done, total)
                file.flush()
                os.fsync(file.fileno())
        return total is None or done == total

    def _answer(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        try:
            answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    size = error.headers.get("Content-Range", "").rpartition("/")[2]
                    raise _NothingLeft(int(size) if size.isdigit() else None) from None
                if error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise DownloadError(f"{request.full_url}: the server answers {error.code} {error.reason}") from None
            raise
        return answer


class _NothingLeft(Exception):  # noqa: N818 - an answer of the server, not an error
    def __init__(self, size_bytes: int | None) -> None:
        super().__init__(size_bytes)
        self.size_bytes = size_bytes


def licence_of(archive: Path) -> str:
    """Returns the licence section of the README inside an archive; the whole README if it has no such section.

    Raises:
        DataError: The archive is damaged.
    """
    readmes = [file for file in list_files(archive) if file.base_name.startswith("readme")]
    if not readmes:
        return "The archive holds no README; see https://grouplens.org/datasets/movielens/ for the terms of use."
    text = readmes[0].read_bytes().decode("utf-8", errors="replace").replace("\r\n", "\n")
    heading = LICENCE_HEADING.search(text)
    if not heading:
        return text.strip()
    end = NEXT_HEADING.search(text, heading.end() + 1)
    return text[heading.start() : end.start() if end else len(text)].strip()


def _next_block(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(BLOCK_BYTES)
    except OSError as error:
        # Told from an OSError of the disk, which no further attempt cures.
        raise ConnectionError(str(error)) from error


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
