"""Answers `trainer compare --program` with a library: `python answer.py METHOD FOLDER`.

Runs in the environment of requirements.txt, without our packages.
"""

import sys
from importlib import import_module
from pathlib import Path

if __name__ == "__main__":
    # Started as a file, from anywhere.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.libraries.question import read_question, write_reply

METHODS = (
    "surprise-svd",
    "surprise-svdpp",
    "surprise-knn",
    "implicit-als",
    "implicit-bpr",
    "lenskit-biasedmf",
    "lenskit-itemknn",
    "lenskit-implicitmf",
)


def main(method: str, folder: Path) -> None:
    """Reads the question, asks the library, writes the answer."""
    if method not in METHODS:
        sys.exit(f"there is no method {method!r}; they are {', '.join(METHODS)}")
    library, _, name = method.partition("-")
    module = import_module(f"benchmarks.libraries.of_{library}")
    write_reply(folder, module.answer(name, read_question(folder)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
