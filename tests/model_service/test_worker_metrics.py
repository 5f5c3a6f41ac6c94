"""One page for several workers: what is counted is added up, what is measured now stands beside each other."""

from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry

from model_service.settings import ModelSettings
from model_service.worker_metrics import WorkerMetrics
from service_runtime.metrics import Metrics
from service_runtime.metrics_server import MetricsServer
from service_runtime.settings import SettingsError
from tests.scraping import Scrape


class Worker:
    """Metrics as a worker shows them."""

    def __init__(self, running: ExitStack) -> None:
        metrics = Metrics("model", CollectorRegistry())
        self.calls = metrics.counter("calls", "Calls.", ["method"])
        self.waits = metrics.histogram("wait_seconds", "Waits.")
        self.waiting = metrics.gauge("waiting", "Who waits.")
        pages = {"/slow": lambda: {"threshold_ms": 5.0, "num_slow": 1, "requests": [{"ended_at": "10:00"}]}}
        self.address = running.enter_context(MetricsServer(metrics, "127.0.0.1:0", pages)).address


@pytest.fixture
def running():
    with ExitStack() as stack:
        yield stack


def page_of(workers):
    registry = CollectorRegistry()
    pages = WorkerMetrics(lambda: {place: worker.address for place, worker in workers.items()})
    registry.register(pages)
    return pages, lambda: Scrape(Metrics("process", registry).text())


def test_counters_and_histograms_are_sums_and_gauges_are_told_apart(running):
    """A worker that has not counted a series yet adds nothing to it."""
    workers = {0: Worker(running), 1: Worker(running)}
    workers[0].calls.labels("TopK").inc(3)
    workers[1].calls.labels("TopK").inc(4)
    workers[1].calls.labels("Other").inc()
    workers[0].waits.observe(0.004)
    workers[1].waits.observe(2.0)
    workers[0].waiting.set(5)
    _, scrape = page_of(workers)

    page = scrape()

    assert page.total("marquee_model_calls_total", method="TopK") == 7
    assert page.total("marquee_model_calls_total", method="Other") == 1
    assert page.total("marquee_model_wait_seconds_bucket", le="0.005") == 1
    assert page.total("marquee_model_wait_seconds_bucket", le="+Inf") == 2
    assert page.total("marquee_model_wait_seconds_sum") == pytest.approx(2.004)
    waiting = {sample.labels["worker"]: sample.value for sample in page.samples("marquee_model_waiting")}
    assert waiting == {"0": 5, "1": 0}


def test_what_a_dead_worker_counted_stays_in_the_sum(running):
    """Also once another has its place; its gauge goes with it."""
    workers = {0: Worker(running), 1: Worker(running)}
    for worker in workers.values():
        worker.calls.labels("TopK").inc(3)
        worker.waiting.set(1)
    _, scrape = page_of(workers)
    scrape()

    del workers[0]
    without = scrape()
    workers[0] = Worker(running)
    workers[0].calls.labels("TopK").inc(2)
    with_the_next = scrape()

    assert without.total("marquee_model_calls_total", method="TopK") == 6
    assert without.total("marquee_model_waiting") == 1
    assert with_the_next.total("marquee_model_calls_total", method="TopK") == 8


def test_a_worker_that_does_not_answer_is_left_out(running):
    """The others are shown all the same."""
    workers = {0: Worker(running), 1: Worker(running)}
    workers[1].calls.labels("TopK").inc(3)
    workers[0].address = "127.0.0.1:1"
    _, scrape = page_of(workers)

    assert scrape().total("marquee_model_calls_total", method="TopK") == 3


def test_slow_requests_of_all_workers_are_on_one_page(running):
    """Each says who answered it."""
    pages, _ = page_of({0: Worker(running), 1: Worker(running)})

    page = pages.slow()

    assert (page["threshold_ms"], page["num_slow"]) == (5.0, 2)
    assert [request["worker"] for request in page["requests"]] == [0, 1]


def test_workers_and_an_admin_port_exclude_each_other(monkeypatch, tmp_path):
    """Who moves models by that port would move those of one worker."""
    monkeypatch.setenv("MODEL_REGISTRY", str(tmp_path))
    monkeypatch.setenv("MODEL_WORKERS", "2")

    with pytest.raises(SettingsError, match=r"MODEL_WORKERS: .*MODEL_ADMIN_LISTEN=off"):
        ModelSettings.load()


def test_workers_on_a_gpu_are_refused(monkeypatch, tmp_path):
    """It has one owner."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for name, value in {"REGISTRY": str(tmp_path), "WORKERS": "2", "ADMIN_LISTEN": "off", "DEVICE": "cuda"}.items():
        monkeypatch.setenv(f"MODEL_{name}", value)

    with pytest.raises(SettingsError, match="MODEL_WORKERS: a GPU has one owner"):
        ModelSettings.load()
