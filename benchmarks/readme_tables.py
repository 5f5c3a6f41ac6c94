"""Writes the tables of README.md: what the models are worth, from docs/quality.md, and what answers cost, from results.

python benchmarks/readme_tables.py

So the first page that anybody reads says what was measured last, or the tests say that it does not.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.prepared import MODELS
from benchmarks.record import RESULTS
from benchmarks.result_page import between_marks, head, row, source

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "README.md"
QUALITY = ROOT / "docs" / "quality.md"
_OURS = "marquee"
_SHOWN = (
    ("ml-100k", "temporal:0.1", "MovieLens 100K, the newest tenth"),
    ("ml-100k", "u1.test", "MovieLens 100K, u1"),
    ("ml-100k", "leave-last", "MovieLens 100K, each user's last movie"),
    ("ml-latest-small", "leave-last", "latest-small, each user's last movie"),
    ("ml-latest-small", "random:0.1", "latest-small, a random tenth"),
    ("ml-1m-untimed", "random:0.1", "MovieLens 1M, a random tenth"),
)


def quality_rows(page: str, data: str, holdout: str) -> dict[str, dict[str, float]]:
    """Returns what docs/quality.md has of one comparison: by contender, by metric. Without what was not measured.

    Raises:
        ValueError: The page has no such table.
    """
    _, _, section = page.partition(f"\n### {data}, `{holdout}`\n")
    lines = section.strip().splitlines()
    if not lines or "RMSE" not in lines[0]:
        raise ValueError(f"{QUALITY.name} has no table of {data}, {holdout}")
    titles = _cells(lines[0])
    found: dict[str, dict[str, float]] = {}
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        name, *figures = _cells(line)
        found[name] = {title: float(cell) for title, cell in zip(titles[1:], figures, strict=True) if cell != "-"}
    return found


def quality_table(page: str) -> Iterator[str]:
    """Yields the table of what `marquee` and the best of the others are worth."""
    yield from head(["held out", "RMSE", "best other", "NDCG@10", "best other"])
    for data, holdout, title in _SHOWN:
        found = quality_rows(page, data, holdout)
        cells = [title]
        for metric, best, digits in (("RMSE", min, 4), ("NDCG@10", max, 3)):
            others = {name: figures[metric] for name, figures in found.items() if name != _OURS and metric in figures}
            other = best(others, key=others.__getitem__)
            cells += [f"{found[_OURS][metric]:.{digits}f}", f"{others[other]:.{digits}f} `{other}`"]
        yield row(cells)


def cost_table(result: dict[str, Any]) -> Iterator[str]:
    """Yields the table of processor time an answer, of Marquee and of what a user might take instead."""
    kinds = ("PredictRating", "TopK of 10")
    yield from head(["CPU µs an answer", *kinds])
    for server, told in result["figures"]["servers"].items():
        yield row([server, *(f"{told[kind]['cpu_us']:,.0f}" if kind in told else "" for kind in kinds)])
    yield source(result, "Medians.")


def tables() -> dict[str, str]:
    """Returns what stands between the marks, by their names."""
    beside_peers = json.loads((RESULTS / f"beside_peers_{MODELS[0]}.json").read_text(encoding="utf-8"))
    return {
        "what the models are worth": "".join(quality_table(QUALITY.read_text(encoding="utf-8"))),
        "what answers cost": "".join(cost_table(beside_peers)),
    }


def _cells(line: str) -> list[str]:
    return [re.sub(r"[`*]", "", cell).strip() for cell in line.strip().strip("|").split("|")]


def renewed(page: str) -> str:
    """Returns the page with its tables as they should be."""
    for name, table in tables().items():
        page = between_marks(page, name, table)
    return page


def main() -> None:
    """Writes the tables again."""
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
