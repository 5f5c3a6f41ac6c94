"""What a process tells Prometheus, and where."""

import re
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service_runtime.metrics import Metrics
from service_runtime.metrics_server import MetricsServer
from service_runtime.server import StartError


def scrape(address: str, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
        return answer.read().decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_is_counted_is_scraped():
    """A counter, a gauge, a histogram and plain numbers are read over HTTP with their labels."""
    metrics = Metrics("oven")
    metrics.counter("loaves", "Loaves.", ["kind"]).labels("rye").inc(3)
    metrics.gauge("heat_ratio", "Heat.").set(0.5)
    metrics.histogram("bake_seconds", "Time.", buckets=(1, 2)).observe(1.5)
    metrics.gauge_of("guests", "Guests.", lambda: {(): 7})
    metrics.counter_of("crumbs", "Crumbs.", lambda: {("left",): 2, ("right",): 4}, ["side"])

    with MetricsServer(metrics, "127.0.0.1:0") as server:
        read = samples(scrape(server.address))

    assert read["marquee_oven_loaves_total", (("kind", "rye"),)] == 3
    assert read["marquee_oven_heat_ratio", ()] == 0.5
    assert read["marquee_oven_bake_seconds_bucket", (("le", "1.0"),)] == 0
    assert read["marquee_oven_bake_seconds_bucket", (("le", "2.0"),)] == 1
    assert read["marquee_oven_guests", ()] == 7
    assert read["marquee_oven_crumbs_total", (("side", "right"),)] == 4
    assert read["process_resident_memory_bytes", ()] > 1_000_000


def test_two_registries_know_nothing_of_each_other():
    """Nothing is global: the same name may be defined in two processes' graphs, and not twice in one."""
    first, second = Metrics("oven"), Metrics("oven")
    first.counter("loaves", "Loaves.")
    second.counter("loaves", "Loaves.")

    with pytest.raises(ValueError, match="Duplicated"):
        first.counter_of("loaves", "Loaves.", dict)


def test_an_area_shares_its_registry():
    """What several processes measure alike has a name of its own beside theirs."""
    metrics = Metrics("oven")

    metrics.area("rpc").counter("calls", "Calls.").inc()

    assert "marquee_rpc_calls_total 1.0" in metrics.text()


@pytest.mark.parametrize("name", ["bake_ms", "Bake", "loaves_total", "share_percent", "a__b", ""])
def test_a_name_that_breaks_the_rules_is_refused(name):
    """Base units and plain words only, told when the metric is defined."""
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        Metrics("oven").gauge(name, "Something.")


def test_an_address_that_is_taken_ends_the_start():
    """As for the RPCs: a process that cannot be observed where it was told to does not start."""
    with MetricsServer(Metrics("oven"), "127.0.0.1:0") as first, pytest.raises(StartError, match=first.address):
        MetricsServer(Metrics("oven"), first.address).__enter__()


def test_off_listens_nowhere():
    """A process can be told to open no port for metrics."""
    with MetricsServer(Metrics("oven"), "off") as server:
        assert server.address == ""


def test_pages_answer_json_and_other_paths_name_them():
    """What else an operator reads stands beside the metrics; a wrong path says what there is."""
    with MetricsServer(Metrics("oven"), "127.0.0.1:0", {"/crumbs": lambda: [{"size": 1}]}) as server:
        page = scrape(server.address, "/crumbs")
        with pytest.raises(urllib.error.HTTPError) as raised:
            scrape(server.address, "/cake")

    assert '"size": 1' in page
    assert raised.value.code == 404
    assert raised.value.read() == b"there is /crumbs and /metrics\n"
