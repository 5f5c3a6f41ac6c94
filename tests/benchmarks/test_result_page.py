"""Tables are written between the marks of a page, and nowhere else."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import performance_page, readme_tables, result_page, store_page

PAGE = "before\n<!-- speed -->\nold\n<!-- end of speed -->\nafter\n"
QUALITY = """
### toy, `random:0.1`

|  | RMSE | NDCG@10 |
| --- | ---: | ---: |
| `marquee` | **0.9** | 0.2 |
| `lists-only` | - | **0.3** |
| `other` | 1.0 | 0.1 |

text
"""


def table(result: dict[str, Any]) -> Iterator[str]:
    yield f"{result['figures']}\n"


def test_a_table_takes_the_place_of_the_older_one(tmp_path, monkeypatch):
    """What stands around the marks stays, and what stands between them is written again."""
    monkeypatch.setattr(result_page, "RESULTS", tmp_path)
    (tmp_path / "speed.json").write_text(json.dumps({"figures": 42}))

    page = result_page.written(PAGE, {"speed": table})

    assert page == "before\n<!-- speed -->\n42\n<!-- end of speed -->\nafter\n"


def test_a_table_without_a_result_stays(tmp_path, monkeypatch):
    """Nothing is lost by a benchmark that was not run."""
    monkeypatch.setattr(result_page, "RESULTS", tmp_path)

    assert result_page.written(PAGE, {"speed": table}) == PAGE


def test_a_page_without_marks_is_refused(tmp_path, monkeypatch):
    """A table that has no place is told of, rather than dropped or put anywhere."""
    monkeypatch.setattr(result_page, "RESULTS", tmp_path)

    with pytest.raises(ValueError, match="lacks a line <!-- cost -->"):
        result_page.written(PAGE, {"cost": table})


@pytest.mark.parametrize("page", [performance_page, store_page])
def test_every_table_has_its_place(page, tmp_path, monkeypatch):
    """A page that is written again loses no table, and changes nothing while there are no results."""
    monkeypatch.setattr(result_page, "RESULTS", tmp_path)
    text = page.PAGE.read_text()

    assert result_page.written(text, page.TABLES) == text


def test_the_front_page_says_what_was_measured_last():
    """`make bench-page` writes its tables again."""
    page = readme_tables.PAGE.read_text(encoding="utf-8")

    assert page == readme_tables.renewed(page)


def test_figures_are_read_from_the_page_of_quality():
    """By contender and metric, without its marks; what was not measured is not there."""
    found = readme_tables.quality_rows(QUALITY, "toy", "random:0.1")

    assert found == {
        "marquee": {"RMSE": 0.9, "NDCG@10": 0.2},
        "lists-only": {"NDCG@10": 0.3},
        "other": {"RMSE": 1.0, "NDCG@10": 0.1},
    }


def test_a_comparison_that_is_not_there_is_told_of():
    """Rather than shown with figures of another one."""
    with pytest.raises(ValueError, match=r"no table of toy, leave-last"):
        readme_tables.quality_rows(QUALITY, "toy", "leave-last")
