"""Answers HTTP on a port of its own: what an operator's programs read. Knows pages; knows no metric and no gRPC.

It runs in threads beside the event loop: making the text of a scrape takes some milliseconds, which no request should
wait for. Nobody is asked who he is, so it listens on the loopback address unless it is told otherwise.
"""

import json
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import make_wsgi_app

from service_runtime.metrics import Metrics
from service_runtime.server import StartError
from service_runtime.settings import OFF

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_log = structlog.get_logger(__name__)

_SILENT_AFTER_S = 10.0


class MetricsServer:
    """Serves /metrics, and pages of JSON beside it, while its `with` block lasts."""

    def __init__(self, metrics: Metrics, listen: str, pages: Mapping[str, Callable[[], object]] | None = None) -> None:
        """Stores what to serve.

        Args:
            metrics: What /metrics says.
            listen: host:port; port 0 takes a free one, see `address`; "off" serves nothing.
            pages: By path, what answers in JSON; called in another thread than the event loop's.
        """
        self._metrics = metrics
        self._listen = listen
        self._pages = dict(pages or {})
        self._server: _Server | None = None
        self.address = ""

    def __enter__(self) -> "MetricsServer":
        """Listens. Raises `StartError` if the address cannot be had."""
        if self._listen == OFF:
            return self
        host, _, port = self._listen.rpartition(":")
        try:
            server = _Server(host.strip("[]"), int(port))
        except OSError as error:
            raise StartError(f"cannot listen for metrics on {self._listen}: {error.strerror or error}") from error
        scraped: Callable[..., Iterable[bytes]] = make_wsgi_app(self._metrics.registry)

        def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "")
            if path == "/metrics":
                return scraped(environ, start_response)
            if path in self._pages:
                start_response("200 OK", [("Content-Type", "application/json")])
                return [json.dumps(self._pages[path](), indent=1).encode()]
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [f"there is {' and '.join(sorted(['/metrics', *self._pages]))}\n".encode()]

        server.set_app(answer)
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        self._server = server
        self.address = f"{host}:{server.server_port}"
        _log.info("metrics_listening", address=self.address)
        return self

    def __exit__(self, *_: object) -> None:
        """Stops listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _Handler(WSGIRequestHandler):
    """Writes no line a request, and waits for nobody for ever."""

    timeout = _SILENT_AFTER_S

    def log_message(self, *_: Any) -> None:
        """Says nothing: a scrape is no event."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a request, which a process that ends does not wait for."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        (self.address_family, *_, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        super().__init__((str(address[0]), port), _Handler)

    def server_bind(self) -> None:
        """Binds without asking a name server who this host is, which may take long."""
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()
