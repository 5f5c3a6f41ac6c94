"""Writes what a model said of held-out rows as a table: CSV or Parquet, by the file's suffix."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from trainer.dataset import Dataset
from trainer.errors import TrainerError
from trainer.evaluation import Evaluation

_SUFFIXES = (".csv", ".parquet")


class TableError(TrainerError):
    """A table cannot be written there."""


def check_table_path(path: Path) -> None:
    """Refuses a path before the work is done that would be written to it.

    Raises:
        TableError: The suffix is unknown or the folder does not exist.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise TableError(f"{path}: a table ends in {' or '.join(_SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise TableError(f"{path}: there is no folder {path.absolute().parent}")


def write_predictions(path: Path, data: Dataset, evaluation: Evaluation) -> None:
    """Writes user_id, movie_id, rating and predicted of each held-out row.

    Raises:
        TableError: It cannot be written there.
    """
    held_out = evaluation.held_out
    user_ids, movie_ids = np.array(data.user_ids, object), np.array(data.movies.movie_ids, object)
    _write(
        path,
        {
            "user_id": pa.array(user_ids[held_out.user_rows], pa.string()),
            "movie_id": pa.array(movie_ids[held_out.movie_rows], pa.string()),
            "rating": pa.array(held_out.ratings, from_pandas=True),
            "predicted": pa.array(evaluation.predicted, from_pandas=True),
        },
    )


def write_lists(path: Path, data: Dataset, evaluation: Evaluation) -> None:
    """Writes user_id, rank (from 1) and movie_id of each list.

    Raises:
        TableError: It cannot be written there.
    """
    users, ranks = np.nonzero(evaluation.lists >= 0)
    user_ids, movie_ids = np.array(data.user_ids, object), np.array(data.movies.movie_ids, object)
    _write(
        path,
        {
            "user_id": pa.array(user_ids[evaluation.users[users]], pa.string()),
            "rank": pa.array(ranks + 1, pa.int32()),
            "movie_id": pa.array(movie_ids[evaluation.lists[users, ranks]], pa.string()),
        },
    )


def _write(path: Path, columns: Mapping[str, Any]) -> None:
    check_table_path(path)
    table = pa.table(dict(columns))
    # Under a name of its own until it is whole: a disk that fills up leaves what was there before.
    aside = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        if path.suffix.lower() == ".csv":
            csv.write_csv(table, aside)
        else:
            parquet.write_table(table, aside)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise TableError(f"{path}: cannot be written ({error})") from error
