"""The errors of the trainer that a person can act on; each ends a command with its exit status and one message.

    TrainerError                exit status 2
    ├── DataError               a data set or one of its files cannot be used
    ├── HoldoutError            this data cannot be split that way
    ├── DivergedError           a training's loss is no longer a number
    └── DownloadError           a data set could not be fetched or is not what its publisher sent

Anything else that escapes is a defect of ours and shows its traceback.
"""

from typing import ClassVar


class TrainerError(Exception):
    """A command cannot do what was asked; the message says why and what would be right."""

    exit_status: ClassVar[int] = 2


class DataError(TrainerError):
    """A data set or one of its files cannot be used; the message names the file, the line if there is one, the cure."""


class HoldoutError(TrainerError):
    """The data cannot be split as asked; the message names the holdouts that would work."""


class DivergedError(TrainerError):
    """A loss or metric of a running training is not finite; the message says at which epoch and what to change."""


class DownloadError(TrainerError):
    """A data set could not be fetched, or what came differs from what its publisher sent."""
