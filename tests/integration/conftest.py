"""What npm brings, where this machine has it: the Node example with its libraries, and buf."""

import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def node_example() -> Path:
    """Gives the folder of the Node example with its libraries installed; needs `node` and `npm`."""
    if shutil.which("node") is None:
        pytest.skip("node is not on the PATH: apt install nodejs npm")
    folder = ROOT / "examples" / "node"
    installed, lock = folder / "node_modules" / ".package-lock.json", folder / "package-lock.json"
    with FileLock(folder / ".installing.lock"):
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="session")
def buf() -> Path:
    """Gives the program buf, as `make check` installs it; needs `npm`."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not on the PATH: apt install nodejs npm")
    program = ROOT / "protos" / "node_modules" / ".bin" / "buf"
    with FileLock(ROOT / "protos" / ".installing.lock"):
        subprocess.run(["make", "--silent", str(program.relative_to(ROOT))], cwd=ROOT, check=True)
    return program
