"""Callers branch on reasons, so each one that a service may give stands where they look for it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "protos" / "README.md", ROOT / "docs" / "operations.md", ROOT / "docs" / "security.md"]
SERVICES = ("service_runtime", "feature_service", "model_service")
GIVEN = re.compile(r'(?:reason=|_refused\(|Failure\(|refusal=\("[^"]*", )"([A-Z]+(?:_[A-Z]+)+)"')
# Of a log line, not of an answer.
OF_LOGS = {"FEATURE_SERVICE_IS_NOT_TOLD"}


def given_reasons() -> set[str]:
    """Returns the reasons that stand in the code of the services."""
    code = "".join(path.read_text() for service in SERVICES for path in (ROOT / service).rglob("*.py"))
    return set(GIVEN.findall(code)) - OF_LOGS


@pytest.mark.parametrize("reason", sorted(given_reasons()))
def test_each_reason_is_documented(reason: str) -> None:
    """In the page of the contract, or in the one that it leads to."""
    assert any(f"`{reason}`" in page.read_text(encoding="utf-8") for page in PAGES)


def test_reasons_are_found() -> None:
    """One of each way to give it, so that the test above is about all of them."""
    assert {"QUEUE_FULL", "REDIS_TIMEOUT", "TOKEN_UNKNOWN", "MOVIE_NOT_FOUND"} <= given_reasons()
