"""Ends a process quietly whose reader has seen enough, as `--help | head -1` has. Knows pipes; knows no text."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_STATUS = 1


@contextmanager
def quiet_when_reader_is_gone() -> Iterator[None]:
    """Ends the process with status 1 if nobody reads any more what the block prints."""
    try:
        try:
            yield
        finally:
            # Here, and not when the interpreter ends: by then nobody can catch what it says of a broken pipe.
            sys.stdout.flush()
    except BrokenPipeError:
        # What was not written would be tried again at the end: https://docs.python.org/3/library/signal.html,
        # "Note on SIGPIPE".
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(_STATUS) from None
