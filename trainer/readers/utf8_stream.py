"""Passes bytes on as valid UTF-8 and counts lines. Knows no column and no format.

Bytes that are not UTF-8 travel as characters of a private plane, so that the parser neither stops at them nor merges
what differs, and the reader can tell which rows they stand in and show them.
"""

import codecs
import io
import re
from typing import IO

MARKED_BYTE = 0x10FF00
"""Byte b that is not part of UTF-8 travels as the character U+10FF00 + b; b is 0x80 or more."""
MARKED = "[\U0010ff80-\U0010ffff]"
"""Matches such a character, as Python and RE2 write it."""
_ESCAPED = re.compile("[\udc80-\udcff]")


def mark_undecodable(text: str) -> str:
    """Turns Python's surrogate escapes into marked bytes, which UTF-8 can carry."""
    return _ESCAPED.sub(lambda byte: chr(ord(byte.group()) - 0xDC00 + MARKED_BYTE), text)


def quoted(text: str) -> str:
    r"""Writes a text in quotes as a person can read it: what cannot be printed is escaped, a marked byte as \xff."""
    return repr(text).replace("\\U0010ff", "\\x")


class Utf8Stream(io.RawIOBase):
    """A byte stream made valid UTF-8, whose lines are counted as they pass."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._amid_character = False
        self._line_ends = 0
        self._ends_open = False

    @property
    def num_lines(self) -> int:
        """How many lines have passed, an unfinished last one included."""
        return self._line_ends + self._ends_open

    def readable(self) -> bool:
        """Says that it can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Reads about `size` bytes; b"" only at the end."""
        while True:
            block = self._stream.read(size)
            if block:
                self._line_ends += block.count(b"\n")
                self._ends_open = not block.endswith(b"\n")
            if block.isascii() and block and not self._amid_character:
                return block
            text = self._decoder.decode(block, final=not block)
            self._amid_character = bool(self._decoder.getstate()[0])
            if text or not block:
                return self._encoded(text)

    def close(self) -> None:
        """Closes the stream beneath too."""
        self._stream.close()
        super().close()

    @staticmethod
    def _encoded(text: str) -> bytes:
        try:
            return text.encode()
        except UnicodeEncodeError:
            return mark_undecodable(text).encode()
