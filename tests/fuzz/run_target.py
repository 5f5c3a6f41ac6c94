"""Runs one coverage-guided target in this process, until it finds something: python -m tests.fuzz.run_target NAME ...

libFuzzer, within atheris, changes inputs towards code that none has reached yet, and ends the process at the first
exception that is not caught. Options that are not ours are libFuzzer's.
"""

import argparse
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atheris


@dataclass(frozen=True)
class Described:
    """A target.

    Attributes:
        type_name: Of its class, in the module of its name.
        package: Whose code it is to reach.
        max_bytes: Of an input.
    """

    type_name: str
    package: str
    max_bytes: int


TARGETS = {
    "value_codec": Described("ValueCodec", "feature_service", 4096),
    "checkpoints": Described("Checkpoints", "two_tower", 100_000),
    "data_readers": Described("DataReaders", "trainer", 20_000),
    "planted_reader": Described("PlantedReader", "tests", 64),
}


def main(arguments: list[str]) -> None:
    """Runs; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--folder", type=Path, required=True, help="for files of the target and its corpus")
    given, further = parser.parse_known_args(arguments)
    described = TARGETS[given.target]
    with atheris.instrument_imports(include=[described.package], enable_loader_override=False):
        module: Any = importlib.import_module(f"tests.fuzz.targets.{given.target}")
        # Within the block, for models are imported when one is trained.
        target = getattr(module, described.type_name)(given.folder)
    corpus = given.folder / "corpus"
    corpus.mkdir(parents=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    # A minute is a hang on the busiest machine; what needs more memory than this would end a service.
    limits = [f"-max_len={described.max_bytes}", "-timeout=60", "-rss_limit_mb=4096"]
    output = [f"-artifact_prefix={given.folder}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, *output, *further], target.attack)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
