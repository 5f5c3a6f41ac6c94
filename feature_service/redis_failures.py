"""Says what a failure of Redis means to a caller, and whether another try may help. Knows no connection and no key.

Whatever is not listed here is a defect of ours and stays the exception that it is.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from redis import exceptions

from feature_service.redis_security import causes, describe_handshake
from feature_service.value_format import FormatError
from service_runtime.errors import ResourceExhausted, ServiceError, Unavailable

FORBIDDEN = "REDIS_FORBIDS"
_RETRY_AFTER_S = 1.0
# Memory is freed by people, or by what expires: not within a moment.
_RETRY_FULL_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Failure:
    """One way in which Redis fails.

    Attributes:
        reason: What callers may branch on.
        text: For a person; it names no address, which stays in the log of who configured it.
        passes: Whether another try within the same call may help: what moves on its own within a second.
        exhausted: Whether it is for want of room: RESOURCE_EXHAUSTED instead of UNAVAILABLE, which clients repeat.
        unreadable: Whether a newer build wrote what is there: FAILED_PRECONDITION.
    """

    reason: str
    text: str
    passes: bool = False
    exhausted: bool = False
    unreadable: bool = False

    def error(self) -> ServiceError:
        """Returns what the caller is told."""
        if self.unreadable:
            return FormatError(self.text, reason=self.reason)
        if self.exhausted:
            return ResourceExhausted(self.text, reason=self.reason, retry_after_s=_RETRY_FULL_AFTER_S)
        return Unavailable(self.text, reason=self.reason, retry_after_s=_RETRY_AFTER_S)


_AWAY = Failure("REDIS_UNAVAILABLE", "Redis cannot be reached", passes=True)
_REFUSES = Failure("REDIS_REFUSES_US", "Redis refuses our user or password")
_FORBIDS = Failure(FORBIDDEN, "Redis forbids our user a command or a key that we need")
_LOADING = Failure("REDIS_LOADING", "Redis is loading its data", passes=True)
_READ_ONLY = Failure("REDIS_READ_ONLY", "this Redis is a read-only replica", passes=True)
_FULL = Failure("REDIS_OUT_OF_MEMORY", "Redis is out of memory: it answers reads and takes no writes", exhausted=True)
_SLOW = Failure("REDIS_TIMEOUT", "Redis does not answer in time")
_DISK = Failure("REDIS_CANNOT_PERSIST", "Redis cannot write to its disk and takes no writes")
_REPLICAS = Failure("REDIS_TOO_FEW_REPLICAS", "Redis has fewer replicas than it needs to take writes")
_BUSY = Failure("REDIS_BUSY", "Redis is busy running a script of somebody else")
_CLUSTER = Failure("REDIS_CLUSTER_DOWN", "the Redis cluster is down or failing over", passes=True)
_MOVING = Failure("REDIS_RESHARDING", "slots of the Redis cluster are moving", passes=True)
_IS_CLUSTER = Failure("REDIS_IS_A_CLUSTER", "this Redis is a cluster: set FEATURE_REDIS_CLUSTER=true")
_CONNECTIONS = Failure("REDIS_CONNECTIONS_IN_USE", "all connections to Redis are in use")

_BY_KIND: list[tuple[type[Exception], Failure]] = [
    (exceptions.AuthenticationError, _REFUSES),
    (exceptions.AuthorizationError, _REFUSES),
    (exceptions.BusyLoadingError, _LOADING),
    (exceptions.MaxConnectionsError, _CONNECTIONS),
    (exceptions.TryAgainError, _MOVING),
    (exceptions.AskError, _MOVING),
    (exceptions.ClusterError, _CLUSTER),
    (exceptions.RedisClusterException, _CLUSTER),
    (exceptions.TimeoutError, _SLOW),
    (TimeoutError, _SLOW),
    (exceptions.ConnectionError, _AWAY),
    (OSError, _AWAY),
]
# By the first word of Redis's answer (https://github.com/redis/redis/blob/7.0/src/server.c, createSharedObjects).
_BY_CODE = {
    "LOADING": _LOADING,
    "READONLY": _READ_ONLY,
    "OOM": _FULL,
    "MISCONF": _DISK,
    "NOREPLICAS": _REPLICAS,
    "BUSY": _BUSY,
    "NOAUTH": _REFUSES,
    "NOPERM": _FORBIDS,
    "CLUSTERDOWN": _CLUSTER,
    "MASTERDOWN": _CLUSTER,
    "TRYAGAIN": _MOVING,
}
_CODES_OF_KINDS: list[tuple[type[Exception], str]] = [
    (exceptions.ReadOnlyError, "READONLY"),
    (exceptions.OutOfMemoryError, "OOM"),
    (exceptions.NoPermissionError, "NOPERM"),
]
# Redis 7.0 and 7.2 have no code for it (their script_lua.c).
_FORBIDDEN_WITHIN_SCRIPT = ("The user executing the script can't ", "ACL failure in script")
# Redis 6.2 hides what failed within a script behind where: "... @user_script:12: -OOM command not allowed ...".
_WITHIN_SCRIPT = re.compile(r"@user_script: ?\d+: -?([A-Z]+) ")
# What user_state.lua raises; Redis puts the place within the script before it, and versions differ in how.
_NEWER_FORMAT = re.compile(r"NEWERFORMAT (.+? has format \d+, this build knows (?:\d+ and )?\d+)")


def failure_of(error: Exception, *, on_cluster: bool = False) -> Failure | None:
    """Returns how Redis failed; None if it did not, and the error is a defect of ours."""
    for cause in causes(error):
        untrusted = describe_handshake(cause)
        if untrusted is not None:
            return Failure("REDIS_REFUSES_US", untrusted)
    if isinstance(error, exceptions.MovedError) and not on_cluster:
        return _IS_CLUSTER
    for kind, failure in _BY_KIND:
        if isinstance(error, kind):
            return failure
    newer = _NEWER_FORMAT.search(str(error)) if isinstance(error, exceptions.ResponseError) else None
    if newer is not None:
        return Failure(FormatError.default_reason, newer[1], unreadable=True)
    return _BY_CODE.get(_code_of(error))


@contextmanager
def hung_up() -> Iterator[None]:
    """Makes a ConnectionError of what is raised where redis-py 8.1 lets a connection be used that it is closing."""
    try:
        yield
    except AttributeError as error:
        # A part of the connection, which is None by now.
        if error.obj is not None or error.name is None:
            raise
        raise ConnectionError("the connection was hung up") from error
    except RuntimeError as error:
        # What uvloop says of its transport.
        if "the handler is closed" not in str(error):
            raise
        raise ConnectionError("the connection was hung up") from error


def describe(error: Exception) -> str:
    """Returns why Redis cannot be asked, for a person."""
    failure = failure_of(error)
    return _AWAY.text if failure is None else failure.text


def _code_of(error: Exception) -> str:
    for kind, code in _CODES_OF_KINDS:
        if isinstance(error, kind):
            return code
    if not isinstance(error, exceptions.ResponseError):
        return ""
    # What redis-py puts before it quotes the command, and with it ids of callers.
    answer = str(error.args[0] if error.args else "").rpartition(" of pipeline caused error: ")[2].lstrip("('\"")
    if answer.startswith(_FORBIDDEN_WITHIN_SCRIPT):
        return "NOPERM"
    within = _WITHIN_SCRIPT.search(answer)
    return within[1] if within else answer.partition(" ")[0]
