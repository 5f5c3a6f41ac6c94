"""Says who calls and what he may do: bearer tokens known by their hashes, limits per caller. Knows no RPC by name.

A file names callers, one token a line; a line that begins with # is a remark:

    # NAME    HASH         what he may do, each of it optional
    web       sha256:9f86…
    web       sha256:60ae… methods=TopK,PredictRating concurrency=64 message_bytes=100000

A token is 256 random bits, so its hash needs no salt and no slowness: nobody finds the one from the other, and looking
it up costs microseconds. A name may have several tokens, so that an old one goes on while a new one is handed out; what
its tokens have under way counts together. The file is read again when it changes. One that cannot be read, or has a
mistake, changes nothing and is told in the log.

Limits for all hold where a line names none; where nobody needs a token, a caller is the host that he calls from.

`python -m service_runtime.security NAME` makes a token.
"""

import argparse
import hashlib
import hmac
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from service_runtime.errors import PermissionDenied, ResourceExhausted, TooLarge, Unauthenticated
from service_runtime.file_stamp import stamp
from service_runtime.reader_gone import quiet_when_reader_is_gone

_log = structlog.get_logger(__name__)
# So that a scanner of secrets knows one when it sees one.
TOKEN_PREFIX = "mqt_"
_LINE = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,64})\s+sha256:(?P<hash>[0-9a-f]{64})(?P<rights>(\s+\S+)*)\s*")
_METHOD = re.compile(r"[A-Z][A-Za-z0-9]*")
_LOOK_EVERY_S = 1.0
_RETRY_AFTER_S = 0.5


class UnusableFileError(Exception):
    """A file of tokens or certificates cannot be used; the text names it and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one caller may have at most if nothing else is said of him.

    Attributes:
        max_concurrent: How many calls he may have under way, streams too; None for as many as there are.
        max_message_bytes: How large a request of his may be; None for as large as any.
    """

    max_concurrent: int | None = None
    max_message_bytes: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Rights:
    """What one token allows.

    Attributes:
        name: Of the caller, for logs and metrics.
        methods: Names of the RPCs that he may call; None for all.
        max_concurrent: How many calls he may have under way, streams too; None for as many as there are.
        max_message_bytes: How large a request of his may be; None for as large as any.
    """

    name: str
    methods: frozenset[str] | None = None
    max_concurrent: int | None = None
    max_message_bytes: int | None = None


class CallCounts:
    """What callers have under way, and how often one of them was over a limit of his.

    Attributes:
        running: Calls under way, by name or host of the caller; who has none may be absent.
        refused: Calls that were refused, by the limit that they were over.
    """

    __slots__ = ("refused", "running")

    def __init__(self) -> None:
        self.running: dict[str, int] = {}
        self.refused = {"concurrency": 0, "message_bytes": 0}


