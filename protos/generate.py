"""Generates the Python stubs of the contract beside the .proto files, or says which of them are out of date."""

import argparse
import filecmp
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def generate(protos: Path, destination: Path) -> None:
    """Writes the stubs of every .proto file below `protos` into the same folders below `destination`.

    Raises:
        SystemExit: protoc refused a file; it has said why.
    """
    binaries = Path(sys.executable).parent
    status = protoc.main(
        [
            "protoc",
            f"-I{protos}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--plugin=protoc-gen-mypy={binaries / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={binaries / 'protoc-gen-mypy_grpc'}",
            f"--python_out={destination}",
            f"--grpc_python_out={destination}",
            f"--mypy_out=quiet:{destination}",
            f"--mypy_grpc_out=quiet:{destination}",
            *(str(path) for path in sorted(protos.glob("marquee/**/*.proto"))),
        ]
    )
    if status != 0:
        sys.exit(status)


def stubs(folder: Path) -> set[Path]:
    """Returns the generated files below a folder, relative to it."""
    return {path.relative_to(folder) for pattern in GENERATED for path in folder.glob(f"marquee/**/{pattern}")}


def main() -> None:
    """Parses the command line and does as it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("protos", type=Path, help="the folder that holds marquee/v1")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a stub is out of date")
    arguments = parser.parse_args()
    protos: Path = arguments.protos
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(protos, fresh)
        if not arguments.check:
            for stub in stubs(protos) - stubs(fresh):
                (protos / stub).unlink()
            for stub in stubs(fresh):
                shutil.copyfile(fresh / stub, protos / stub)
            return
        stale = sorted(
            str(stub)
            for stub in stubs(protos) | stubs(fresh)
            if not (protos / stub).exists()
            or not (fresh / stub).exists()
            or not filecmp.cmp(protos / stub, fresh / stub, shallow=False)
        )
    if stale:
        sys.exit(f"Out of date, run `make protos`: {', '.join(stale)}")


if __name__ == "__main__":
    main()
