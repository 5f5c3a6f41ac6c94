"""Keeps what became of each version on this replica, and when to try a refused one again. Knows time; loads nothing."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from two_tower.checkpoint import Checkpoint

_FIRST_RETRY_S = 5.0
_MAX_RETRY_S = 300.0
_MAX_FAILED = 100


class State(Enum):
    """Where a version stands."""

    AVAILABLE = 1
    LOADING = 2
    RESIDENT = 3
    FAILED = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of one version.

    Attributes:
        state: Where it stands.
        reason: Why it failed, or failed the last time; empty if it never did.
        model: The model's name; empty if it was never read.
        data_until_ms: Newest rating it was trained on; 0 if it has no times or was never read.
        loaded_at_ms: When it became resident; 0 if it is not.
        num_failures: In a row.
        retry_at: Monotonic seconds before which it is not tried again by itself.
    """

    state: State = State.AVAILABLE
    reason: str = ""
    model: str = ""
    data_until_ms: int = 0
    loaded_at_ms: int = 0
    num_failures: int = 0
    retry_at: float = 0.0


_NEVER_SEEN = Entry()


class ModelTable:
    """The versions that this replica had to do with. A version that is merely in the registry is not in it."""

    def __init__(self, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        """Stores the clocks: monotonic seconds, and seconds since the epoch."""
        self._clock = clock
        self._wall_clock = wall_clock
        self._entries: dict[str, Entry] = {}

    def __getitem__(self, version: str) -> Entry:
        """Returns what became of a version."""
        return self._entries.get(version, _NEVER_SEEN)

    @property
    def num_failed(self) -> int:
        """How many versions are refused now."""
        return sum(entry.state is State.FAILED for entry in list(self._entries.values()))

    def may_try(self, version: str) -> bool:
        """Tells whether a version that failed has waited long enough: a damaged file seldom heals."""
        return self._clock() >= self[version].retry_at

    def loading(self, version: str) -> None:
        """Notes that a version is being read."""
        self._entries[version] = replace(self[version], state=State.LOADING)

    def resident(self, version: str, checkpoint: Checkpoint) -> None:
        """Notes that a version is in memory."""
        manifest = checkpoint.manifest
        self._entries[version] = Entry(
            State.RESIDENT,
            model=manifest.model,
            data_until_ms=manifest.data_until_ms if manifest.has_times else 0,
            loaded_at_ms=int(self._wall_clock() * 1000),
        )

    def failed(self, version: str, reason: str) -> None:
        """Notes why a version was refused; each time in a row it is left alone for twice as long."""
        before = self[version]
        wait_s = min(_FIRST_RETRY_S * 2**before.num_failures, _MAX_RETRY_S)
        self._entries.pop(version, None)
        self._entries[version] = replace(
            before,
            state=State.FAILED,
            reason=reason,
            loaded_at_ms=0,
            num_failures=before.num_failures + 1,
            retry_at=self._clock() + wait_s,
        )
        failed = [name for name, entry in self._entries.items() if entry.state is State.FAILED]
        for name in failed[:-_MAX_FAILED]:
            del self._entries[name]

    def let_go(self, version: str) -> None:
        """Notes that a version is no longer in memory."""
        self._entries.pop(version, None)
