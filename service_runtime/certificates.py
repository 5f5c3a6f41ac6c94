"""Gives a gRPC server its certificate, and a new one when the files are renewed. Knows files; knows no caller.

gRPC asks before each handshake, in a thread of its own: a new connection gets the new certificate, those that stand go
on as they are.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from service_runtime.file_stamp import stamp
from service_runtime.security import UnusableFileError

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where certificates lie, all in PEM.

    Attributes:
        certificate: The server's, then those of whoever signed it, but for the root.
        key: Its key, without a password.
        client_authority: Of who signs callers' certificates, which are then required; None asks callers for none.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None


class ServerCertificates:
    """The certificate of one server."""

    def __init__(self, files: CertificateFiles) -> None:
        """Stores where it is."""
        self._files = files
        self._stamps: object = None
        self._refused: object = None

    def open(self) -> grpc.ServerCredentials:
        """Returns what a server listens with. Raises `UnusableFileError` if the files are not what they should be."""
        self._stamps = self._look()
        first = self._read()
        return grpc.dynamic_ssl_server_credentials(
            first,
            self._renewed,  # type: ignore[arg-type]  # None is documented
            require_client_authentication=self._files.client_authority is not None,
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns the certificate for a new connection, None for the one before. Threads of gRPC's own ask."""
        stamps: object = None
        try:
            stamps = self._look()
            if stamps in (self._stamps, self._refused):
                return None
            renewed = self._read()
        except UnusableFileError as error:
            # A certificate and its key are two files, and one is written first: the next connection looks again.
            if self._refused != stamps or stamps is None:
                _log.error("certificate_refused", reason=str(error))
            self._refused = stamps
            return None
        self._stamps, self._refused = stamps, None
        _log.info("certificate_renewed", file=str(self._files.certificate))
        return renewed

    def _look(self) -> object:
        files = self._files
        try:
            return tuple(stamp(file) for file in (files.certificate, files.key, files.client_authority) if file)
        except OSError as error:
            raise UnusableFileError(f"{error.filename} cannot be read: {error.strerror}") from error

    def _read(self) -> grpc.ServerCertificateConfiguration:
        files = self._files
        check_certificate(files.certificate, files.key)
        if files.client_authority is not None:
            check_authority(files.client_authority)
        return grpc.ssl_server_certificate_configuration(
            [(files.key.read_bytes(), files.certificate.read_bytes())],
            root_certificates=None if files.client_authority is None else files.client_authority.read_bytes(),
        )


def check_certificate(certificate: Path, key: Path) -> None:
    """Raises `UnusableFileError` if these are not a certificate and its key; gRPC would not say what is wrong."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UnusableFileError(f"{key} is not the key of {certificate}") from None
        raise UnusableFileError(f"{certificate} and {key} are not a certificate and its key in PEM") from None
    except OSError as error:
        raise UnusableFileError(f"{certificate} or {key} cannot be read: {error.strerror}") from None


def check_authority(authority: Path) -> None:
    """Raises `UnusableFileError` if a file holds no certificates."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(authority)
    except ssl.SSLError:
        raise UnusableFileError(f"{authority} holds no certificates in PEM") from None
    except OSError as error:
        raise UnusableFileError(f"{authority} cannot be read: {error.strerror}") from None
