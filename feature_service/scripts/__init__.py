"""Holds the Lua scripts that change what is stored, and loads them."""

from functools import cache
from importlib import resources


@cache
def script(name: str) -> bytes:
    """Returns a script's text by its file name without the ending, lines of comment left out.

    It is sent whole with every call (EVAL): redis-py refuses EVALSHA in the pipelines of a cluster.
    """
    text = resources.files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("--")).encode()
