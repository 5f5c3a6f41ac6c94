"""Names what feature_service can be told, as FEATURE_* variables. The only place that reads the environment."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import SettingsConfigDict
from redis.asyncio.connection import parse_url

from feature_service.lifetimes import Lifetimes
from feature_service.redis_security import RedisSecurity, tls_context, why_unusable
from service_runtime.settings import ListenAddress, OptionalListenAddress, ReadableFile, ServiceSettings

EMBEDDED = "embedded"
_MAX_TTL_S = 100 * 365 * 86_400.0


class FeatureSettings(ServiceSettings):
    """Settings of feature_service."""

    model_config = SettingsConfigDict(env_prefix="FEATURE_")

    listen: ListenAddress = Field(
        default="127.0.0.1:50051",
        description="host:port of the gRPC server; port 0 takes a free one and logs it.",
    )
    metrics_listen: OptionalListenAddress = Field(
        default="127.0.0.1:51051",
        description="host:port of the HTTP server with /metrics; port 0 takes a free one and logs it, `off` none.",
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description=(
            "redis://, rediss:// or unix:// of a Redis 6.2 or newer, or `embedded`: start a redis-server of our own "
            "in FEATURE_DATA_DIR and stop it with the service."
        ),
    )
    redis_cluster: bool = Field(
        default=False, description="Whether FEATURE_REDIS_URL names a server of a Redis cluster, by which it is found."
    )
    redis_user: str = Field(
        default="", max_length=256, description="Our name in the ACL of Redis; empty is its default user."
    )
    redis_password: SecretStr = Field(
        default=SecretStr(""), description="Our password in Redis; rather name a file that has it."
    )
    redis_password_file: ReadableFile | None = Field(
        default=None, description="File with our password in Redis, read again with each new connection."
    )
    redis_ca_file: ReadableFile | None = Field(
        default=None,
        description="With rediss://: certificates (PEM) of who signed that of Redis; nobody else is trusted then. "
        "By default those that this machine trusts.",
    )
    redis_cert_file: ReadableFile | None = Field(
        default=None, description="With rediss://: our own certificate (PEM), if Redis asks its clients for one."
    )
    redis_key_file: ReadableFile | None = Field(
        default=None, description="The key (PEM) of FEATURE_REDIS_CERT_FILE, without a password."
    )
    write_ack: Literal["local", "replica"] = Field(
        default="local",
        description=(
            "When a write counts as done: `local` once the server has it, which a failover may lose, or `replica` "
            "once a replica has it too; else UNAVAILABLE."
        ),
    )
    data_dir: Path = Field(default=Path(".run/redis"), description="Folder of the embedded Redis; made if absent.")
    history_window: int = Field(
        default=200, ge=1, le=1000, description="Newest movies kept per user; older ones stay in the seen set only."
    )
    profile_ttl_s: float = Field(
        default=0, ge=0, le=_MAX_TTL_S, description="How long a profile lives after it was last written; 0 is for ever."
    )
    history_ttl_s: float = Field(
        default=0,
        ge=0,
        le=_MAX_TTL_S,
        description="How long a history, and what was ever watched, lives after its last change; 0 is for ever.",
    )
    expired_visible_s: float = Field(
        default=86_400,
        ge=0,
        le=_MAX_TTL_S,
        description="How long readers are told that a user expired before Redis forgets him altogether.",
    )
    event_max_ahead_s: float = Field(
        default=86_400,
        ge=0,
        le=_MAX_TTL_S,
        description=(
            "How far ahead of our clock the time of an event may be, in seconds. Clocks of phones are wrong by hours; "
            "an event from further ahead would hide all that the user does until then."
        ),
    )
    change_ring_size: int = Field(
        default=100_000,
        ge=1000,
        le=10_000_000,
        description="Changes that a subscriber of StreamChanges may be behind before it has to begin anew.",
    )
    log_max_entries: int = Field(
        default=1_000_000,
        ge=1000,
        le=1_000_000_000,
        description=(
            "Entries that the event log keeps at most, in all; about 100 bytes each. Beyond it the oldest go, also "
            "those that a registered export has not read, which then sees a gap."
        ),
    )
    log_max_age_s: float = Field(
        default=30 * 86_400.0,
        gt=0,
        le=3650 * 86_400.0,
        description="How old entries of the event log become, in seconds, unless a registered export still needs them.",
    )
    redis_timeout_s: float = Field(
        default=5.0, gt=0, le=60, description="How long one command to Redis may take, in seconds."
    )
    redis_connections: int = Field(
        default=16, ge=1, le=1000, description="Connections to Redis at most; further commands wait."
    )

    def lifetimes(self) -> Lifetimes:
        """Returns how long data lives."""
        return Lifetimes(
            int(self.profile_ttl_s * 1000), int(self.history_ttl_s * 1000), int(self.expired_visible_s * 1000)
        )

    def redis_security(self) -> RedisSecurity:
        """Returns who we are to Redis, and whom we trust."""
        return RedisSecurity(
            user=self.redis_user,
            password=self.redis_password,
            password_file=self.redis_password_file,
            ca_file=self.redis_ca_file,
            cert_file=self.redis_cert_file,
            key_file=self.redis_key_file,
        )

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, url: SecretStr) -> SecretStr:
        text = url.get_secret_value()
        if text != EMBEDDED and not text.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must be `embedded` or begin with redis://, rediss:// or unix://")
        if text != EMBEDDED:
            try:
                parse_url(text)
            except ValueError:
                # Its own text may quote the password.
                raise ValueError("is no URL of a Redis, like redis://:password@host:6379/0") from None
        return url

    @model_validator(mode="after")
    def _one_way_to_redis(self) -> Self:
        url, security = self.redis_url.get_secret_value(), self.redis_security()
        problems = []
        if self.redis_password.get_secret_value() and self.redis_password_file:
            problems.append("FEATURE_REDIS_PASSWORD and FEATURE_REDIS_PASSWORD_FILE are both set: one is enough")
        where = {} if url == EMBEDDED else parse_url(url)
        if security.credentials() and (url == EMBEDDED or "username" in where or "password" in where):
            problems.append("FEATURE_REDIS_USER and …_PASSWORD need a FEATURE_REDIS_URL without user and password")
        if any(name.startswith("ssl_") for name in where):
            problems.append("FEATURE_REDIS_URL: its ssl_… go into FEATURE_REDIS_CA_FILE, …_CERT_FILE and …_KEY_FILE")
        if (self.redis_cert_file is None) != (self.redis_key_file is None):
            problems.append("FEATURE_REDIS_CERT_FILE and FEATURE_REDIS_KEY_FILE belong together")
        elif security.ca_file or security.cert_file:
            if not url.startswith("rediss://"):
                problems.append(
                    "FEATURE_REDIS_CA_FILE, …_CERT_FILE and …_KEY_FILE need a FEATURE_REDIS_URL of rediss://"
                )
            try:
                tls_context(security)
            except (OSError, ValueError) as error:
                problems.append(f"FEATURE_REDIS_CA_FILE, …_CERT_FILE, …_KEY_FILE: {why_unusable(error)}")
        if problems:
            raise PydanticCustomError("redis_security", "{problems}", {"problems": "; ".join(problems)})
        return self
