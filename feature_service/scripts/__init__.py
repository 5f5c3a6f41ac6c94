"""Holds the Lua scripts that change what is stored, and loads them."""

from functools import cache
from importlib import resources

_PARTS = {
    "rewrite_states": ("user_state", "rewrite_states"),
    "delete_user": ("user_state", "delete_user"),
    "merge_events": ("user_state", "seen_set", "merge_events"),
    "upsert_profiles": ("user_state", "upsert_profiles"),
}


@cache
def script(name: str) -> bytes:
    """Returns a script's text by its file name without the ending, lines of comment left out.

    It is sent whole with every call (EVAL): redis-py refuses EVALSHA in the pipelines of a cluster.
    """
    files = (resources.files(__name__).joinpath(f"{part}.lua") for part in _PARTS.get(name, (name,)))
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("--")).encode()
