"""Reads lists of seeds as they are written on a command line. Knows numbers only."""

from trainer.errors import TrainerError

_MAX = 2**32 - 1


class SeedsError(TrainerError):
    """Not a list of seeds."""


def parse_seeds(text: str) -> tuple[int, ...]:
    """Returns the seeds of `0,1,2` or `0-4` or both mixed, each once.

    Raises:
        SeedsError: It is neither.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(end.isascii() and end.isdigit() and int(end) <= _MAX for end in ends) or int(ends[0]) > int(ends[1]):
            raise SeedsError(f"--seeds {text!r}: give whole numbers from 0, for example 0,1,2 or 0-4")
        seeds += range(int(ends[0]), min(int(ends[1]), int(ends[0]) + 10_000) + 1)
    return tuple(dict.fromkeys(seeds))
