"""Defines what a process counts and measures. Knows Prometheus and how its metrics are named; knows no metric.

How a component gets its metrics: the object graph makes one `Metrics` a process and hands it to whoever measures. He
defines what he needs in his constructor, binds the labels there, once (a lookup costs as much as the counting), and
counts where it happens::

    class DoorMetrics:
        def __init__(self, metrics: Metrics) -> None:
            opened = metrics.counter("door_openings", "Doors that were opened, by what opened them.", ["by"])
            self.by_hand = opened.labels("hand")

    DoorMetrics(metrics).by_hand.inc()

A component that must not know Prometheus keeps plain numbers, and `gauge_of` or `counter_of` reads them at a scrape.
Such a function runs in a thread of the scrape: it reads numbers and lengths and iterates over nothing that changes.

How metrics are named: marquee_<area>_<what>_<unit>, in base units (seconds, bytes, ratio of 1). The area is the process
(feature, model, trainer), or what several processes share (rpc). `_total` is added to counters by itself. Labels take
few values, known in advance: never an id, a title, an address or a text of somebody else.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Numbers = Mapping[tuple[str, ...], float]
"""Values by the values of their labels, in the labels' order."""

DURATION_BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05,
    0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""The same for all durations, so that they add up over processes and versions. A factor of at most 2 from one to the
next between 2.5 ms and 500 ms, where our answers lie, bounds what interpolation within a bucket can be wrong by."""

_NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_NOT_BASE_UNITS = re.compile(r"_(?:ms|us|ns|milliseconds|microseconds|minutes|hours|days|kb|mb|kib|mib|percent)$")


class Metrics:
    """The metrics of one process, in a registry of its own."""

    def __init__(self, area: str, registry: CollectorRegistry | None = None) -> None:
        """Stores where metrics go.

        Args:
            area: Second word of their names, for example "model".
            registry: Where they are kept; by default a new one, which also tells memory, processor time and garbage
                collections of the process.
        """
        if registry is None:
            # A time of creation beside each counter would double the lines, and nothing reads it.
            disable_created_metrics()  # type: ignore[no-untyped-call]
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
            PlatformCollector(registry=registry)
            GCCollector(registry=registry)
        self.registry = registry
        self._area = area

    def area(self, name: str) -> "Metrics":
        """Returns the same metrics, where new ones are named after another area."""
        return Metrics(name, self.registry)

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
        """Defines a number that only grows."""
        return Counter(self._full(name), meaning, labels, registry=self.registry)

    def gauge(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
        """Defines a number that goes up and down."""
        return Gauge(self._full(name), meaning, labels, registry=self.registry)

    def histogram(
        self, name: str, meaning: str, labels: Sequence[str] = (), buckets: Sequence[float] = DURATION_BUCKETS_S
    ) -> Histogram:
        """Defines how often values fell into which bucket; `buckets` are their upper bounds."""
        return Histogram(self._full(name), meaning, labels, registry=self.registry, buckets=buckets)

    def gauge_of(self, name: str, meaning: str, read: Callable[[], Numbers], labels: Sequence[str] = ()) -> None:
        """Defines numbers that `read` gives at each scrape, from another thread; without labels under the key ()."""
        self.registry.register(_AtScrape(GaugeMetricFamily, self._full(name), meaning, labels, read))

    def counter_of(self, name: str, meaning: str, read: Callable[[], Numbers], labels: Sequence[str] = ()) -> None:
        """Defines numbers that only grow and that `read` gives at each scrape, as for `gauge_of`."""
        self.registry.register(_AtScrape(CounterMetricFamily, self._full(name), meaning, labels, read))

    def text(self) -> str:
        """Returns all metrics as Prometheus reads them."""
        return generate_latest(self.registry).decode()

    def _full(self, name: str) -> str:
        if not _NAME.fullmatch(name) or name.endswith("_total"):
            raise ValueError(f"{name!r} is no name of a metric: words of a-z and 0-9, _ between them, no _total")
        if _NOT_BASE_UNITS.search(name):
            raise ValueError(f"{name!r}: metrics are in base units: seconds, bytes, ratio")
        return f"marquee_{self._area}_{name}"


class _AtScrape(Collector):
    """Numbers of somebody who does not know that they are collected."""

    def __init__(
        self,
        family: type[GaugeMetricFamily] | type[CounterMetricFamily],
        name: str,
        meaning: str,
        labels: Sequence[str],
        read: Callable[[], Numbers],
    ) -> None:
        self._family = family
        self._name = name
        self._meaning = meaning
        self._labels = labels
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Names the metric without reading it, so that the registry refuses a second one of its name."""
        return [self._family(self._name, self._meaning, labels=self._labels)]

    def collect(self) -> Iterable[Metric]:
        """Reads the numbers."""
        family = self._family(self._name, self._meaning, labels=self._labels)
        for values, number in self._read().items():
            family.add_metric(values, number)
        return [family]
