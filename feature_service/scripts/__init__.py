"""Holds the Lua scripts that change what is stored, and loads them."""

from functools import cache
from importlib import resources

_NEED_USER_STATE = ("merge_events", "upsert_profiles")


@cache
def script(name: str) -> bytes:
    """Returns a script's text by its file name without the ending, lines of comment left out.

    It is sent whole with every call (EVAL): redis-py refuses EVALSHA in the pipelines of a cluster.
    """
    parts = ["user_state", name] if name in _NEED_USER_STATE else [name]
    text = "\n".join(resources.files(__name__).joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in parts)
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("--")).encode()
