"""Writes to the terminal what comes from data: as it stands, and never as orders to the terminal. Knows no command."""

import re
from typing import Any

from rich.console import Console
from rich.text import Text

# Of C0 all but tab and line feed, DEL and C1: what a terminal obeys instead of showing (ECMA-48, section 5). And halves
# of surrogate pairs, which JSON can hold and UTF-8 cannot.
_NOT_SHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def shown(text: str) -> str:
    """Returns a text in which what a terminal would obey, or could not show, stands as its escape in Python."""
    return _NOT_SHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Terminal(Console):
    """A console to which "[bold]" and ":heart:" in the title of a movie are a title, not markup."""

    def __init__(self, *, stderr: bool = False) -> None:
        """Writes to the output stream, or to the error stream."""
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def render_str(self, text: str, **wishes: Any) -> Text:
        """Returns a text as it is to stand there."""
        return super().render_str(shown(text), **wishes)
