"""Asks LensKit: BiasedMF by ALS for ratings, item-kNN and ImplicitMF for lists.

Regularisation of BiasedMF and neighbours of item-kNN are chosen on training rows held back, around LensKit's defaults;
the others are the defaults of lenskit 2025.8.
"""

from typing import Any

import numpy as np
import pandas as pd
from lenskit.als import BiasedMFScorer, ImplicitMFScorer
from lenskit.data import Dataset, ItemList, RecQuery, from_interactions_df
from lenskit.knn import ItemKNNScorer
from lenskit.training import TrainingOptions
from numpy.typing import NDArray

from benchmarks.libraries.question import Question, Reply, Stopwatch, best_unseen, ndcg_of_one

REGULARISATIONS = (0.05, 0.1, 0.2, 0.4)
NEIGHBOURS = (10, 20, 50, 100)


def answer(method: str, question: Question) -> Reply:
    """Chooses the one setting, fits once more on all training rows, and answers."""
    if method == "biasedmf":
        return _ratings(question)
    watch = Stopwatch()
    if method == "implicitmf":
        with watch.running():
            model = _train(ImplicitMFScorer(), question)
        return Reply(None, _rank(model, question), watch, ("lenskit-implicitmf: defaults of lenskit 2025.8.",))
    rest, held_back = question.hold_back()
    found = [ndcg_of_one(_rank(_train(_neighbours(count), rest), rest), held_back) for count in NEIGHBOURS]
    count = NEIGHBOURS[int(np.argmax(found))]
    with watch.running():
        model = _train(_neighbours(count), question)
    note = f"lenskit-itemknn: {count} neighbours, best of {NEIGHBOURS} on a row of each user held back."
    return Reply(None, _rank(model, question), watch, (note,))


def _ratings(question: Question) -> Reply:
    held = np.random.default_rng(question.seed).random(len(question.train_users)) < 0.1
    errors = []
    for regularisation in REGULARISATIONS:
        model = _train(BiasedMFScorer(embedding_size=50, regularization=regularisation), question, ~held)
        predicted = _rate(model, question, question.train_users[held], question.train_movies[held], ~held)
        errors.append(float(np.sqrt(np.mean((predicted - question.train_ratings[held]) ** 2))))
    best = REGULARISATIONS[int(np.argmin(errors))]
    watch = Stopwatch()
    with watch.running():
        model = _train(BiasedMFScorer(embedding_size=50, regularization=best), question)
    ratings = _rate(model, question, question.test_users, question.test_movies)
    note = f"lenskit-biasedmf: regularisation {best:g}, best of {REGULARISATIONS} on a tenth of the training rows."
    return Reply(ratings, _rank(model, question), watch, (f"{note} Ranks by predicted rating.",))


def _neighbours(count: int) -> ItemKNNScorer:
    return ItemKNNScorer(max_nbrs=count, feedback="implicit")


def _dataset(question: Question, rows: NDArray[np.bool_] | None = None) -> Dataset:
    frame = pd.DataFrame(
        {
            "user_id": question.train_users,
            "item_id": question.train_movies,
            "rating": question.train_ratings.astype(np.float64),
        }
    )
    return from_interactions_df(frame if rows is None else frame[rows])


def _train(model: Any, question: Question, rows: NDArray[np.bool_] | None = None) -> Any:
    model.train(_dataset(question, rows), TrainingOptions(rng=question.seed))
    return model


def _rate(
    model: Any,
    question: Question,
    users: NDArray[np.int32],
    movies: NDArray[np.int32],
    rows: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Rates pairs; what the model cannot rate gets the mean of the training rows."""
    learnt = question.train_ratings if rows is None else question.train_ratings[rows]
    ratings = np.full(len(users), float(learnt.mean()))
    order = np.argsort(users, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(users[order])) + 1):
        scores = model(RecQuery(user_id=int(users[group[0]])), ItemList(item_ids=movies[group])).scores("numpy")
        known = np.isfinite(scores)
        ratings[group[known]] = scores[known]
    return ratings


def _rank(model: Any, question: Question) -> NDArray[np.int64]:
    seen = question.matrix()
    catalogue = np.arange(question.num_movies, dtype=np.int32)
    lists = []
    for start in range(0, len(question.list_users), 256):
        users = question.list_users[start : start + 256]
        scores = np.stack([_scores(model, seen, int(user), catalogue) for user in users])
        lists.append(best_unseen(scores, seen[users], question.ranks))
    return np.concatenate(lists)


def _scores(model: Any, seen: Any, user: int, catalogue: NDArray[np.int32]) -> NDArray[np.float64]:
    watched = ItemList(item_ids=seen[user].indices) if isinstance(model, ItemKNNScorer) else None
    found = model(RecQuery(user_id=user, user_items=watched), ItemList(item_ids=catalogue)).scores("numpy")
    return np.where(np.isfinite(found), found, -np.inf).astype(np.float64)
