"""The notebook of examples/ was executed from end to end, and what it imports is there. `make notebook` runs it."""

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[3] / "examples" / "train_look_serve_call.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    """Its code cells."""
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


def test_it_was_executed_in_order_and_without_an_error(cells: list[dict[str, Any]]) -> None:
    """Whoever reads it on a web page sees every output, the last of which says how sure a rating is."""
    printed = "".join("".join(output.get("text", ())) for cell in cells for output in cell["outputs"])

    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output["output_type"] == "error" for cell in cells for output in cell["outputs"])
    assert "stars ±" in printed


def test_what_it_imports_is_there(cells: list[dict[str, Any]]) -> None:
    """A name that moved would be found out by a reader first."""
    for cell in cells:
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                module = importlib.import_module(node.module)
                for name in node.names:
                    if not hasattr(module, name.name):
                        importlib.import_module(f"{node.module}.{name.name}")
