"""What goes into the images is held to a hash, and the locks hold what is pinned and needed, no more and no less."""

import re
import shutil
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from deploy.locks.complaints import complaints
from deploy.locks.contents import CONSTRAINTS, FOLDER, IMAGES, ROOT
from deploy.locks.lock import LockError, read_pins


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    """A copy of the locks, to spoil."""
    return Path(shutil.copytree(FOLDER, tmp_path / "locks"))


def pinned_version(name: str) -> str:
    """Returns what constraints.txt says of a package."""
    return read_pins(CONSTRAINTS)[canonicalize_name(name)].version


def rewrite(path: Path, pattern: str, by: str) -> None:
    """Puts something in a file's one place that fits a pattern."""
    text, count = re.subn(pattern, by, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert count == 1
    path.write_text(text, encoding="utf-8")


def test_locks_hold_what_is_pinned_and_needed() -> None:
    """After a change of constraints.txt or of an extra, `make locks` writes them again."""
    assert complaints(FOLDER, CONSTRAINTS) == []


def test_a_pin_that_changed_without_its_locks_is_told(tmp_path: Path) -> None:
    """Each lock that has the package is named, with both versions."""
    constraints = Path(shutil.copy(CONSTRAINTS, tmp_path))
    rewrite(constraints, r"^structlog==.*$", "structlog==1.2.3")
    rewrite(constraints, r"^torch==.*$", "torch==1.2.3")

    found = complaints(FOLDER, constraints)

    changed = [*((image, "structlog") for image in IMAGES), ("torch", "torch")]
    assert sorted(found) == sorted(
        f"{lock}.txt: {name} is {pinned_version(name)}, and 1.2.3 is pinned" for lock, name in changed
    )


def test_a_package_without_a_pin_is_told(tmp_path: Path) -> None:
    """What every machine wants stands in constraints.txt."""
    constraints = Path(shutil.copy(CONSTRAINTS, tmp_path))
    rewrite(constraints, r"^redis==.*\n", "")

    assert complaints(FOLDER, constraints) == ["feature_service.txt: redis is not pinned"]


def test_a_line_without_a_hash_is_told(locks: Path) -> None:
    """One such line, and pip would hold nothing to its hash, were it not told to ask for all."""
    version = pinned_version("numba")
    rewrite(locks / "trainer.txt", rf"^numba=={re.escape(version)}(?: \\\n    --hash=\S+)+", f"numba=={version}")

    assert complaints(locks, CONSTRAINTS) == ["trainer.txt: numba has no hash"]


def test_a_need_that_is_missing_and_a_line_that_nothing_needs_are_told(locks: Path) -> None:
    """Nothing else is installed, as the images ask for no dependencies."""
    rewrite(locks / "model_service.txt", r"^pydantic-core==", "import-linter==")

    found = complaints(locks, CONSTRAINTS)

    assert "model_service.txt: pydantic-core is needed and missing" in found
    assert "model_service.txt: import-linter is not needed" in found


@pytest.mark.parametrize("line", ["numpy>=2", "numpy==2.*", "numpy", "numpy==2.4.6 --hash=md5:0123"])
def test_a_line_that_leaves_a_choice_is_refused(tmp_path: Path, line: str) -> None:
    """A range, a pattern, a weak hash: none says which file it is."""
    path = tmp_path / "lock.txt"
    path.write_text(f"{line}\n", encoding="utf-8")

    with pytest.raises(LockError, match=r"^lock\.txt: .*numpy"):
        read_pins(path)


@pytest.mark.parametrize("lock", sorted(path.name for path in FOLDER.glob("*.txt") if path.name != "requirements.txt"))
def test_a_lock_names_no_index(lock: str) -> None:
    """Where packages come from is the builder's to say: by a pip.conf, an argument, or wheels of his own."""
    text = (FOLDER / lock).read_text(encoding="utf-8")

    assert re.findall(r"://|^ *-(?!-hash=).*", text, flags=re.MULTILINE) == []


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_installs_nothing_but_by_hash(image: str) -> None:
    """Each install is of a lock, or of our own code, and then without an index."""
    dockerfile = (ROOT / image / "Dockerfile").read_text(encoding="utf-8")
    (held,) = re.findall(r'^ENV HELD_TO_LOCKS="(.*)"$', dockerfile, flags=re.MULTILINE)

    installs = re.findall(r"pip install (.*?)(?: \\)?$", dockerfile, flags=re.MULTILINE)

    assert held == "--require-hashes --only-binary :all: --no-deps"
    assert f"$HELD_TO_LOCKS -r locks/{image}.txt" in installs
    ours = [install for install in installs if "$HELD_TO_LOCKS" not in install.split()]
    assert ours == ["--no-index --no-deps --no-build-isolation ."]
