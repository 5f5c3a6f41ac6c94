"""What operators are given is true of running processes: dashboards have data, alerts look at what there is."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.local.processes import free_address
from tests.integration.stack.prometheus_server import Prometheus, prometheus
from tests.integration.stack.running_stack import RunningStack
from tests.integration.stack.traffic import Traffic, rebuilding
from tests.scraping import read_page, scrape

DASHBOARDS = sorted(Path("deploy/grafana/dashboards").glob("*.json"))
ALERTS = Path("deploy/prometheus/alerts.yml")
UNTIL_ALL_HAVE_DATA_S = 120.0
# A metric with its labels, without the range behind it.
_SELECTOR = re.compile(r"\b((?:marquee_|process_)[a-z0-9_]+|up)\b(\{[^}]*\})?")

# The first of them waits for the whole stack.
pytestmark = pytest.mark.timeout(600)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="no prometheus and promtool: Debian's package `prometheus` has both",
)


def queries() -> Iterator[tuple[str, str]]:
    """Yields the queries of all dashboards with where they stand."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield (
                    f"{path.stem}: {panel['title']} {target['refId']}",
                    target["expr"].replace("$__rate_interval", "1m"),
                )


def alerts() -> dict[str, str]:
    """Returns the expressions of all alerts by name."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


@pytest.fixture(scope="module")
def targets(running: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where each job of prometheus.yml is scraped; the trainer waits beside the stack, with a registry of its own."""
    metrics = free_address()
    with rebuilding(tmp_path_factory.mktemp("rebuilding"), running.feature_address, metrics):
        yield {**running.metrics, "trainer": metrics}


@pytest.fixture(scope="module")
def scraping(targets: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A real Prometheus over the running stack."""
    with prometheus(tmp_path_factory.mktemp("prometheus") / "run", targets) as server:
        yield server


@pytest.fixture(scope="module")
def traffic(running: RunningStack) -> Traffic:
    """Calls of all kinds."""
    return Traffic(running)


@needs_prometheus
def test_every_panel_has_data(traffic: Traffic, scraping: Prometheus):
    """Each query of each dashboard returns at least one number while there is traffic."""
    missing = dict(queries())
    deadline = time.monotonic() + UNTIL_ALL_HAVE_DATA_S

    while missing and time.monotonic() < deadline:
        traffic.make()
        missing = {where: query for where, query in missing.items() if not scraping.has_data(query)}

    assert not missing


@needs_prometheus
def test_alerts_look_at_what_there_is(traffic: Traffic, scraping: Prometheus):
    """Each series that an alert names, with its labels, exists: a misspelt one would never fire."""
    missing = {f"{name}: {series}" for name, expr in alerts().items() for series in selectors(expr)}
    deadline = time.monotonic() + UNTIL_ALL_HAVE_DATA_S

    while missing and time.monotonic() < deadline:
        traffic.make()
        missing = {each for each in missing if not scraping.has_data(each.partition(": ")[2])}

    assert not missing


@needs_prometheus
def test_rules_are_evaluated_without_an_error_and_nothing_is_wrong(scraping: Prometheus):
    """Prometheus can compute every rule, and a healthy stack raises no alert that pages."""
    deadline = time.monotonic() + UNTIL_ALL_HAVE_DATA_S
    while time.monotonic() < deadline:
        rules = [rule for group in scraping.ask("rules")["groups"] for rule in group["rules"]]
        if all(rule["health"] != "unknown" for rule in rules):
            break

    assert {rule["name"]: rule["lastError"] for rule in rules if rule["health"] != "ok"} == {}
    assert {rule["name"] for rule in rules} == set(alerts())
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


@needs_prometheus
@pytest.mark.parametrize("arguments", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")])
def test_promtool_finds_nothing_wrong(arguments):
    """The configuration is valid, and each alert fires when it should and not before."""
    found = subprocess.run(["promtool", *arguments], cwd=ALERTS.parent, capture_output=True, text=True, check=False)

    assert found.returncode == 0, found.stdout + found.stderr


def test_nothing_that_is_told_is_personal(running: RunningStack, traffic: Traffic, targets: dict[str, str]):
    """No id of a user, no id and no title of a movie stands in a log line, a metric, or what is kept of slow calls."""
    traffic.make()
    texts = {log.name: log.read_text() for log in running.logs}
    for job, address in targets.items():
        texts[f"{job}/metrics"] = scrape(address).text
        if job != "trainer":
            texts[f"{job}/slow"] = read_page(address, "/slow")
    planted = {"planted": f"it was user {traffic.user_ids[0]}"}

    titles = [title for title in running.data.movies.titles if len(title) > 8]
    secrets = [*traffic.user_ids, *titles]
    assert found_in(texts, secrets) == []
    assert found_in(planted, secrets) == [("planted", traffic.user_ids[0])]


def found_in(texts: dict[str, str], secrets: list[str]) -> list[tuple[str, str]]:
    """Returns which secret stands in which text."""
    return [(where, secret) for where, text in texts.items() for secret in secrets if secret in text]


def selectors(expr: str) -> set[str]:
    """Returns the series that an expression looks at."""
    return {match[0] for match in _SELECTOR.finditer(expr)}
