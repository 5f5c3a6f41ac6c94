"""How much quicker is `two-tower-history` trained than in the notebook that it comes from?

    python benchmarks/notebook_training_cost.py --data ml-1m [--rounds 3] [--steps 400]

The notebook's way is written down here as it was: a DataFrame with a row a sample, a `torch` data set that looks one
row up at a time, a `DataLoader` of batches of 64 with a collate function in Python that pads genres and histories,
`nn.Embedding` tables and dense SGD. Only its leaks are removed, as in ours, so that both learn the same: histories hold
training rows, those watched before, the newest 20, or a random 20 where the data has no times.

Both sides train on the same 80% of the rows (`random:0.2`) for the same number of epochs, and are judged on the other
20%. Of the notebook's side only the loop over batches is timed; of ours the whole fit, preparations included, after a
short one in which the compiler did its work. Rounds take turns. The first goes through the notebook's whole epoch and
gives its error; the others time `--steps` batches and multiply. `--no-whole-epoch` multiplies in the first round too.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from benchmarks.record import record
from trainer.dataset import Dataset
from trainer.evaluation import evaluate
from trainer.fits import silent
from trainer.fits.history_windows import HistoryWindows
from trainer.fits.two_tower_history import Options, fit
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import divide, take_snapshot
from two_tower.features import FeatureEncoder

BATCH_SIZE = 64
HISTORY_LENGTH = 20


class Spent(NamedTuple):
    """Seconds on the clock, and of the processor."""

    wall_s: float
    processor_s: float


class Stopwatch:
    """Measures from when it is made."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def read(self) -> Spent:
        """Returns what passed since."""
        return Spent(time.perf_counter() - self._started[0], time.process_time() - self._started[1])


class NotebookRows(torch.utils.data.Dataset[dict[str, Any]]):
    """One sample a DataFrame row."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame

    def __len__(self) -> int:
        return len(self._frame)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Looks one row up."""
        row = self._frame.iloc[index]
        return {
            "user": torch.tensor(row["user"], dtype=torch.long),
            "gender": torch.tensor(row["gender"], dtype=torch.long),
            "age": torch.tensor(row["age"], dtype=torch.float),
            "occupation": torch.tensor(row["occupation"], dtype=torch.long),
            "history": torch.tensor(row["history"], dtype=torch.long),
            "movie": torch.tensor(row["movie"], dtype=torch.long),
            "genres": torch.tensor(row["genres"], dtype=torch.long),
            "year": torch.tensor(row["year"], dtype=torch.float),
            "rating": torch.tensor(row["rating"], dtype=torch.float),
        }


