"""An image is made of what its lock says, or not at all."""

import re
import shutil
from pathlib import Path

import pytest

from deploy.test_containers.engine import Engine, EngineError
from deploy.test_containers.images import ROOT, build_images
from deploy.test_containers.stand_ins import BaseImages

pytestmark = pytest.mark.containers

SERVICE = "feature_service"
_HASH = re.compile(r"(?<=--hash=sha256:)[0-9a-f]{64}")


def test_a_file_of_another_hash_ends_the_build(engine: Engine, bases: BaseImages, tmp_path: Path) -> None:
    """Somebody put another file under a package's name and version: pip says which, and there is no image."""
    source = tmp_path / "source"
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        for path in ROOT.glob(line.removeprefix("!")) if line.startswith("!") else ():
            copy = source / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(path, copy) if path.is_dir() else shutil.copy(path, copy)
    lock = source / "deploy" / "locks" / f"{SERVICE}.txt"
    before, structlog, after = re.split(r"(^structlog==(?:.*\\\n)+.*\n)", lock.read_text(encoding="utf-8"), flags=re.M)
    lock.write_text(before + _HASH.sub("0" * 64, structlog) + after, encoding="utf-8")

    with pytest.raises(EngineError, match=r"DO NOT MATCH THE HASHES(?s:.*)structlog"):
        build_images(engine, bases.python_image, "altered", services=(SERVICE,), source=source)

    assert not engine.has_image(f"marquee/{SERVICE}:altered")
