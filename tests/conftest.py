"""What every test may ask for: real data where there is some, and a report of the tests that went without."""

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

pytest_plugins = ["tests.canaries", "tests.feature_server", "tests.redis_server"]

REAL_DATA_VARIABLE = "MARQUEE_DATA"
"""Names a folder that holds ml-100k, ml-latest-small and ml-1m-untimed; which of them is up to the machine."""

# Services of several tests run at a time; processes inherit it.
os.environ.update(FEATURE_METRICS_LISTEN="127.0.0.1:0", MODEL_METRICS_LISTEN="127.0.0.1:0")
os.environ.setdefault("MODEL_ADMIN_LISTEN", "127.0.0.1:0")

# How long an example takes says how busy the machine is; pytest's time-out ends one that hangs.
hypothesis.settings.register_profile("any-machine", deadline=None)
hypothesis.settings.load_profile("any-machine")


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Gives the folder of a real data set by its name; skips the test, and has it listed, where there is none."""

    def folder_of(name: str) -> Path:
        root = os.environ.get(REAL_DATA_VARIABLE)
        folder = Path(root) / name if root else None
        if folder is None or not folder.is_dir():
            reason = f"{REAL_DATA_VARIABLE} is unset" if folder is None else f"{REAL_DATA_VARIABLE} has no {name}"
            pytest.skip(reason)
        return folder

    return folder_of


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Lists the tests that real data would have run, so that a green run never hides them."""
    # From the reports, which also reach this process from the workers of a parallel run.
    skipped = [
        f"{report.nodeid} ({report.longrepr[2].removeprefix('Skipped: ')})"
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple) and REAL_DATA_VARIABLE in report.longrepr[2]
    ]
    if skipped:
        terminalreporter.section(f"{len(skipped)} real-data tests skipped", sep="-")
        for test in skipped:
            terminalreporter.write_line(test)