def collate(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Stacks numbers, pads lists with 0."""
    lists = {name: [sample[name] for sample in samples] for name in samples[0]}
    return {
        name: pad_sequence(values, batch_first=True) if name in ("history", "genres") else torch.stack(values)
        for name, values in lists.items()
    }


class NotebookTowers(nn.Module):
    """The towers with dense tables; row 0 of movies and genres pads."""

    def __init__(self, encoder: FeatureEncoder) -> None:
        super().__init__()
        self.user = nn.Embedding(len(encoder.users), 100)
        self.movie = nn.Embedding(len(encoder.movies), 100, padding_idx=0)
        self.gender = nn.Embedding(len(encoder.genders), 2)
        self.occupation = nn.Embedding(len(encoder.occupations), 4)
        self.genre = nn.EmbeddingBag(len(encoder.genres), 4, mode="mean", padding_idx=0)
        self.age, self.year = nn.Linear(1, 1), nn.Linear(1, 1)
        self.user_layers = nn.Sequential(nn.Linear(207, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.movie_layers = nn.Sequential(nn.Linear(105, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Returns the stars of each sample. [B]."""
        watched = self.movie(batch["history"])  # [B, L, 100]
        lengths = (batch["history"] > 0).sum(dim=1, keepdim=True)  # [B, 1]
        history = watched.sum(dim=1) / lengths.clamp(min=1)  # [B, 100]
        user = [self.user(batch["user"]), self.gender(batch["gender"]), self.age(batch["age"][:, None])]
        user += [self.occupation(batch["occupation"]), history]
        movie = [self.movie(batch["movie"]), self.genre(batch["genres"]), self.year(batch["year"][:, None])]
        users, movies = self.user_layers(torch.cat(user, dim=1)), self.movie_layers(torch.cat(movie, dim=1))
        return torch.relu((users * movies).sum(dim=1))


def frame_of(data: Dataset, test: Any, rng: np.random.Generator) -> tuple[FeatureEncoder, pd.DataFrame, pd.DataFrame]:
    """Returns the DataFrames that the notebook's preparations end in: rows to learn from and to be judged on."""
    train = data.interactions
    encoder = FeatureEncoder.of(
        [data.user_ids[row] for row in np.unique(train.user_rows)],
        [data.movies.movie_ids[row] for row in np.unique(train.movie_rows)],
        data.profiles,
        data.movies,
    )
    users, movies = encoder.encode_users(data.user_ids, data.profiles), encoder.encode_movies(data.movies)
    genres = [[int(row) for row in np.flatnonzero(shares)] for shares in movies.genres]

    def frame(rows: Any, histories: list[list[int]]) -> pd.DataFrame:
        columns = {
            "user": users.rows[rows.user_rows],
            "gender": users.genders[rows.user_rows],
            "age": users.ages[rows.user_rows],
            "occupation": users.occupations[rows.user_rows],
            "history": histories,
            "movie": movies.rows[rows.movie_rows],
            "genres": [genres[row] for row in rows.movie_rows],
            "year": movies.years[rows.movie_rows],
            "rating": rows.ratings,
        }
        return pd.DataFrame(columns)

    windows = HistoryWindows(train, data.has_times, HISTORY_LENGTH)
    windows.draw(rng)
    found, shares = windows.of(np.arange(len(train)))
    watched = movies.rows[train.movie_rows[found]]
    of_train = [row[share > 0].tolist() for row, share in zip(watched, shares, strict=True)]
    order = np.lexsort((-train.event_times_ms if data.has_times else rng.random(len(train)), train.user_rows))
    starts = np.searchsorted(train.user_rows[order], np.arange(len(data.user_ids) + 1))
    newest = [
        movies.rows[train.movie_rows[order[a : min(a + HISTORY_LENGTH, b)]]].tolist() for a, b in pairwise(starts)
    ]
    return encoder, frame(train, of_train), frame(test, [newest[row] for row in test.user_rows])


def batches_of(frame: pd.DataFrame, seed: int) -> Iterator[dict[str, Tensor]]:
    """Returns the notebook's batches, in a random order."""
    generator = torch.Generator().manual_seed(seed)
    rows = NotebookRows(frame)
    return iter(DataLoader(rows, BATCH_SIZE, shuffle=True, collate_fn=collate, generator=generator))


def train_notebook(towers: NotebookTowers, batches: Iterator[dict[str, Tensor]]) -> tuple["Spent", int]:
    """Trains on these batches as the notebook does; returns what it took and how many batches there were."""
    optimiser = torch.optim.SGD(towers.parameters(), lr=0.002, momentum=0.05)
    loss_function = nn.MSELoss()
    started, count = Stopwatch(), 0
    for batch in batches:
        optimiser.zero_grad()
        loss = loss_function(towers(batch), batch["rating"])
        loss.backward()
        optimiser.step()
        count += 1
    return started.read(), count


@torch.no_grad()
def notebook_mse(towers: NotebookTowers, test: pd.DataFrame, low: float, high: float) -> float:
    """Returns the mean squared error of clipped predictions."""
    rows = NotebookRows(test)
    loader = DataLoader(rows, 512, collate_fn=collate)
    errors = [(towers(batch).clamp(low, high) - batch["rating"]).square() for batch in loader]
    return float(torch.cat(errors).mean())


def main() -> None:
    """Lets both sides take turns and writes the figures down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="ml-1m", help="a folder or the name of a data set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400, help="batches timed of the notebook's side a round")
    parser.add_argument("--no-whole-epoch", action="store_true", help="no error of the notebook's side, minutes less")
    parser.add_argument("--threads", type=int, default=1, help="processor threads of either side")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    snapshot = take_snapshot(arguments.data, ReadOptions())
    parts = divide(snapshot, "random:0.2", 0)
    data = replace(snapshot.data, interactions=parts.train)
    assert data.scale is not None
    encoder, frame, test = frame_of(data, parts.held_out, np.random.default_rng(0))
    num_batches = -(-len(frame) // BATCH_SIZE)

    ours: list[Spent] = []
    theirs: list[Spent] = []
    figures: dict[str, float] = {}
    fit(replace(data, interactions=parts.train.take(np.arange(1000))), Options(), seed=0, progress=silent)
    for round_number in range(arguments.rounds):
        watch = Stopwatch()
        model = fit(data, Options(threads=arguments.threads), seed=round_number, progress=silent)
        ours.append(watch.read())
        whole = round_number == 0 and not arguments.no_whole_epoch
        towers = NotebookTowers(encoder)
        batches = batches_of(frame, round_number)
        spent, count = train_notebook(towers, batches if whole else islice(batches, arguments.steps))
        theirs.append(Spent(*(seconds * num_batches / count for seconds in spent)))
        print(f"round {round_number + 1}: ours {ours[-1]}, the notebook's {theirs[-1]}", flush=True)
        if round_number == 0:
            judged = evaluate(model, data, parts.train, parts.held_out, protocol="random:0.2").metrics
            figures["our mse"] = round((judged.rmse or float("nan")) ** 2, 4)
            if whole:
                figures["the notebook's mse"] = round(notebook_mse(towers, test, data.scale.low, data.scale.high), 4)
    result = {
        "training rows": len(frame),
        "epochs": 1,
        "threads": arguments.threads,
        **{
            f"{name}, {side}": [round(spent[column], 2) for spent in times]
            for side, times in (("ours", ours), ("the notebook's", theirs))
            for column, name in enumerate(Spent._fields)
        },
        **{
            f"times as quick by {name}": round(
                median(spent[column] for spent in theirs) / median(spent[column] for spent in ours), 1
            )
            for column, name in enumerate(Spent._fields)
        },
        **figures,
    }
    print(result)
    print(record(f"notebook_training_cost_{data.name}", result))


if __name__ == "__main__":
    main()
