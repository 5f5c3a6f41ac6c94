"""Compares user versions. Callers at large treat them as opaque; services of ours agree here on what they hold."""

import re
from dataclasses import dataclass
from typing import Self

_TEXT = re.compile(r"([0-9a-f]{16})\.([0-9]{1,5})\.([0-9]{1,16})")


class UserVersionError(ValueError):
    """The text is no user version, or the two versions cannot be compared."""


@dataclass(frozen=True, slots=True)
class UserVersion:
    """The state of a user at one moment, as text "EPOCH.PARTITION.COUNTER".

    Attributes:
        epoch: The store's epoch, 16 hexadecimal digits.
        partition: The user's partition of the store.
        counter: Number of the change within the partition; 0 before the user's first.
    """

    epoch: str
    partition: int
    counter: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a version as a service wrote it.

        Raises:
            UserVersionError: The text is none.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise UserVersionError(f"{text[:80]!r} is no user_version")
        return cls(match[1], int(match[2]), int(match[3]))

    def __str__(self) -> str:
        return f"{self.epoch}.{self.partition}.{self.counter}"

    def includes(self, wanted: "UserVersion") -> bool:
        """Tells whether this state is `wanted` or newer; both must be versions of the same user.

        Raises:
            UserVersionError: They are of different epochs or partitions: nothing can be said.
        """
        if self.epoch != wanted.epoch:
            raise UserVersionError(f"{wanted} is of another epoch than {self}: the store was replaced or restored")
        if self.partition != wanted.partition:
            raise UserVersionError(f"{wanted} is the version of another user than {self}")
        return self.counter >= wanted.counter