class Caller:
    """Who makes a call, as far as it is known.

    Attributes:
        name: Of the caller; empty if nobody asked for it, or he gave none that is known.
    """

    __slots__ = ("_counted_as", "_counts", "_refusal", "_rights", "name")

    def __init__(
        self,
        rights: Rights,
        counts: CallCounts | None = None,
        refusal: tuple[str, str] | None = None,
        host: str = "",
    ) -> None:
        """Stores what he may do.

        Args:
            rights: What his token allows.
            counts: Where his calls are counted; None counts nothing.
            refusal: Why he may do nothing at all, as text and reason.
            host: What he is told from others by if he has no name.
        """
        self.name = rights.name
        self._rights = rights
        self._counts = counts
        self._refusal = refusal
        self._counted_as = rights.name or host

    def authenticate(self) -> None:
        """Raises `Unauthenticated` if there is no token, or nobody knows it."""
        if self._refusal is not None:
            raise Unauthenticated(self._refusal[0], reason=self._refusal[1])

    def enter(self, method: str, request_bytes: int) -> None:
        """Lets a call in; `leave` has to follow.

        Args:
            method: Full name, for example "/marquee.v1.ModelService/TopK".
            request_bytes: Size of its request.

        Raises:
            Unauthenticated: There is no token, or nobody knows it.
            PermissionDenied: The caller may not call this method.
            ResourceExhausted: He has too many calls under way.
            TooLarge: The request is larger than his may be.
        """
        self.authenticate()
        rights = self._rights
        if rights.methods is not None and method.rpartition("/")[2] not in rights.methods:
            raise PermissionDenied("this token is not for this method", reason="METHOD_NOT_ALLOWED")
        counts = self._counts
        if counts is None:
            return
        allowed = rights.max_message_bytes
        if allowed is not None and request_bytes > allowed:
            counts.refused["message_bytes"] += 1
            raise TooLarge(
                f"the request has {request_bytes} bytes, and this caller may send {allowed} at most",
                metadata={"limit": "message_bytes", "allowed": str(allowed)},
            )
        running = counts.running.get(self._counted_as, 0)
        allowed = rights.max_concurrent
        if allowed is not None and running >= allowed:
            counts.refused["concurrency"] += 1
            raise ResourceExhausted(
                f"this caller has {running} calls under way, and may have {allowed} at a time",
                reason="TOO_MANY_CALLS",
                retry_after_s=_RETRY_AFTER_S,
                metadata={"limit": "concurrency", "allowed": str(allowed)},
            )
        counts.running[self._counted_as] = running + 1

    def leave(self) -> None:
        """Notes that a call that was let in has ended."""
        counts = self._counts
        if counts is None:
            return
        running = counts.running[self._counted_as] - 1
        if running:
            counts.running[self._counted_as] = running
        else:
            # Hosts come and go, and nobody says how many there will be.
            del counts.running[self._counted_as]


ANYBODY = Caller(Rights(""))


class Callers:
    """All who may call, by a file of tokens; without a file it is anybody.

    Attributes:
        counts: What they have under way.
    """

    def __init__(
        self,
        tokens_file: Path | None,
        clock: Callable[[], float] = time.monotonic,
        limits: Limits = NO_LIMITS,
    ) -> None:
        """Stores where the tokens are; `clock` gives monotonic seconds, `limits` hold where the file names none."""
        self.counts = CallCounts()
        self._file = tokens_file
        self._clock = clock
        self._limits = limits
        self._tells_hosts_apart = limits != NO_LIMITS
        self._for_hosts = Rights("", None, limits.max_concurrent, limits.max_message_bytes)
        self._looked_at = 0.0
        self._stamp: object = None
        self._by_hash: dict[bytes, tuple[bytes, Caller]] = {}

    @property
    def known_by_token(self) -> bool:
        """Whether callers need a token."""
        return self._file is not None

    def open(self) -> None:
        """Reads the file. Raises `UnusableFileError` if it cannot be read or has a mistake."""
        if self._file is not None:
            self._read(self._file)
            self._looked_at = self._clock()

    def identify(self, authorization: str, peer: str) -> Caller:
        """Returns who calls; if a token is needed and nobody knows him, one who may do nothing.

        Args:
            authorization: Of the call's metadata.
            peer: Where the call comes from, as gRPC writes it: "ipv4:10.0.0.7:50122".
        """
        if self._file is None:
            if not self._tells_hosts_apart:
                return ANYBODY
            return Caller(self._for_hosts, self.counts, host=peer.rpartition(":")[0] or peer)
        now = self._clock()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            self._look_again(self._file)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _NO_TOKEN
        # What a table of hashes tells by its timing is no help in finding a token.
        digest = hashlib.sha256(token.encode()).digest()
        known, caller = self._by_hash.get(digest, _NOBODY)
        return caller if hmac.compare_digest(known, digest) else _UNKNOWN_TOKEN

    def _look_again(self, file: Path) -> None:
        try:
            if stamp(file) != self._stamp:
                self._read(file)
                _log.info("tokens_read", file=str(file), num_tokens=len(self._by_hash))
        except (UnusableFileError, OSError) as error:
            reason = str(error) if isinstance(error, UnusableFileError) else f"{file}: {error.strerror}"
            _log.error("tokens_refused", reason=reason)

    def _read(self, file: Path) -> None:
        try:
            self._stamp, text = stamp(file), file.read_text(encoding="utf-8")
        except OSError as error:
            raise UnusableFileError(f"{file} cannot be read: {error.strerror}") from error
        except ValueError:
            raise UnusableFileError(f"{file} is no text in UTF-8") from None
        self._by_hash = {
            digest: (digest, Caller(self._within_limits(rights), self.counts))
            for digest, rights in read_tokens(text, str(file)).items()
        }

    def _within_limits(self, rights: Rights) -> Rights:
        """Returns the rights, with the limits for all where a line names none of its own."""
        return replace(
            rights,
            max_concurrent=rights.max_concurrent or self._limits.max_concurrent,
            max_message_bytes=rights.max_message_bytes or self._limits.max_message_bytes,
        )


