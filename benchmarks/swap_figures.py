"""Judges what was answered while versions took each other's place. Knows answers, times and memory; asks nobody."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.steady_load import SteadyAnswers

MAX_P99_RATIO = 1.3
MAX_PSS_RATIO = 1.01
# Sums of float32 over batches of other sizes; the versions of a question differ by more, see `share_told_apart`.
SCORE_TOLERANCE = 1e-3
# A version that is as good as another for most questions would hide that the wrong one answered.
MIN_TOLD_APART = 0.5
_AFTERWARDS_S = 1.0
# A question that left so long after it was due left with all that were due since.
_HELD_UP_S = 0.05


@dataclass(slots=True)
class Timeline:
    """What was done when, in seconds of `time.monotonic`.

    Attributes:
        quiet: Beginnings and ends of the times without swaps.
        swapping: Of those with them.
        set_at: When each version took the label.
        pss: Memory of model_service at rest after each swap, in bytes; the first is before any.
        device: The same of the device, as far as there is one.
        cpu: Processor time of model_service in quiet, and in swapping times, in seconds.
    """

    quiet: list[tuple[float, float]] = field(default_factory=list)
    swapping: list[tuple[float, float]] = field(default_factory=list)
    set_at: list[float] = field(default_factory=list)
    pss: list[int] = field(default_factory=list)
    device: list[int] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=lambda: {"quiet": 0.0, "swapping": 0.0})


def wrong_answers(
    answers: SteadyAnswers, names: Sequence[str], expected: NDArray[np.float32], num_before: int
) -> list[str]:
    """Returns what should not have happened.

    Args:
        answers: What was answered.
        names: Of all versions that took the label, oldest first.
        expected: Scores of the pairs by the S models that the versions are copies of, in turn. float32 [S, P]
        num_before: How many versions were gone before the first question.
    """
    wrong = [f"{count} questions failed: {status}" for status, count in answers.failures.items()]
    if unknown := set(answers.versions) - set(names):
        wrong.append(f"versions answered that never had the label: {sorted(unknown)}")
        return wrong
    answered = np.flatnonzero(answers.version >= 0)
    places = np.array([names.index(name) for name in answers.versions])[answers.version[answered]]
    likes = places % len(expected)
    off = np.abs(answers.score[answered] - expected[likes, answered % expected.shape[1]])
    # Written so that NaN is wrong.
    if bad := int((~(off <= SCORE_TOLERANCE)).sum()):
        wrong.append(f"{bad} answers were not those of the version that they name, by up to {np.nanmax(off):g}")
    in_order = np.argsort(answers.answered_s[answered], kind="stable")
    newest_by_then = np.maximum.accumulate(places[in_order])
    known = np.searchsorted(answers.answered_s[answered][in_order], answers.asked_s[answered], side="left") - 1
    newest_before = np.where(known >= 0, newest_by_then[known], 0)
    if stale := int((places < newest_before).sum()):
        wrong.append(f"{stale} answers were of an older version than one that had answered before they were asked")
    if missing := set(range(num_before, len(names))) - set(places.tolist()):
        wrong.append(f"{len(missing)} versions never answered, the first {names[min(missing)]}")
    return wrong


def latency_figures(answers: SteadyAnswers, timeline: Timeline, swapped_in: Sequence[str]) -> dict[str, Any]:
    """Returns percentiles of both kinds of time, of each block, and of what was asked around the swaps."""
    latencies = answers.latencies_ms

    def within(spans: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
        chosen = np.zeros(len(latencies), np.bool_)
        for begin, end in spans:
            chosen |= (answers.due_s >= begin) & (answers.due_s < end)
        found = latencies[chosen]
        return found[~np.isnan(found)]

    def p99(spans: Sequence[tuple[float, float]]) -> float:
        return float(np.percentile(within(spans), 99))

    first_answers = _first_answers(answers)
    loading = [
        (set_at, first_answers[name])
        for name, set_at in zip(swapped_in, timeline.set_at, strict=True)
        if name in first_answers
    ]
    taken_s = [end - begin for begin, end in loading]
    return {
        **{
            f"{name}_p{percent:g}_ms": round(float(np.percentile(within(spans), percent)), 2)
            for name, spans in (("quiet", timeline.quiet), ("swapping", timeline.swapping))
            for percent in (50, 99, 99.9)
        },
        "p99_ratio": round(p99(timeline.swapping) / p99(timeline.quiet), 3),
        "quiet_p99_ms_by_block": [round(p99([span]), 2) for span in timeline.quiet],
        "swapping_p99_ms_by_block": [round(p99([span]), 2) for span in timeline.swapping],
        "from_label_to_first_answer_p99_ms": round(p99(loading), 2) if loading else None,
        "seconds_from_label_to_first_answer_median": round(float(np.median(taken_s)), 2) if taken_s else None,
        "seconds_from_label_to_first_answer_max": round(max(taken_s), 2) if taken_s else None,
    }


def failure_figures(answers: SteadyAnswers, timeline: Timeline, swapped_in: Sequence[str]) -> dict[str, int]:
    """Returns how many questions failed, and of them how many beside a swap and how many of a burst of the caller's.

    Beside a swap: from the time that a version took the label to a second after its first answer. Of a burst: a caller
    who was held up asks at once what was due meanwhile, and more than may wait is refused.
    """
    failed = np.isnan(answers.answered_s)
    first_answers = _first_answers(answers)
    beside = np.zeros(len(failed), np.bool_)
    for name, set_at in zip(swapped_in, timeline.set_at, strict=True):
        until = first_answers.get(name, set_at) + _AFTERWARDS_S
        beside |= (answers.due_s >= set_at) & (answers.due_s < until)
    late = answers.asked_s - answers.due_s > _HELD_UP_S
    return {
        "failed": int(failed.sum()),
        "failed_beside_a_swap": int((failed & beside).sum()),
        "failed_in_a_burst_of_the_caller": int((failed & late).sum()),
    }


def _first_answers(answers: SteadyAnswers) -> dict[str, float]:
    """Returns when each version first answered."""
    return {
        name: float(np.nanmin(answers.answered_s[answers.version == place]))
        for place, name in enumerate(answers.versions)
    }


def memory_figures(held: Sequence[int], name: str) -> dict[str, Any]:
    """Returns memory at some swaps, and what the last says beside the tenth.

    Of each of these two it is the median of five: allocators give and take some megabytes from one swap to the next.
    """
    swaps = len(held) - 1
    tenth, last = float(np.median(held[8:13] or held[-5:])), float(np.median(held[-5:]))
    shown = sorted({place for place in (0, 1, 2, 5, 10, 20, 50, 100, 150, swaps) if place <= swaps})
    return {
        f"{name}_mb_after_swap": {str(place): round(held[place] / 1e6, 1) for place in shown},
        f"{name}_most_mb": round(max(held) / 1e6, 1),
        f"{name}_last_over_tenth": round(last / tenth, 4),
    }


def cpu_figures(answers: SteadyAnswers, timeline: Timeline) -> dict[str, float]:
    """Returns processor time of an answer without swaps, and what a swap takes beside the answers."""
    quiet_s = sum(end - begin for begin, end in timeline.quiet)
    swapping_s = sum(end - begin for begin, end in timeline.swapping)
    per_s = len(answers.due_s) / float(answers.due_s[-1] - answers.due_s[0])
    extra_s = timeline.cpu["swapping"] - timeline.cpu["quiet"] * swapping_s / quiet_s
    return {
        "model_service_cpu_ms_per_answer_quiet": round(1000 * timeline.cpu["quiet"] / (quiet_s * per_s), 3),
        "model_service_cpu_ms_per_swap": round(1000 * extra_s / len(timeline.set_at), 1),
    }


def share_told_apart(expected: NDArray[np.float32]) -> float:
    """Returns for which share of the questions a model's answer differs from that of the model before it."""
    return float((np.abs(expected - np.roll(expected, 1, axis=0)) > 2 * SCORE_TOLERANCE).mean())


def judge(figures: dict[str, Any]) -> list[str]:
    """Returns which promise is not kept."""
    broken = []
    if figures["p99_ratio"] > MAX_P99_RATIO:
        broken.append(f"the 99th percentile is {figures['p99_ratio']} of that without swaps, above {MAX_P99_RATIO}")
    for name in ("pss", "device"):
        ratio = figures.get(f"{name}_last_over_tenth", 0)
        if ratio > MAX_PSS_RATIO:
            broken.append(f"{name} after the last swap is {ratio} of that after the tenth, above {MAX_PSS_RATIO}")
    return broken
