"""Asks a program that is not ours on the same rows, through files. Knows the files; knows no program.

The command gets one more argument, a folder. It finds there `question.npz`:

    train_users, train_movies, train_ratings, train_times_ms    rows to learn from; dense numbers, NaN = no rating
    test_users, test_movies                                      rows to predict
    list_users                                                   users to rank for, without the movies of their rows
    num_users, num_movies, low, high, step, seed, ranks          sizes, rating scale (NaN = no ratings), seed, length

and leaves `answer.npz`: `ratings` [n], float, unclipped, or none of it; `lists` [B, ranks], movie numbers, best first,
padded with -1, or none of it; `wall_s` and `cpu_s` of its fit; `size_bytes` if it can say. What to tell a person goes
into `notes`, an array of texts.
"""

import resource
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.comparison.cell import Answers, Costs
from trainer.comparison.contender import ContenderError
from trainer.dataset import Dataset, Interactions
from trainer.evaluation import RANKS
from trainer.histories import HistoryLayout


def ask(
    command: Sequence[str], data: Dataset, train: Interactions, held_out: Interactions, seed: int
) -> tuple[Answers, Costs, tuple[str, ...]]:
    """Runs a program on a split.

    Raises:
        ContenderError: It cannot be started, failed, or answered something that cannot be.
    """
    users = np.unique(held_out.user_rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_question(folder / "question.npz", data, train, held_out, users, seed)
        try:
            status = subprocess.run([*command, str(folder)], check=False).returncode
        except OSError as error:
            raise ContenderError(f"{command[0]}: cannot be started ({error.strerror})") from error
        if status:
            raise ContenderError(f"{' '.join(command)}: ended with status {status}; its output says why")
        try:
            with np.load(folder / "answer.npz", allow_pickle=False) as file:
                answer = {key: file[key] for key in file.files}
        except (OSError, ValueError) as error:
            raise ContenderError(f"{' '.join(command)}: left no answer.npz that can be read ({error})") from error
    memory_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    size = int(answer["size_bytes"]) if "size_bytes" in answer else None
    costs = Costs(float(answer["wall_s"]), float(answer["cpu_s"]), size, memory_mib)
    return _take(answer, data, train, held_out, users), costs, tuple(str(note) for note in answer.get("notes", ()))


def _write_question(
    path: Path, data: Dataset, train: Interactions, held_out: Interactions, users: NDArray[np.int32], seed: int
) -> None:
    scale = data.scale
    np.savez(
        path,
        train_users=train.user_rows,
        train_movies=train.movie_rows,
        train_ratings=train.ratings,
        train_times_ms=train.event_times_ms,
        test_users=held_out.user_rows,
        test_movies=held_out.movie_rows,
        list_users=users,
        num_users=len(data.user_ids),
        num_movies=len(data.movies),
        low=scale.low if scale else np.nan,
        high=scale.high if scale else np.nan,
        step=scale.step if scale else np.nan,
        seed=seed,
        ranks=RANKS,
    )


def _take(
    answer: dict[str, Any], data: Dataset, train: Interactions, held_out: Interactions, users: NDArray[np.int32]
) -> Answers:
    unclipped = np.asarray(answer.get("ratings", np.full(len(held_out), np.nan)), np.float32)
    lists = np.asarray(answer.get("lists", np.full((len(users), RANKS), -1)), np.int64)
    if unclipped.shape != (len(held_out),) or lists.shape != (len(users), RANKS):
        raise ContenderError(
            f"answer.npz: ratings are {unclipped.shape} and lists {lists.shape}; "
            f"({len(held_out)},) and ({len(users)}, {RANKS}) were asked for"
        )
    layout = HistoryLayout(train, len(data.user_ids))
    places, movies = layout.seen(users)
    width = len(data.movies)
    if lists.max(initial=-1) >= width:
        raise ContenderError(f"answer.npz: lists hold movie {lists.max()}; the catalogue has {width}")
    listed = np.arange(len(users))[:, None] * width + lists
    if (np.isin(listed, places * width + movies) & (lists >= 0)).any():
        raise ContenderError("answer.npz: lists hold movies of the user's own training rows; those must be left out")
    predicted = unclipped if data.scale is None else data.scale.clip(unclipped)
    counts = np.bincount(train.user_rows[~np.isnan(train.ratings)], minlength=len(data.user_ids))
    unsaid = np.full(len(held_out), np.nan, np.float32)
    return Answers(held_out, predicted, unclipped, unsaid, counts[held_out.user_rows], users, lists, width)
