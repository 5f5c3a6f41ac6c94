"""Reads settings from the environment, once, and refuses what it does not understand. Knows no setting of a service."""

import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import pydantic_settings
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service_runtime.certificates import CertificateFiles
from service_runtime.reader_gone import quiet_when_reader_is_gone
from service_runtime.security import Limits
from service_runtime.server import MAX_MESSAGE_BYTES, Security

# Kubernetes gives a pod such variables for every service of its namespace, and a service may be called like our prefix.
_SERVICE_LINK = re.compile(r"(?:^|_)(?:SERVICE_(?:HOST|PORT(?:_\w+)?)|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?)?)$")


OFF = "off"
"""The address of a server that listens nowhere."""

_HOST_AND_PORT = re.compile(r".+:([0-9]{1,5})")


def _with_a_port(address: str) -> str:
    match = _HOST_AND_PORT.fullmatch(address)
    # gRPC takes a larger number modulo 65536, and so listens where nobody looks for it.
    if match is None or int(match[1]) > 65535:
        raise PydanticCustomError("listen", "must be host:port with a port of 0 to 65535")
    return address


ListenAddress = Annotated[str, AfterValidator(_with_a_port)]
"""host:port to listen on; port 0 takes a free one."""


def _with_a_port_or_off(address: str) -> str:
    if address == OFF:
        return address
    try:
        return _with_a_port(address)
    except PydanticCustomError:
        raise PydanticCustomError("listen", "must be off, or host:port with a port of 0 to 65535") from None


OptionalListenAddress = Annotated[str, AfterValidator(_with_a_port_or_off)]
"""As `ListenAddress`, or "off" to listen nowhere."""


def _readable(path: Path) -> Path:
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise PydanticCustomError("file", "{path} is no file that can be read", {"path": str(path)})
    return path


ReadableFile = Annotated[Path, AfterValidator(_readable)]
"""A file that is there and may be read."""


