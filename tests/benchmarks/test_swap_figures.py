"""A wrong answer during a swap is found, whichever way it is wrong."""

from collections import Counter

import numpy as np
import pytest

from benchmarks.steady_load import SteadyAnswers
from benchmarks.swap_figures import Timeline, failure_figures, judge, latency_figures, memory_figures, wrong_answers

# Two models, three questions; versions a, b, c are copies of the models in turn: 0, 1, 0.
EXPECTED = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)
NAMES = ["a", "b", "c"]


def answers(**changed) -> SteadyAnswers:
    """Returns twelve answers of 10 ms each, four of each version in turn, all as they should be."""
    version = np.repeat([0, 1, 2], 4).astype(np.int32)
    due_s = np.arange(12) / 10
    fields = {
        "due_s": due_s,
        "asked_s": due_s,
        "answered_s": due_s + 0.01,
        "version": version,
        "score": EXPECTED[version % 2, np.arange(12) % 3],
        "versions": list(NAMES),
        "failures": Counter(),
    }
    return SteadyAnswers(**{**fields, **changed})


def with_one(field: str, place: int, value: float) -> SteadyAnswers:
    """Returns the answers with one number of one of them changed."""
    numbers = getattr(answers(), field).copy()
    numbers[place] = value
    return answers(**{field: numbers})


def test_right_answers_are_not_called_wrong():
    """Also those of a question that was asked before a newer version answered another."""
    overtaken = answers()
    overtaken.asked_s[4], overtaken.answered_s[4] = 0.35, 0.95

    assert wrong_answers(answers(), NAMES, EXPECTED, 0) == []
    assert wrong_answers(overtaken, NAMES, EXPECTED, 0) == []


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (answers(failures=Counter(UNAVAILABLE=2)), "2 questions failed: UNAVAILABLE"),
        (with_one("score", 5, EXPECTED[0, 2]), "1 answers were not those of the version that they name, by up to 3"),
        (with_one("score", 5, np.nan), "1 answers were not those of the version"),
        (answers(versions=["a", "b", "x"]), "versions answered that never had the label: ['x']"),
    ],
)
def test_each_way_to_be_wrong_is_found(given, found):
    """A failure, the score of another version, no number, a version that should not serve."""
    assert any(each.startswith(found) for each in wrong_answers(given, NAMES, EXPECTED, 0))


def test_an_older_version_after_a_newer_one_is_found():
    """Its score is right for the version that it names, and still nobody should be answered by it any more."""
    late = with_one("version", 11, 0)
    late.score[11] = EXPECTED[0, 11 % 3]

    assert wrong_answers(late, NAMES, EXPECTED, 0) == [
        "1 answers were of an older version than one that had answered before they were asked"
    ]


def test_a_version_that_never_answered_is_found():
    """Else a swap that did not happen would have harmed nobody."""
    assert wrong_answers(answers(), [*NAMES, "d"], EXPECTED, 0) == ["1 versions never answered, the first d"]


def test_slow_swaps_and_growing_memory_break_promises():
    """Latencies are of the times with and without swaps; the tenth swap is what memory is compared with."""
    slow = with_one("answered_s", 7, 0.7 + 0.5)
    timeline = Timeline(quiet=[(0.0, 0.35), (0.75, 2.0)], swapping=[(0.35, 0.75)], set_at=[0.38, 0.78])

    figures = latency_figures(slow, timeline, ["b", "c"])
    steady = memory_figures([100] * 21, "pss")
    growing = memory_figures([100] * 11 + [102] * 10, "pss")

    assert figures["quiet_p99_ms"] == pytest.approx(10)
    assert figures["swapping_p99_ms"] > 400
    assert figures["seconds_from_label_to_first_answer_max"] == pytest.approx(0.03)
    assert judge({"p99_ratio": 1.0, **steady}) == []
    assert len(judge({**figures, **growing})) == 2


def test_failures_are_counted_beside_swaps_and_in_bursts():
    """Of three one is due while b is swapped in, and one left 300 ms late; of the third neither is true."""
    asked_s = answers().due_s.copy()
    asked_s[0] += 0.3
    answered_s = answers().answered_s.copy()
    answered_s[[0, 4, 11]] = np.nan
    timeline = Timeline(set_at=[0.35])
    answered_s[5] = 0.06  # b's first answer, so that its swap ends a second after that: before the last question

    found = failure_figures(answers(asked_s=asked_s, answered_s=answered_s), timeline, ["b"])

    assert found == {"failed": 3, "failed_beside_a_swap": 1, "failed_in_a_burst_of_the_caller": 1}
