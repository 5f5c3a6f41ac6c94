"""What operators read about metrics is what the processes tell."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.metrics_page import PAGE, page, told_by_processes

DASHBOARDS = Path("deploy/grafana/dashboards")
RULES = Path("deploy/prometheus")
_NAME = re.compile(r"\bmarquee_[a-z0-9_]+")


def expressions() -> Iterator[str]:
    """Yields every query of a dashboard and every expression of an alert."""
    for path in DASHBOARDS.glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            yield from (target["expr"] for target in panel.get("targets", []))
    for group in yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


async def test_the_page_of_metrics_is_up_to_date():
    """`python -m tests.metrics_page` writes it anew."""
    assert PAGE.read_text() == page(await told_by_processes())


def test_dashboards_and_alerts_name_metrics_that_there_are():
    """One that is renamed is missed here, also where no Prometheus is installed."""
    told = set(_NAME.findall(PAGE.read_text()))
    asked = {name for expr in expressions() for name in _NAME.findall(expr)}

    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} - told == set()


def test_every_alert_is_tested_and_described():
    """None without a test that sees it fire, and none without what to do about it in docs/operations.md."""
    groups = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    tests = yaml.safe_load((RULES / "alerts_test.yml").read_text())["tests"]
    fired = {each["alertname"] for test in tests for each in test["alert_rule_test"] if each.get("exp_alerts")}
    described = set(re.findall(r"^\| `([A-Za-z]+)` \|", Path("docs/operations.md").read_text(), re.MULTILINE))

    assert alerts - fired == set()
    assert alerts - described == set()


def test_prometheus_scrapes_what_the_containers_open():
    """Names and ports of prometheus.yml are those of docker-compose.yml with the monitoring overlay."""
    services = yaml.safe_load(Path("docker-compose.yml").read_text())["services"]
    overlay = yaml.safe_load(Path("deploy/compose.monitoring.yml").read_text())["services"]
    opened = {
        name: listen
        for name in services
        for variable, listen in overlay.get(name, {}).get("environment", {}).items()
        if variable.endswith("_METRICS_LISTEN")
    }
    (opened["rebuild"],) = [
        option.removeprefix("--metrics=")
        for option in services["rebuild"]["command"]
        if option.startswith("--metrics=")
    ]
    jobs = yaml.safe_load((RULES / "prometheus.yml").read_text())["scrape_configs"]

    scraped = {job["dns_sd_configs"][0]["names"][0]: f"0.0.0.0:{job['dns_sd_configs'][0]['port']}" for job in jobs}

    assert scraped == opened
