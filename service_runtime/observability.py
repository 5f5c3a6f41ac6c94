"""Puts together what is seen of a process: metrics, slow requests, traces. Knows settings; knows no metric by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

from service_runtime.metrics import Metrics
from service_runtime.metrics_server import MetricsServer
from service_runtime.observation import Observation
from service_runtime.settings import ServiceSettings
from service_runtime.slow_requests import SlowRequests
from service_runtime.tracing import Tracing, open_tracing


@dataclass(frozen=True, slots=True)
class Observability:
    """Who is told what.

    Attributes:
        metrics: Where components define their metrics.
        calls: Is told of each call of an RPC.
        tracing: Makes spans; None if nothing is traced.
        address: host:port of the pages; empty if there are none.
    """

    metrics: Metrics
    calls: Observation
    tracing: Tracing | None
    address: str = ""


@contextmanager
def observing(area: str, settings: ServiceSettings, metrics_listen: str) -> Iterator[Observability]:
    """Serves /metrics and /slow, and sends traces, until the block ends.

    Args:
        area: Second word of the process's own metrics; with _service behind it the name in traces.
        settings: What is slow, and where traces go.
        metrics_listen: host:port of the pages, or "off".

    Raises:
        StartError: The address cannot be had.
    """
    metrics = Metrics(area)
    slow = SlowRequests(settings.slow_request_ms / 1000)
    metrics.area("rpc").counter_of(
        "slow", "Calls that took as long as the page /slow keeps.", lambda: {(): slow.num_slow}
    )
    release = version("marquee")
    metrics.area("process").gauge_of("info", "1; the release of the process.", lambda: {(release,): 1}, ["version"])
    with (
        MetricsServer(metrics, metrics_listen, {"/slow": slow.page}) as pages,
        open_tracing(f"{area}_service", settings.traces_endpoint, settings.traces_sample_ratio) as tracing,
    ):
        calls = Observation(metrics, slow, tracing.server_spans if tracing else None)
        yield Observability(metrics, calls, tracing, pages.address)
