"""Makes one page of the pages of several workers. Knows metrics by their types; knows no metric by name, no model.

Counters and histograms are sums over all workers, also over those that died, so that no sum ever falls. A gauge is no
sum: each worker's stands beside the others', under a label of its own.
"""

import json
import threading
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_log = structlog.get_logger(__name__)

WORKER = "worker"
"""Label of gauges: the place of the worker, from 0."""

_ADDED = ("counter", "histogram", "summary")
_TIMEOUT_S = 5.0

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""


class WorkerMetrics(Collector):
    """What all workers measured; for a registry of its own."""

    def __init__(self, addresses: Callable[[], Mapping[int, str]]) -> None:
        """Stores where the pages are.

        Args:
            addresses: host:port of each worker's pages, by its place; those that start or are dead are left out.
        """
        self._addresses = addresses
        self._lock = threading.Lock()
        self._last: dict[int, tuple[str, dict[Key, float]]] = {}
        self._past: dict[Key, float] = {}

    def collect(self) -> Iterable[Metric]:
        """Reads all pages."""
        pages = {place: (address, _page(address, "/metrics")) for place, address in self._addresses().items()}
        with self._lock:
            return self._merged({place: page for place, page in pages.items() if page[1] is not None})

    def describe(self) -> Iterable[Metric]:
        """Names nothing in advance: workers say it."""
        return []

    def slow(self) -> dict[str, object]:
        """Returns the page of slow requests, the newest first, each with its worker."""
        found: dict[int, Any] = {}
        for place, address in self._addresses().items():
            page = _page(address, "/slow")
            if page is not None:
                found[place] = json.loads(page)
        requests = [{WORKER: place, **each} for place, page in found.items() for each in page["requests"]]
        return {
            "threshold_ms": max((page["threshold_ms"] for page in found.values()), default=None),
            "num_slow": sum(page["num_slow"] for page in found.values()),
            "requests": sorted(requests, key=lambda each: str(each["ended_at"]), reverse=True),
        }

    def _merged(self, pages: Mapping[int, tuple[str, str | None]]) -> Sequence[Metric]:
        families: dict[str, Metric] = {}
        sums: dict[str, dict[Key, float]] = {}
        for place, (address, text) in sorted(pages.items()):
            counted: dict[Key, float] = {}
            for family in text_string_to_metric_families(text or ""):
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    if family.type in _ADDED:
                        counted[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
                        sums.setdefault(family.name, {})[sample.name, tuple(sample.labels.items())] = 0.0
                    else:
                        merged.add_sample(sample.name, {**sample.labels, WORKER: str(place)}, sample.value)
            self._remember(place, address, counted)
        for name, keys in sums.items():
            for sample_name, labels in keys:
                families[name].add_sample(sample_name, dict(labels), self._sum((sample_name, tuple(sorted(labels)))))
        return list(families.values())

    def _remember(self, place: int, address: str, counted: dict[Key, float]) -> None:
        before = self._last.get(place)
        if before is not None and before[0] != address:
            # Another process has the place: what the one before counted is never told again.
            for key, value in before[1].items():
                self._past[key] = self._past.get(key, 0.0) + value
        self._last[place] = (address, counted)

    def _sum(self, key: Key) -> float:
        return self._past.get(key, 0.0) + sum(counted.get(key, 0.0) for _, counted in self._last.values())


def _page(address: str, path: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=_TIMEOUT_S) as answer:
            text: str = answer.read().decode()
            return text
    except OSError as error:
        _log.warning("worker_page_unread", address=address, reason=str(error))
        return None
