"""What can be wrong with a checkpoint or a registry.

TwoTowerError
├── CheckpointError              a folder that cannot be served; the message says what is wrong and what would be right
│   ├── CorruptCheckpointError   a file is missing, cut short, altered, or holds numbers that are not finite
│   ├── ForeignCheckpointError   another format, format version or model than this code knows
│   ├── MismatchedCheckpointError  fields, tensors or vocabularies that do not fit together, each named
│   └── SelfCheckError           it loads, and answers otherwise than when it was written
├── RegistryError                a registry folder that cannot be read or written
│   ├── UnknownVersionError
│   └── InvalidNameError
├── FrameError                   a table given to `two_tower.load`, or to what it opened, that cannot be read
└── UnknownModelError
"""

from collections.abc import Sequence

FAILURES_OF_A_MODEL = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a model built of parts that somebody made up may raise: from numpy, torch, and its own code."""


class TwoTowerError(Exception):
    """Anything that this package raises for a caller to act on."""


class CheckpointError(TwoTowerError):
    """A checkpoint that cannot be served."""


class CorruptCheckpointError(CheckpointError):
    """A file of the checkpoint is missing, cut short or altered, or holds numbers that are not finite."""


class ForeignCheckpointError(CheckpointError):
    """The checkpoint has another format, format version or model than this code knows."""


class MismatchedCheckpointError(CheckpointError):
    """Parts of the checkpoint do not fit each other or this code.

    Attributes:
        mismatches: One sentence for each field, tensor or vocabulary that does not fit.
    """

    def __init__(self, mismatches: Sequence[str]) -> None:
        self.mismatches = tuple(mismatches)
        super().__init__("; ".join(self.mismatches))


class SelfCheckError(CheckpointError):
    """The checkpoint does not answer its golden users as it did when it was written."""


class RegistryError(TwoTowerError):
    """A registry that cannot be read or written."""


class UnknownVersionError(RegistryError):
    """The registry holds no such version."""


class InvalidNameError(RegistryError):
    """A version or label that no registry could hold."""


class FrameError(TwoTowerError):
    """A table of movies, histories, users or questions that cannot be read; names the column."""


class UnknownModelError(TwoTowerError):
    """No model has this name; the message lists those that exist."""