class SettingsError(Exception):
    """The environment is not a valid configuration; `problems` lists everything that is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class ServiceSettings(BaseSettings):
    """What both services can be told.

    A subclass sets `model_config = SettingsConfigDict(env_prefix="NAME_")` and adds fields. Each field has a
    description, a unit in its name and a bound in its type. An empty variable counts as absent.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_ignore_empty=True)

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe lines to log."
    )
    drain_timeout_s: float = Field(
        default=10.0, ge=0, le=600, description="How long running requests may take after SIGTERM, in seconds."
    )
    leave_notice_s: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="How long calls are answered as ever after SIGTERM while health says NOT_SERVING, in seconds, "
        "before they are refused: so long as a proxy that checks health takes to notice.",
    )

    max_connection_age_s: float = Field(
        default=300.0,
        ge=0.1,
        le=2_000_000,
        description="After so long, a tenth more or less, a caller is asked to make a new connection, in seconds: so "
        "he finds replicas that were added. What he has under way goes on.",
    )
    max_connection_age_grace_s: float | None = Field(
        default=None,
        ge=0.1,
        le=2_000_000,
        description="How long calls may go on upon a connection of that age before it is closed, in seconds; by "
        "default as long as they take, for streams never end by themselves.",
    )

    pending_wait_ms: float = Field(
        default=60.0,
        gt=0,
        le=60_000,
        description="How long a call may wait before the service takes it, in milliseconds, by what an empty call "
        "costs this machine at the start; calls beyond are refused by gRPC with CANCELLED, at almost no cost.",
    )
    max_pending_calls: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="How many calls may wait before the service takes them; a growing share is refused from three "
        "quarters of it on. By default what …_PENDING_WAIT_MS comes to.",
    )

    tls_cert_file: ReadableFile | None = Field(
        default=None,
        description="Certificate (PEM) by which our port speaks TLS, with those of who signed it; read again when "
        "renewed. Without it the port speaks in the clear.",
    )
    tls_key_file: ReadableFile | None = Field(default=None, description="Its key (PEM), without a password.")
    tls_client_ca_file: ReadableFile | None = Field(
        default=None,
        description="Certificates (PEM) of who signs those of callers, who then need one; without it nobody does.",
    )
    tokens_file: ReadableFile | None = Field(
        default=None,
        description="Names the callers by the hashes of their tokens (docs/security.md), and is read again when it "
        "changes. Without it anybody may call.",
    )
    caller_max_calls: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="How many calls one caller may have under way, streams too, where the file of tokens says nothing "
        "else; without that file a caller is a host. By default as many as there are.",
    )
    caller_max_request_bytes: int | None = Field(
        default=None,
        ge=1,
        le=MAX_MESSAGE_BYTES,
        description="How large one request of such a caller may be, in bytes; by default 4 MiB, as anybody's.",
    )
    health_listen: OptionalListenAddress = Field(
        default=OFF,
        description="host:port that answers grpc.health.v1 alone, in the clear, for probes that know no TLS; or off. "
        "The service's own port answers it too, without a token.",
    )
    slow_request_ms: float = Field(
        default=500.0,
        gt=0,
        le=3_600_000,
        description="A request that takes so long is kept, its ids hashed, for the page /slow beside /metrics.",
    )
    traces_endpoint: str = Field(
        default="",
        pattern=r"^(https?://[^/\s]+:[0-9]{1,5}/?)?$",
        description="http://host:port or https://host:port of a collector of OpenTelemetry traces (OTLP over gRPC); "
        "empty: nothing is traced.",
    )
    traces_sample_ratio: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the traces that begin here which are recorded; a caller who sends a traceparent decides "
        "for his own.",
    )

    def security(self) -> Security:
        """Returns who may call, and by what certificates."""
        certificates = None
        if self.tls_cert_file is not None and self.tls_key_file is not None:
            certificates = CertificateFiles(self.tls_cert_file, self.tls_key_file, self.tls_client_ca_file)
        return Security(
            certificates,
            self.tokens_file,
            "" if self.health_listen == OFF else self.health_listen,
            Limits(self.caller_max_calls, self.caller_max_request_bytes),
        )

    def connections(self) -> list[tuple[str, int]]:
        """Returns the gRPC channel arguments that say how long a connection lives."""
        options = [("grpc.max_connection_age_ms", round(self.max_connection_age_s * 1000))]
        if self.max_connection_age_grace_s is not None:
            options.append(("grpc.max_connection_age_grace_ms", round(self.max_connection_age_grace_s * 1000)))
        return options

    @model_validator(mode="after")
    def _certificate_with_its_key(self) -> Self:
        variables = self.variables()
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            absent, given = ("key", "cert") if self.tls_key_file is None else ("cert", "key")
            raise PydanticCustomError(
                "tls",
                "{absent} is missing: a certificate and its key belong together, and {given} is set",
                {"absent": variables[f"tls_{absent}_file"], "given": variables[f"tls_{given}_file"]},
            )
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise PydanticCustomError(
                "tls",
                "{tls_client_ca_file} needs {tls_cert_file} and {tls_key_file}",
                {name: variables[name] for name in ("tls_client_ca_file", "tls_cert_file", "tls_key_file")},
            )
        return self

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuses a subclass with a field that nobody described."""
        super().__pydantic_init_subclass__(**kwargs)
        silent = [name for name, field in cls.model_fields.items() if not field.description]
        if silent:
            raise TypeError(f"{cls.__name__}: settings without a description: {', '.join(silent)}")

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Returns the environment variable of each field."""
        prefix = cls.model_config.get("env_prefix", "")
        return {name: f"{prefix}{name}".upper() for name in cls.model_fields}

    @classmethod
    def load(cls) -> Self:
        """Reads the environment.

        Raises:
            SettingsError: A variable with our prefix is not a setting, or a value is missing or out of bounds.
        """
        problems = cls._misspelt()
        if garbled := cls._garbled():
            # Nothing further can look at them, nor quote them.
            raise SettingsError(problems + garbled)
        try:
            settings = cls()
        except pydantic.ValidationError as error:
            problems += [cls._describe(problem) for problem in error.errors()]
        except pydantic_settings.SettingsError as error:
            # Of a list: its text says the field, and nothing else does.
            named = [name for name in cls.model_fields if f'"{name}"' in str(error)]
            problems += [f'{cls.variables()[name]} must be JSON, such as ["a", "b"]' for name in named] or [str(error)]
        except OSError as error:
            # Of a path that no file can have, for example a longer one than there are.
            named = [name for name in cls.variables().values() if os.environ.get(name) == error.filename]
            problems += [f"{variable}: {error.strerror}" for variable in named] or [f"settings: {error.strerror}"]
        if problems:
            raise SettingsError(problems)
        return settings

    @classmethod
    def load_or_exit(cls, arguments: Sequence[str]) -> Self:
        """Reads the environment for a process; `--help` prints all settings, an error exits 2."""
        if any(argument in ("-h", "--help") for argument in arguments):
            with quiet_when_reader_is_gone():
                print(cls.listing())
            raise SystemExit(0)
        if arguments:
            print(f"unknown arguments: {' '.join(arguments)}; settings are environment variables, see --help")
            raise SystemExit(2)
        try:
            return cls.load()
        except SettingsError as error:
            print("\n".join(error.problems), file=sys.stderr)
            raise SystemExit(2) from None

    @classmethod
    def listing(cls) -> str:
        """Returns every setting with its default, bounds and meaning, for a person."""
        lines = []
        for name, variable in cls.variables().items():
            field = cls.model_fields[name]
            bounds = [f"{sign} {bound}" for sign, bound in _bounds(field.metadata)]
            default = "required" if field.is_required() else f"default {_plain(field.default)}"
            lines.append(f"{variable}  ({', '.join([default, *bounds])})\n    {field.description}")
        return "\n".join(lines)

    @classmethod
    def _misspelt(cls) -> list[str]:
        prefix = cls.model_config.get("env_prefix", "").upper()
        known = list(cls.variables().values())
        problems = []
        for variable in sorted(os.environ):
            name = variable.upper()
            if not prefix or not name.startswith(prefix) or name in known:
                continue
            if _SERVICE_LINK.search(name.removeprefix(prefix)):
                continue
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            problems.append(f"{variable} is not a setting; did you mean {nearest[0]}?")
        return problems

    @classmethod
    def _garbled(cls) -> list[str]:
        """Names the variables whose bytes are not UTF-8."""
        values = {variable: os.environb.get(variable.encode(), b"") for variable in cls.variables().values()}
        problems = []
        for variable, value in values.items():
            try:
                value.decode()
            except UnicodeDecodeError:
                problems.append(f"{variable} is not UTF-8")
        return problems

    @classmethod
    def _describe(cls, problem: Any) -> str:
        if not problem["loc"]:
            # Of several settings that do not go together: its text names them.
            return str(problem["msg"])
        name = str(problem["loc"][0])
        variable = cls.variables().get(name, name)
        if problem["type"] == "missing":
            return f"{variable} is required: {cls.model_fields[name].description}"
        # The value itself may be a secret and is not repeated.
        return f"{variable}: {problem['msg']}"


def _bounds(metadata: Sequence[Any]) -> Iterator[tuple[str, object]]:
    for sign, attribute in ((">", "gt"), (">=", "ge"), ("<", "lt"), ("<=", "le")):
        for constraint in metadata:
            if hasattr(constraint, attribute):
                yield sign, getattr(constraint, attribute)


def _plain(default: object) -> str:
    # A default is public, also that of a setting whose value may be a secret.
    text = default.get_secret_value() if isinstance(default, pydantic.SecretStr) else str(default)
    return text or "empty"
