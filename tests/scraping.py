"""Reads the metrics of a process as Prometheus does. Knows the text format; knows no metric."""

import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


@dataclass(frozen=True)
class Scrape:
    """What a process said at one moment."""

    text: str

    def samples(self, name: str, **labels: str) -> Iterator[Sample]:
        """Yields the series of a name that have these labels, and maybe more."""
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    yield sample

    def total(self, name: str, **labels: str) -> float:
        """Returns the sum of these series.

        Raises:
            AssertionError: There is none.
        """
        values = [sample.value for sample in self.samples(name, **labels)]
        assert values, f"no series {name} {labels}"
        return sum(values)


def scrape(address: str) -> Scrape:
    """Asks the metrics port at host:port."""
    return Scrape(read_page(address, "/metrics"))


def read_page(address: str, path: str) -> str:
    """Returns a page of the metrics port at host:port."""
    with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
        return str(answer.read().decode())
