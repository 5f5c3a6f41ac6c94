"""docs/operations.md has a row for each drill of tests/chaos, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = re.compile(r'(?:drill\(|pytest\.param\()\s*"([^"]+)"')


def test_each_drill_has_its_row():
    """A drill that is added, renamed or removed is so in the page."""
    code = "".join(path.read_text() for path in sorted((ROOT / "tests" / "chaos").glob("test_*.py")))
    _, _, section = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition("\n## Drills\n")
    table = re.search(r"^\| drill \| what happens .*\n(?:\|.*\n)+", section, flags=re.MULTILINE)
    assert table is not None

    documented = re.findall(r"^\| ([A-Za-z][^|]*[a-z]) \|", table[0], flags=re.MULTILINE)

    assert sorted(documented) == sorted({*NAME.findall(code), "drill"})
