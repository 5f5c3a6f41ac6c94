"""Says who a caller is and whom he trusts: TLS, a certificate of his own, a token. Knows files; knows no RPC.

From the environment (`Credentials.from_environment`), each optional:

    MARQUEE_TLS=true            the service speaks TLS; implied by a file of certificates
    MARQUEE_TLS_CA_FILE         certificates (PEM) of who signed the service's; else those that this machine trusts
    MARQUEE_TLS_CERT_FILE       a certificate of our own (PEM), if the service asks for one
    MARQUEE_TLS_KEY_FILE        its key (PEM)
    MARQUEE_TOKEN_FILE          a file that holds our token; it is read again when it changes
    MARQUEE_TOKEN               the token itself
    MARQUEE_TOKEN_IN_CLEAR=true sends it without TLS too, to other machines: where something else encrypts
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0
_VARIABLES = {
    "tls": "TLS",
    "ca_file": "TLS_CA_FILE",
    "cert_file": "TLS_CERT_FILE",
    "key_file": "TLS_KEY_FILE",
    "token_file": "TOKEN_FILE",
    "token": "TOKEN",
    "token_in_clear": "TOKEN_IN_CLEAR",
}
_NAMES = tuple(_VARIABLES.values())
_BOOLEANS = {"": False, "false": False, "0": False, "true": True, "1": True}
_THIS_MACHINE = ("127.", "localhost:", "[::1]:", "unix:", "ipv4:127.", "dns:///localhost:")


class CredentialsError(ValueError):
    """Credentials cannot be used; the text says what would be right and quotes nothing of them."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who a caller is, and whom he trusts.

    Attributes:
        tls: Whether the service speaks TLS.
        ca_file: Certificates (PEM) of who signed that of the service; None for those that this machine trusts.
        cert_file: The caller's own certificate (PEM); None for none.
        key_file: Its key (PEM).
        token: The caller's token; empty for none, or if a file has it.
        token_file: A file that holds it.
        token_in_clear: Whether the token may leave this machine unencrypted.
        prefix: Of the environment variables that hold all this, for errors; empty if they do not.
    """

    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    token_in_clear: bool = False
    prefix: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises `CredentialsError` if parts contradict each other."""
        if (self.cert_file is None) != (self.key_file is None):
            absent, given = ("key_file", "cert_file") if self.key_file is None else ("cert_file", "key_file")
            raise CredentialsError(
                f"{self._name(absent)} is missing: a certificate and its key belong together, and "
                f"{self._name(given)} is set"
            )
        if (self.ca_file or self.cert_file) and not self.tls:
            raise CredentialsError(f"{self._name('tls')} must be true: certificates are of no use without TLS")
        if self.token and self.token_file:
            raise CredentialsError(f"{self._name('token')} and {self._name('token_file')} are both set: one is enough")
        if self.token and not _is_token(self.token):
            raise CredentialsError(f"{self._name('token')} must be one word of printable ASCII")

    def _name(self, attribute: str) -> str:
        """Returns by what a person sets an attribute."""
        return self.prefix + _VARIABLES[attribute] if self.prefix else attribute

    @classmethod
    def from_environment(cls, prefix: str = "MARQUEE_", environment: Mapping[str, str] | None = None) -> "Credentials":
        """Returns what the environment says.

        Raises:
            CredentialsError: A variable is misspelt, has a wrong value, or contradicts another.
        """
        given = os.environ if environment is None else environment
        known = {prefix + name for name in _NAMES}
        for variable in given:
            if variable.startswith((f"{prefix}TLS", f"{prefix}TOKEN")) and variable not in known:
                raise CredentialsError(f"{variable} means nothing; known are {', '.join(sorted(known))}")
        found = {name: given.get(prefix + name, "") for name in _NAMES}
        switches = {}
        for name in ("TLS", "TOKEN_IN_CLEAR"):
            if found[name].lower() not in _BOOLEANS:
                raise CredentialsError(f"{prefix}{name} must be true or false")
            switches[name] = _BOOLEANS[found[name].lower()]
        files = {name: Path(found[name]) if found[name] else None for name in _NAMES if name.endswith("_FILE")}
        return cls(
            switches["TLS"] or bool(files["TLS_CA_FILE"] or files["TLS_CERT_FILE"]),
            files["TLS_CA_FILE"],
            files["TLS_CERT_FILE"],
            files["TLS_KEY_FILE"],
            found["TOKEN"],
            files["TOKEN_FILE"],
            switches["TOKEN_IN_CLEAR"],
            prefix,
        )

    def for_channel(self) -> grpc.ChannelCredentials | None:
        """Returns by what a channel is opened, None for one in the clear. Raises `CredentialsError`."""
        if not self.tls:
            return None
        ca, key, certificate = (self._read(attribute) for attribute in ("ca_file", "key_file", "cert_file"))
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def token_for(self, target: str) -> "Token | None":
        """Returns the token for a target, None if there is none.

        Raises:
            CredentialsError: It would leave this machine unencrypted, or its file cannot be read.
        """
        if not self.token and self.token_file is None:
            return None
        if not (self.tls or self.token_in_clear or target.startswith(_THIS_MACHINE)):
            named = self._name("token" if self.token else "token_file")
            raise CredentialsError(
                f"{named}: a token goes to another machine over TLS only; "
                f"set {self._name('tls')}, or {self._name('token_in_clear')} where something else encrypts"
            )
        return Token(self.token, self.token_file, named=self._name("token_file"))

    def _read(self, attribute: str) -> bytes | None:
        file: Path | None = getattr(self, attribute)
        if file is None:
            return None
        try:
            text = file.read_bytes()
        except OSError as error:
            raise CredentialsError(f"{self._name(attribute)}: {file} cannot be read: {error.strerror}") from None
        if b"-----BEGIN" not in text:
            raise CredentialsError(f"{self._name(attribute)}: {file} is not in PEM, which begins with -----BEGIN")
        return text


class Token:
    """A token that may be renewed in its file."""

    def __init__(
        self,
        token: str,
        file: Path | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        named: str = "token_file",
    ) -> None:
        """Reads the file, which `named` sets. Raises `CredentialsError` if that fails."""
        self._file = file
        self._named = named
        self._clock = clock
        self._looked_at = clock()
        self._stamp: object = None
        self._header = f"Bearer {token}"
        self._problem = ""
        if file is not None:
            self._read(file)

    @property
    def header(self) -> str:
        """What goes into the metadata `authorization`.

        A file that cannot be used now leaves the token as it was, which a warning in the log says once.
        """
        now = self._clock()
        if self._file is not None and now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            try:
                self._read(self._file)
                self._problem = ""
            except CredentialsError as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    _log.warning("token not renewed: %s; the last good one is sent until then", error)
        return self._header

    def _read(self, file: Path) -> None:
        try:
            found = file.stat()
            stamp = found.st_mtime_ns, found.st_size, found.st_ino
            if stamp == self._stamp:
                return
            words = file.read_text(encoding="utf-8", errors="replace").split()
        except OSError as error:
            raise CredentialsError(f"{self._named}: {file} cannot be read: {error.strerror}") from None
        if len(words) != 1 or not _is_token(words[0]):
            raise CredentialsError(f"{self._named}: {file} must hold one token, of printable ASCII, and nothing else")
        self._stamp, self._header = stamp, f"Bearer {words[0]}"


def _is_token(text: str) -> bool:
    """Tells whether HTTP/2 could carry it: anything else fails every call, with an error that names no token."""
    return text.isascii() and text.isprintable() and " " not in text
