"""Writes the locks: uv asks the index for hashes, pip for the build of torch that this machine would install."""

import argparse
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from packaging.utils import NormalizedName

from deploy.locks.contents import BUILD, CONSTRAINTS, CUDA, FOLDER, IMAGES, LEFT_OUT, ROOT, TORCH
from deploy.locks.lock import read_pins

PYTHON = "3.11"
"""The oldest that we run on, and that of the images."""


def compile_lock(uv: Path, out: Path, source: str, *options: str, without: Iterable[NormalizedName] = ()) -> None:
    """Writes the lock of what a source needs: a requirement, or pyproject.toml with the options' extra.

    Lines are for all platforms, by markers. Hashes that the file has already for the same version stay in it.
    """
    command = [
        str(uv),
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--python",
        sys.executable,
        "--python-version",
        PYTHON,
    ]
    command += ["--generate-hashes", "--no-annotate", "--custom-compile-command", "make locks"]
    command += ["--constraint", str(CONSTRAINTS), "--output-file", str(out), *options]
    for name in sorted(without):
        command += ["--no-emit-package", name]
    is_file = source == "pyproject.toml"
    command.append(source if is_file else "-")
    subprocess.run(
        command, input=None if is_file else source, text=True, cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )


def hash_of_what_pip_finds(requirement: str) -> str:
    """Returns the hash of the file that pip chooses here, as a lock writes it."""
    with tempfile.TemporaryDirectory(prefix="marquee-locks-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "--dest", folder]
        subprocess.run([*command, requirement], check=True)
        (wheel,) = Path(folder).iterdir()
        with wheel.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def add_hash(lock: Path, more: str) -> None:
    """Adds a hash to a lock of one package."""
    ((name, pin),) = read_pins(lock).items()
    if more in pin.hashes:
        return
    comments = [line for line in lock.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    hashes = [f"    --hash={each}" for each in sorted({*pin.hashes, more})]
    lock.write_text("\n".join([*comments, " \\\n".join([f"{name}=={pin.version}", *hashes])]) + "\n", encoding="utf-8")


def main() -> None:
    """Writes every lock of the folder again."""
    parser = argparse.ArgumentParser(prog="python -m deploy.locks", description=__doc__)
    parser.add_argument("--uv", type=Path, required=True, metavar="FILE", help="the program uv")
    uv: Path = parser.parse_args().uv.resolve()
    pinned = read_pins(CONSTRAINTS).keys()
    torch = f"{TORCH}=={read_pins(CONSTRAINTS)[TORCH].version}"

    compile_lock(uv, FOLDER / f"{TORCH}.txt", torch, "--no-deps")
    # PyTorch's own index and PyPI have different builds under one version, and an image may be made of either.
    add_hash(FOLDER / f"{TORCH}.txt", hash_of_what_pip_finds(torch))
    compile_lock(uv, FOLDER / f"{CUDA}.txt", torch, without={*LEFT_OUT, *pinned})
    cuda = read_pins(FOLDER / f"{CUDA}.txt").keys()
    for image, extra in IMAGES.items():
        without = {*LEFT_OUT, *cuda, TORCH}
        compile_lock(uv, FOLDER / f"{image}.txt", "pyproject.toml", "--extra", extra, without=without)
    compile_lock(uv, FOLDER / "build.txt", BUILD)


if __name__ == "__main__":
    main()
