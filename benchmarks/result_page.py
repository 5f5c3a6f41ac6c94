"""Writes tables of benchmarks/results between the marks of a page. Knows Markdown; knows no benchmark."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.record import RESULTS

_BEGIN, _END = "<!-- {} -->\n", "<!-- end of {} -->\n"


def written(page: str, tables: Mapping[str, Callable[[dict[str, Any]], Iterator[str]]]) -> str:
    """Returns a page with its tables as the results have them; one without a result stays as it is.

    Args:
        page: Holds, for each table, a line `<!-- NAME -->` and after it a line `<!-- end of NAME -->`.
        tables: What makes each from `results/NAME.json`, line by line.

    Raises:
        ValueError: The page lacks the marks of a table; says which.
    """
    for name, table in tables.items():
        path = RESULTS / f"{name}.json"
        found = "".join(table(json.loads(path.read_text()))) if path.exists() else None
        page = between_marks(page, name, found)
    return page


def between_marks(page: str, name: str, text: str | None) -> str:
    """Returns a page with a text between the marks of a name, or as it was if there is none.

    Raises:
        ValueError: The page lacks the marks.
    """
    begin, end = _BEGIN.format(name), _END.format(name)
    if begin not in page or end not in page:
        raise ValueError(f"the page lacks a line {begin.strip()} or {end.strip()}")
    if text is None:
        return page
    before, _, rest = page.partition(begin)
    return before + begin + text + end + rest.partition(end)[2]


def head(titles: list[str]) -> Iterator[str]:
    """Yields the two lines above a table's rows."""
    yield row(titles)
    yield row(["---"] * len(titles))


def row(cells: list[str]) -> str:
    """Returns a row of a table."""
    return f"| {' | '.join(cells)} |\n"


def source(result: dict[str, Any], text: str) -> str:
    """Returns what stands below a table: a text, and where its figures are from."""
    return f"\n{text} `{result['command']}` at {result['commit']}, {result['date']}, {result['machine']}.\n"
