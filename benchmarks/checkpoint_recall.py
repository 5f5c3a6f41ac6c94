"""How many of the exact best movies does an index find, over the vectors of a checkpoint of real data?

Trains `marquee` on ml-1m-untimed, once: it is kept in .run. The index is tuned as the service tunes it, on users that
are made up of the checkpoint, and judged on a thousand people with their histories, whom it was not tuned on.
"""

from pathlib import Path

import numpy as np
import torch

from model_service.faiss_index import FaissIndex
from model_service.index_users import user_vectors
from model_service.indexed_scorer import IndexedScorer
from trainer.evaluation import user_columns
from trainer.fits import silent
from trainer.histories import HistoryLayout
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import Snapshot, divide_again, take_snapshot
from trainer.training import Request, train
from two_tower.checkpoint import Checkpoint, load
from two_tower.heads import heads_of
from two_tower.permitted import Permitted
from two_tower.registry import Registry
from two_tower.top_k import TorchScorer

FOLDER = Path(".run/checkpoint_recall")
DATA = "ml-1m-untimed"
MODEL = "marquee"
PEOPLE = 1000
KS = (10, 100)


def recall_of_checkpoint(data: str, min_recall: float) -> dict[str, float]:
    """Returns the recall at 10 and 100 among movies that each has not seen; rows left to exact search count as 1."""
    snapshot = take_snapshot(str(Path(data) / DATA), ReadOptions())
    return _recall(snapshot, _trained(snapshot), min_recall)


@torch.inference_mode()
def _recall(snapshot: Snapshot, checkpoint: Checkpoint, min_recall: float) -> dict[str, float]:
    heads = heads_of(checkpoint.model, checkpoint.model.embed_movies(snapshot.data.movies))
    assert heads.ranking is not None
    rng = np.random.default_rng(0)
    index = FaissIndex.build(heads.ranking, user_vectors(checkpoint, heads, rng), min_recall, rng)
    people = np.sort(rng.choice(len(snapshot.data.user_ids), PEOPLE, replace=False))
    rows = divide_again(snapshot, checkpoint.manifest).train
    layout = HistoryLayout(rows, len(snapshot.data.user_ids), checkpoint.manifest.history_window)
    users = heads.embed(user_columns(snapshot.data, layout, people)).ranking_vectors
    owners, seen = layout.seen(people)
    everything = np.ones((1, len(heads.known)), np.bool_)
    permitted = Permitted(everything, np.zeros(PEOPLE, np.int64), owners, seen.astype(np.int64))
    indexed = IndexedScorer(index, heads.ranking, np.zeros(0, np.int64), TorchScorer())
    figures: dict[str, float] = {"movies": len(heads.known), "people": PEOPLE}
    for k in KS:
        exact = TorchScorer().rank(users, heads.ranking, [k] * PEOPLE, permitted)
        indexed.num_exact = 0
        found = indexed.rank(users, heads.ranking, [k] * PEOPLE, permitted)
        shares = [
            len(np.intersect1d(mine.numbers, true.numbers)) / len(true.numbers)
            for mine, true in zip(found, exact, strict=True)
        ]
        figures[f"recall at {k}"] = round(float(np.mean(shares)), 4)
        figures[f"left to exact search at {k}"] = indexed.num_exact
    # A depth that no number of groups reaches is left to exact search.
    figures.update({f"groups at depth {depth}": each.num_groups for depth, each in index.reaches.depths.items()})
    return figures


def _trained(snapshot: Snapshot) -> Checkpoint:
    registry = Registry(FOLDER / "registry")
    if MODEL not in registry.labels():
        train(snapshot, registry, Request(model=MODEL, label=MODEL, calibrated=False, reported=False), silent)
    return load(registry.path_of(registry.labels()[MODEL]))
