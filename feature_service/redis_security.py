"""How we show Redis who we are and know that it is Redis: TLS, user, password. Knows files; knows no command.

Password and certificates are read again with each new connection after their files changed, so that they can be renewed
while the service runs: connections that stand stay as they are.
"""

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from redis import exceptions
from redis.asyncio.connection import Connection, RedisSSLContext, SSLConnection
from redis.credentials import CredentialProvider

from service_runtime.file_stamp import stamp

# RFC 5280's reasons as OpenSSL numbers them (openssl/x509_vfy.h).
_WHY_NO_TRUST = {
    9: "is not valid yet",
    10: "has expired",
    18: "is signed by itself and not in FEATURE_REDIS_CA_FILE",
    19: "is signed by nobody in FEATURE_REDIS_CA_FILE",
    20: "is signed by nobody in FEATURE_REDIS_CA_FILE",
    62: "is for another host than FEATURE_REDIS_URL names",
    64: "is for another address than FEATURE_REDIS_URL names",
}
_NONE = SecretStr("")
_NO_PEM = "a file holds no certificate or key in PEM"
# The alerts of RFC 8446, section 6, with which a server refuses a client's certificate, as OpenSSL writes them.
_REFUSALS_OF_OURS = (
    "CERTIFICATE_REQUIRED",
    "BAD_CERTIFICATE",
    "UNKNOWN_CA",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_UNKNOWN",
    "ALERT_HANDSHAKE_FAILURE",
)


class CredentialsUnreadable(exceptions.AuthenticationError):
    """A file that makes a connection possible cannot be read now; the text names it."""


@dataclass(frozen=True, slots=True)
class RedisSecurity:
    """What connections to Redis need beside an address.

    Attributes:
        user: Name in Redis's ACL; empty for its default user.
        password: The password itself; empty if a file has it, or nothing.
        password_file: A file that holds the password.
        ca_file: Certificates (PEM) of whom the server's is trusted from; None for those of this machine.
        cert_file: Our certificate (PEM), if the server asks for one.
        key_file: Its key (PEM).
    """

    user: str = ""
    password: SecretStr = _NONE
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def credentials(self) -> Mapping[str, Any]:
        """Returns redis-py's arguments for user and password; they win over those of a URL."""
        if not (self.user or self.password.get_secret_value() or self.password_file):
            return {}
        return {"credential_provider": _Credentials(self)}

    def connection_class(self) -> type[Connection]:
        """Returns the class of connections that speak TLS."""
        # One for all connections, for reading a machine's certificates takes some milliseconds.
        context = _RenewedContext(self)

        class TlsConnection(SSLConnection):
            def __init__(self, **arguments: Any) -> None:
                super().__init__(**arguments)
                self.ssl_context = context

        return TlsConnection


class _Credentials(CredentialProvider):
    """Gives user and password to each new connection."""

    def __init__(self, security: RedisSecurity) -> None:
        self._security = security

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._security.password.get_secret_value()
        if self._security.password_file is not None:
            try:
                password = self._security.password_file.read_text(encoding="utf-8").strip("\r\n")
            except (OSError, ValueError) as error:
                raise CredentialsUnreadable(
                    f"FEATURE_REDIS_PASSWORD_FILE cannot be used: {why_unusable(error)}"
                ) from error
        return (self._security.user, password) if self._security.user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


class _RenewedContext(RedisSSLContext):
    """Makes a TLS context anew when a file has changed. Trusts nobody but whom the CA file names, if there is one."""

    def __init__(self, security: RedisSecurity) -> None:
        super().__init__(cert_reqs=ssl.CERT_REQUIRED, check_hostname=True)
        self._security = security
        self._made_from: object = None

    def get(self) -> ssl.SSLContext:
        security = self._security
        try:
            files = (security.ca_file, security.cert_file, security.key_file)
            found = [None if file is None else stamp(file) for file in files]
            if self.context is None or found != self._made_from:
                self.context, self._made_from = tls_context(security), found
        except (OSError, ValueError) as error:
            raise CredentialsUnreadable(
                f"FEATURE_REDIS_CA_FILE, …_CERT_FILE, …_KEY_FILE: {why_unusable(error)}"
            ) from error
        return self.context


def tls_context(security: RedisSecurity) -> ssl.SSLContext:
    """Returns the TLS context of connections.

    Raises:
        OSError: A file cannot be read, holds no certificate, or the key belongs to another one; ssl.SSLError is one.
    """
    context = ssl.create_default_context(cafile=security.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if security.cert_file is not None:
        context.load_cert_chain(security.cert_file, security.key_file)
    return context


def describe_handshake(error: BaseException) -> str | None:
    """Returns why Redis and we do not trust each other, for a person; None if that is not what failed."""
    if isinstance(error, CredentialsUnreadable):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        why = _WHY_NO_TRUST.get(error.verify_code, f"is not trusted ({error.verify_message})")
        return f"the certificate of Redis {why}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        if any(alert in reason for alert in _REFUSALS_OF_OURS):
            return "Redis refuses our certificate, or asks for one: FEATURE_REDIS_CERT_FILE"
        return f"TLS to Redis fails ({reason})"
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """Returns an error and what led to it, as far as Python knows: redis-py wraps what really happened."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__


def why_unusable(error: OSError | ValueError) -> str:
    """Returns what is wrong with a file, without a word of what is in it."""
    if isinstance(error, ssl.SSLError):
        return "the key belongs to another certificate" if error.reason == "KEY_VALUES_MISMATCH" else _NO_PEM
    return (error.strerror if isinstance(error, OSError) else None) or "it is no text"
