"""Hand-made data sets for the trainer's tests."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

FolderOf = Callable[[Mapping[str, str | bytes]], Path]


@pytest.fixture
def folder_of(tmp_path: Path) -> FolderOf:
    """Writes files given by name into a fresh folder and returns it."""

    def write(files: Mapping[str, str | bytes]) -> Path:
        folder = tmp_path / "data"
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return write
