"""Writes docs/metrics.md from the processes themselves: `python -m tests.metrics_page`. Knows no metric by name."""

import asyncio
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from deploy.local.processes import free_address
from feature_service.__main__ import serving
from feature_service.settings import FeatureSettings
from model_service.__main__ import serve
from model_service.settings import ModelSettings
from service_runtime.metrics import Metrics
from tests.scraping import scrape
from trainer.rebuild.journal import Journal
from trainer.rebuild.measures import RebuildMeasures
from two_tower.registry import Registry

PAGE = Path("docs/metrics.md")

_HEAD = """# Metrics
What each process tells Prometheus, on the port that `FEATURE_METRICS_LISTEN`, `MODEL_METRICS_LISTEN` or
`trainer rebuild --metrics` names. Written by `python -m tests.metrics_page`; a test compares. Beside them stand
`process_*` and `python_*`, which prometheus_client tells of every process. Histograms have `_bucket`, `_sum` and
`_count`. With `MODEL_WORKERS` above 1 there are also `marquee_process_workers`, the workers that run, and
`marquee_process_worker_deaths_total`.
"""
_HELP = re.compile(r"^# HELP (marquee_\w+) (.*)$", re.MULTILINE)
_TYPE = re.compile(r"^# TYPE (marquee_\w+) (\w+)$", re.MULTILINE)


async def told_by_processes() -> dict[str, str]:
    """Returns what each process says of its metrics, by process; nothing that they depend on is there."""
    features, models = free_address(), free_address()
    with tempfile.TemporaryDirectory() as folder:
        feature_settings = FeatureSettings(
            redis_url="unix:///none",  # type: ignore[arg-type]
            listen="127.0.0.1:0",
            metrics_listen=features,
            drain_timeout_s=0,
        )
        model_settings = ModelSettings(
            registry=Path(folder),
            listen="127.0.0.1:0",
            metrics_listen=models,
            admin_listen="off",
            feature_service=free_address(),
            drain_timeout_s=0,
        )
        async with serving(feature_settings), serve(model_settings):
            texts = [(await asyncio.to_thread(scrape, address)).text for address in (features, models)]
        rebuilding = Metrics("trainer")
        RebuildMeasures(rebuilding, Journal(Registry(Path(folder))), 3600)
        return dict(zip(("feature_service", "model_service", "trainer"), (*texts, rebuilding.text()), strict=True))


def page(told: dict[str, str]) -> str:
    """Returns the page."""
    meanings: dict[str, tuple[str, str]] = {}
    tellers: dict[str, list[str]] = {}
    for process, text in told.items():
        kinds = dict(_TYPE.findall(text))
        for name, meaning in _HELP.findall(text):
            meanings[name] = (kinds[name], meaning)
            tellers.setdefault(name, []).append(process)
    sections = {"Of several processes": [name for name, by in tellers.items() if len(by) > 1]}
    sections |= {process: [name for name, by in tellers.items() if by == [process]] for process in told}
    return _HEAD + "".join(
        f"\n## {title}\n| metric | kind | meaning |\n|---|---|---|\n" + "".join(_rows(sorted(names), meanings))
        for title, names in sections.items()
    )


def _rows(names: Iterable[str], meanings: dict[str, tuple[str, str]]) -> Iterable[str]:
    for name in names:
        kind, meaning = meanings[name]
        yield f"| `{name}` | {kind} | {meaning} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(asyncio.run(told_by_processes())))
