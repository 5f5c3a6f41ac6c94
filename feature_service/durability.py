"""Says what survives what, from how Redis is configured. Knows Redis's settings; changes none."""

from redis import exceptions

from feature_service.redis_failures import FORBIDDEN
from feature_service.redis_link import RedisLink
from service_runtime.errors import Unavailable

_SETTINGS = ("appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy")
_UNKNOWN = "unknown: this Redis does not tell how it is configured"


async def describe_durability(link: RedisLink) -> str:
    """Returns what this store promises about acknowledged writes, for a person."""
    try:
        found = await _configured(link)
    except exceptions.ResponseError:
        return _UNKNOWN
    except Unavailable as error:
        if error.reason != FORBIDDEN:
            raise
        return _UNKNOWN
    promise = _disk(found["appendonly"], found["appendfsync"], found["save"])
    policy = found["maxmemory-policy"]
    if found["maxmemory"] not in ("", "0") and policy != "noeviction":
        promise += f"; WARNING: above maxmemory this Redis deletes users ({policy}): set maxmemory-policy noeviction"
    return promise


async def _configured(link: RedisLink) -> dict[str, str]:
    try:
        answers = [await link.command("CONFIG GET", name, may_be_forbidden=True) for name in _SETTINGS]
    except Unavailable as error:
        if error.reason != FORBIDDEN:
            raise
        # CONFIG also tells passwords, so an ACL rather allows INFO, which tells less.
        disk, memory = [await link.command("INFO", section) for section in ("persistence", "memory")]
        return {
            "appendonly": "yes" if disk["aof_enabled"] else "no",
            "appendfsync": "",
            "save": "unknown",
            "maxmemory": str(memory["maxmemory"]),
            "maxmemory-policy": str(memory["maxmemory_policy"]),
        }
    return {name: str(answer.get(name, "")) for name, answer in zip(_SETTINGS, answers, strict=True)}


def _disk(append_only: str, fsync: str, save: str) -> str:
    if append_only == "yes":
        lost = {
            "always": "nothing",
            "everysec": "what was written in the last second, rarely two",
            "no": "what the operating system held back, some 30 s",
        }.get(fsync, "what appendfsync says, which this Redis does not tell us")
        # While a sync is under way everysec holds what it acknowledged back for up to two seconds (aof.c,
        # flushAppendOnlyFile); tests/faults kills a Redis at such a moment.
        killed = "nothing" if fsync in ("always", "no") else "nothing, or up to two seconds while its disk syncs slowly"
        return (
            f"a killed feature_service loses nothing; a killed Redis loses {killed}; a power loss loses {lost}; "
            "a failover loses what was not replicated"
        )
    if save == "unknown":
        return (
            "at most what its last snapshot has survives a killed Redis or a power loss: it keeps no append-only file"
        )
    if save:
        return "a killed Redis or a power loss loses everything since its last snapshot"
    return "nothing is kept on disk: everything is lost when Redis ends"
