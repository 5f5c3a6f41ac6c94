"""Opens a folder, a zip archive or a single file as a set of named byte streams. Knows no file format.

An archive is read in place and nothing of it is ever written to disk, so a name in it can reach no other folder. It
is refused all the same if a name tries to, since such an archive is not what it claims to be.
"""

import io
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from trainer.errors import DataError

MAX_EXPANSION = 200
"""Largest accepted ratio of a large archive member's size to its compressed size; rating tables reach about 5."""
EXPANSION_EXEMPT_BYTES = 16 * 2**20
"""Members up to this size may have any ratio: they cannot fill a machine."""
MAX_MEMBER_BYTES = 64 * 2**30
MAX_MEMBERS = 10_000


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    Attributes:
        name: Path inside the source, with forward slashes.
        shown: How messages name it.
        size_bytes: Its size, uncompressed.
        open_stream: Opens it for reading from its beginning.
    """

    name: str
    shown: str
    size_bytes: int
    open_stream: Callable[[], IO[bytes]]

    @property
    def base_name(self) -> str:
        """The last part of its path, in lower case."""
        return PurePosixPath(self.name).name.lower()

    @property
    def folder(self) -> str:
        """The folder inside the source, "." at the top."""
        return str(PurePosixPath(self.name).parent)

    def read_bytes(self) -> bytes:
        """Reads all of it.

        Raises:
            DataError: It cannot be read, or a compressed stream is damaged.
        """
        with self.open_stream() as stream, damage_named(self.shown):
            return stream.read()


@contextmanager
def damage_named(shown: str) -> Iterator[None]:
    """Turns what a damaged or vanished file raises inside the block into a `DataError` that names the file."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise DataError(f"{shown}: cannot be read ({error}); fetch the file again") from error


def list_files(path: Path) -> list[SourceFile]:
    """Lists the files of a folder (two levels deep), of a zip archive, or the one file itself.

    Raises:
        DataError: There is no such path, or the archive is damaged, encrypted, or dangerous.
    """
    if path.is_dir():
        found = [*path.glob("*"), *path.glob("*/*")]
        return [_plain_file(file, file.relative_to(path).as_posix()) for file in sorted(found) if file.is_file()]
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.suffix.lower() == ".zip" or (path.suffix == "" and zipfile.is_zipfile(path)):
        return _archive_files(path)
    return [_plain_file(path, path.name)]


def _plain_file(path: Path, name: str) -> SourceFile:
    def open_stream() -> IO[bytes]:
        try:
            return path.open("rb")
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error

    return SourceFile(name, str(path), path.stat().st_size, open_stream)


def _archive_files(path: Path) -> list[SourceFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise DataError(f"{path}: not a readable zip archive ({error})") from error
    if len(members) > MAX_MEMBERS:
        raise DataError(f"{path}: holds {len(members):,} files, more than {MAX_MEMBERS:,}; pack only the data set")
    for member in members:
        _refuse_dangerous(path, member)
    return [_archive_file(path, member) for member in members if not member.is_dir()]


def _refuse_dangerous(path: Path, member: zipfile.ZipInfo) -> None:
    shown = f"{path}/{member.filename}"
    parts = member.filename.replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or ":" in parts[0]:
        raise DataError(f"{shown}: refused, the name points outside the archive; pack the folder afresh")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise DataError(f"{shown}: refused, a symbolic link; pack the file itself")
    if member.flag_bits & 0x1:
        raise DataError(f"{shown}: refused, encrypted; pack it without a password")
    large = member.file_size > EXPANSION_EXEMPT_BYTES
    if member.file_size > MAX_MEMBER_BYTES or (large and member.file_size > MAX_EXPANSION * member.compress_size):
        raise DataError(
            f"{shown}: refused, it would grow from {member.compress_size:,} to {member.file_size:,} bytes "
            f"(more than {MAX_EXPANSION} times); unpack it yourself if you trust it"
        )


def _archive_file(path: Path, member: zipfile.ZipInfo) -> SourceFile:
    shown = f"{path}/{member.filename}"

    def open_stream() -> IO[bytes]:
        with damage_named(shown):
            # The member's stream keeps the archive's file open for as long as it needs it.
            return zipfile.ZipFile(path).open(member)

    return SourceFile(member.filename, shown, member.file_size, open_stream)


def in_memory(file: SourceFile) -> io.BytesIO:
    """Reads a file whole, for formats that must seek."""
    return io.BytesIO(file.read_bytes())
