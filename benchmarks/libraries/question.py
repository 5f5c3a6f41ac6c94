"""Reads what `trainer compare --program` asks, and writes the answer; trainer/comparison/outsider.py defines both."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix


@dataclass(frozen=True, slots=True)
class Question:
    """Rows to learn from and rows to answer; ids are dense numbers, as in `question.npz`."""

    train_users: NDArray[np.int32]
    train_movies: NDArray[np.int32]
    train_ratings: NDArray[np.float32]
    train_times_ms: NDArray[np.int64]
    test_users: NDArray[np.int32]
    test_movies: NDArray[np.int32]
    list_users: NDArray[np.int32]
    num_users: int
    num_movies: int
    low: float
    high: float
    seed: int
    ranks: int

    def matrix(self, values: NDArray[np.float32] | None = None) -> csr_matrix:
        """Returns users x movies; 1 where watched, unless values are given."""
        data = np.ones(len(self.train_users), np.float32) if values is None else values
        return csr_matrix((data, (self.train_users, self.train_movies)), (self.num_users, self.num_movies))

    def hold_back(self) -> tuple["Question", NDArray[np.int32]]:
        """Returns the same with one row of each user held back to choose settings by, and the movie of each.

        The newest row where there are times, else one drawn at random; users of one row keep it. What was held out for
        the test is not looked at.
        """
        draw = np.random.default_rng(self.seed).permutation(len(self.train_users))
        order = np.lexsort((draw, self.train_times_ms, self.train_users))
        last = np.append(np.diff(self.train_users[order]) != 0, True)
        enough = np.bincount(self.train_users, minlength=self.num_users)[self.train_users[order]] > 1
        held = np.zeros(len(order), bool)
        held[order[last & enough]] = True
        by_user = np.argsort(self.train_users[held], kind="stable")
        users, movies = self.train_users[held][by_user], self.train_movies[held][by_user]
        rest = replace(
            self,
            train_users=self.train_users[~held],
            train_movies=self.train_movies[~held],
            train_ratings=self.train_ratings[~held],
            train_times_ms=self.train_times_ms[~held],
            list_users=users,
        )
        return rest, movies


class Stopwatch:
    """Wall and processor seconds of what runs inside `running()`."""

    def __init__(self) -> None:
        """Starts at nothing."""
        self.wall_s = 0.0
        self.cpu_s = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Adds what its block takes."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        yield
        self.wall_s += time.perf_counter() - wall_s
        self.cpu_s += time.process_time() - cpu_s


@dataclass(frozen=True, slots=True)
class Reply:
    """What a library says.

    Attributes:
        ratings: Of each test row, None if it does not predict ratings. float [n]
        lists: Of each user to rank for, None if it cannot rank. int [B, ranks]
        watch: Time of the fit.
        notes: What a reader of the table should know.
    """

    ratings: NDArray[np.floating] | None
    lists: NDArray[np.integer] | None
    watch: Stopwatch
    notes: tuple[str, ...]


def read_question(folder: Path) -> Question:
    """Reads `question.npz`."""
    with np.load(folder / "question.npz") as file:
        whole = {"num_users": int, "num_movies": int, "seed": int, "ranks": int, "low": float, "high": float}
        arrays = {name: file[name] for name in file.files if name not in whole and name != "step"}
        return Question(**arrays, **{name: kind(file[name]) for name, kind in whole.items()})


def write_reply(folder: Path, reply: Reply) -> None:
    """Writes `answer.npz`."""
    arrays: dict[str, object] = {
        "wall_s": reply.watch.wall_s,
        "cpu_s": reply.watch.cpu_s,
        "notes": np.array(reply.notes),
    }
    if reply.ratings is not None:
        arrays["ratings"] = np.asarray(reply.ratings, np.float32)
    if reply.lists is not None:
        arrays["lists"] = np.asarray(reply.lists, np.int64)
    np.savez(folder / "answer.npz", **arrays)  # type: ignore[arg-type]


def best_unseen(scores: NDArray[np.floating], seen: csr_matrix, ranks: int) -> NDArray[np.int64]:
    """Returns the best movies that a user has not watched: int [B, ranks], padded with -1.

    Args:
        scores: Written over. float [B, M]
        seen: Non-zero where watched. [B, M]
        ranks: Length of the lists.
    """
    rows, movies = seen.nonzero()
    scores[rows, movies] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :ranks]
    found = np.where(np.isfinite(np.take_along_axis(scores, order, axis=1)), order, -1)
    lists = np.full((len(scores), ranks), -1, np.int64)
    lists[:, : found.shape[1]] = found
    return lists


def ndcg_of_one(lists: NDArray[np.integer], movies: NDArray[np.integer]) -> float:
    """Returns NDCG where one movie is relevant to each user: 1 / log2(1 + its rank)."""
    hits = lists == movies[:, None]
    return float((hits / np.log2(np.arange(2, lists.shape[1] + 2))).sum(axis=1).mean())
