"""Asks servers in turn, round after round, and keeps what each answer took. Knows processes and loads; no message.

Everything is asked in every round, so that what else the machine does falls on all alike; figures are medians over
rounds. Processor time is user and system time of all processes of a server.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.h2load import CONNECTIONS, Target, closed_loop, steady
from benchmarks.process_usage import cpu_with_children_s

STEADY_PER_S = 200.0
_FIRST_REQUESTS = 512

Ask = Callable[[int], tuple[int, float, NDArray[np.float64]]]
"""Asks about so many questions as fast as it can; gives answers, answers a second, latencies in milliseconds."""


@dataclass(slots=True)
class Measured:
    """What answers took, a value a round."""

    cpu_us: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    p999_ms: list[float] = field(default_factory=list)
    steady_p50_ms: list[float] = field(default_factory=list)
    steady_p99_ms: list[float] = field(default_factory=list)
    steady_p999_ms: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Returns the medians of what was measured."""
        lists = {name: getattr(self, name) for name in self.__slots__}
        return {name: round(statistics.median(values), 3) for name, values in lists.items() if values}


@dataclass(slots=True)
class Asked:
    """A server and how it is asked one kind of question.

    Attributes:
        server: Its name.
        kind: Of the question.
        pids: The server's processes by what they are; their children count too.
        ask: Asks it.
        target: What is asked at a steady rate; None where that is not measured.
        answers_per_call: For instance the pairs of a batch.
        measured: What its answers took.
        cpu_us_of: The processor time of each answer by process, a value a round.
    """

    server: str
    kind: str
    pids: Mapping[str, int]
    ask: Ask
    target: Target | None = None
    answers_per_call: int = 1
    measured: Measured = field(default_factory=Measured)
    cpu_us_of: dict[str, list[float]] = field(default_factory=dict)
    _num_requests: int = _FIRST_REQUESTS

    def calibrate(self, seconds: float) -> None:
        """Warms up, and finds out how many questions take so long."""
        _, per_s, _ = self.ask(_FIRST_REQUESTS)
        self._num_requests = max(CONNECTIONS * 16, int(per_s * seconds))

    def measure(self) -> None:
        """Asks for one round."""
        before = {name: cpu_with_children_s(pid) for name, pid in self.pids.items()}
        count, per_s, latencies_ms = self.ask(self._num_requests)
        answers = count * self.answers_per_call
        each = {name: (cpu_with_children_s(pid) - before[name]) * 1e6 / answers for name, pid in self.pids.items()}
        for name, cpu_us in each.items():
            self.cpu_us_of.setdefault(name, []).append(cpu_us)
        measured = self.measured
        measured.cpu_us.append(sum(each.values()))
        measured.per_s.append(per_s * self.answers_per_call)
        for values, percent in ((measured.p50_ms, 50), (measured.p99_ms, 99), (measured.p999_ms, 99.9)):
            values.append(float(np.percentile(latencies_ms, percent)))

    def measure_steady(self, seconds: float) -> None:
        """Asks at a steady rate for one round, if that is measured."""
        if self.target is None:
            return
        loaded, measured = steady(self.target, STEADY_PER_S, seconds), self.measured
        for values, percent in (
            (measured.steady_p50_ms, 50),
            (measured.steady_p99_ms, 99),
            (measured.steady_p999_ms, 99.9),
        ):
            values.append(loaded.percentile(percent))

    def figures(self) -> dict[str, float]:
        """Returns the medians over all rounds, and those of each process where there are several."""
        several = self.cpu_us_of if len(self.pids) > 1 else {}
        parts = {f"cpu_us_of_{name}": round(statistics.median(values), 3) for name, values in several.items()}
        return {**self.measured.figures(), **parts}


def by_h2load(server: str, kind: str, pids: Mapping[str, int], target: Target, *, is_steady: bool = True) -> Asked:
    """Returns how h2load asks a server."""

    def ask(num_requests: int) -> tuple[int, float, NDArray[np.float64]]:
        loaded = closed_loop(target, num_requests)
        return loaded.count, loaded.per_s, loaded.latencies_ms

    return Asked(server, kind, pids, ask, target if is_steady else None)


def measure_in_turn(cases: Sequence[Asked], rounds: int, seconds: float) -> None:
    """Asks all, one after the other, round after round; then again at a steady rate, for twice as long each."""
    for case in cases:
        case.calibrate(seconds)
    for _ in range(rounds):
        for case in cases:
            case.measure()
    for _ in range(rounds):
        for case in cases:
            case.measure_steady(seconds * 2)