_NOBODY: tuple[bytes, Caller] = (b"", ANYBODY)
_NO_TOKEN = Caller(Rights(""), refusal=("a token is needed: metadata `authorization: Bearer TOKEN`", "TOKEN_MISSING"))
_UNKNOWN_TOKEN = Caller(Rights(""), refusal=("nobody knows this token", "TOKEN_UNKNOWN"))


def read_tokens(text: str, name: str) -> dict[bytes, Rights]:
    """Returns the rights of each token, by its hash.

    Args:
        text: The file's text.
        name: Its name, for errors.

    Raises:
        UnusableFileError: A line is none; says which, and nothing of what it holds. Or there is no line.
    """
    found: dict[bytes, Rights] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise UnusableFileError(
                f"{name}, line {number}: must be NAME sha256:64-HEX-DIGITS, then rights as KEY=VALUE"
            )
        try:
            rights = _rights(match["name"], match["rights"].split())
        except ValueError as error:
            raise UnusableFileError(f"{name}, line {number}: {error}") from None
        digest = bytes.fromhex(match["hash"])
        if digest in found:
            raise UnusableFileError(f"{name}, line {number}: the same token a second time")
        found[digest] = rights
    if not found:
        raise UnusableFileError(f"{name} names nobody: nobody could call")
    return found


def _rights(name: str, words: Sequence[str]) -> Rights:
    given = dict(word.partition("=")[::2] for word in words)
    if len(given) < len(words) or not given.keys() <= {"methods", "concurrency", "message_bytes"}:
        raise ValueError("a right is methods=, concurrency= or message_bytes=, each once")
    methods = given["methods"].split(",") if "methods" in given else None
    if methods is not None and not all(_METHOD.fullmatch(method) for method in methods):
        raise ValueError("methods= must be names of RPCs with commas between them, like TopK,PredictRating")
    return Rights(
        name,
        None if methods is None else frozenset(methods),
        _count(given, "concurrency"),
        _count(given, "message_bytes"),
    )


def _count(given: Mapping[str, str], key: str) -> int | None:
    if key not in given:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,8}", given[key]):
        raise ValueError(f"{key}= must be a whole number of 1 or more")
    return int(given[key])


def make_token() -> tuple[str, str]:
    """Returns a new token and how a file of tokens names it."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    return token, f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def main(arguments: Sequence[str]) -> None:
    """Makes a token, as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m service_runtime.security",
        description="Makes a token. The line goes into the services' file of tokens, the token to the caller only.",
    )
    parser.add_argument("name", help="of the caller: letters, digits, . _ -")
    parser.add_argument("rights", nargs="*", help="methods=A,B  concurrency=N  message_bytes=N")
    parser.add_argument(
        "--token-file", type=Path, help="writes the token here, readable by you only, and prints the line"
    )
    with quiet_when_reader_is_gone():
        given = parser.parse_args(arguments)
    token, known_as = make_token()
    line = " ".join([given.name, known_as, *given.rights])
    try:
        read_tokens(line, "the line")
        if given.token_file is not None:
            descriptor = os.open(given.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(token + "\n")
    except (UnusableFileError, OSError) as error:
        parser.error(str(error))
    with quiet_when_reader_is_gone():
        if given.token_file is None:
            print(token)
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
