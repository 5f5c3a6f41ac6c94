"""Asks scikit-surprise: SVD, SVD++, KNNBaseline.

SVD and SVD++ at the library's defaults, with which its own benchmark was made (README, "Benchmarks"). KNNBaseline
between movies with pearson_baseline similarity, which its documentation recommends for this method over the default
(KNNBaseline, "Note"). Lists by predicted rating: there is nothing else to rank by.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from surprise import SVD, Dataset, KNNBaseline, Reader, SVDpp
from surprise.prediction_algorithms.algo_base import AlgoBase

from benchmarks.libraries.question import Question, Reply, Stopwatch, best_unseen


def answer(method: str, question: Question) -> Reply:
    """Fits one method and answers."""
    rated = ~np.isnan(question.train_ratings)
    frame = pd.DataFrame(
        {
            "user": question.train_users[rated],
            "movie": question.train_movies[rated],
            "rating": question.train_ratings[rated].astype(float),
        }
    )
    trainset = Dataset.load_from_df(frame, Reader(rating_scale=(question.low, question.high))).build_full_trainset()
    model = _make(method, question.seed)
    watch = Stopwatch()
    with watch.running():
        model.fit(trainset)
    ratings = np.array(
        [
            model.predict(int(user), int(movie), clip=False).est
            for user, movie in zip(question.test_users, question.test_movies, strict=True)
        ]
    )
    lists = _rank(model, question)
    notes = [f"surprise-{method}: defaults of scikit-surprise 1.1.5; ranks by predicted rating."]
    if method == "knn":
        notes = ["surprise-knn: KNNBaseline between movies, pearson_baseline; ranks by predicted rating."]
    return Reply(ratings, lists, watch, tuple(notes))


def _make(method: str, seed: int) -> AlgoBase:
    if method == "svd":
        return SVD(random_state=seed)
    if method == "svdpp":
        return SVDpp(random_state=seed, cache_ratings=True)
    return KNNBaseline(
        sim_options={"name": "pearson_baseline", "user_based": False}, bsl_options={"method": "als"}, verbose=False
    )


def _rank(model: AlgoBase, question: Question) -> NDArray[np.int64]:
    seen = question.matrix()
    lists = []
    for start in range(0, len(question.list_users), 256):
        users = question.list_users[start : start + 256]
        scores = np.stack([_scores(model, int(user), question.num_movies) for user in users])
        lists.append(best_unseen(scores, seen[users], question.ranks))
    return np.concatenate(lists)


def _scores(model: AlgoBase, user: int, num_movies: int) -> NDArray[np.float64]:
    """Returns the unclipped rating of every movie: what `predict` says of each, by array operations."""
    trainset = model.trainset
    row = _inner(trainset, user)
    if row < 0:
        return np.array([model.predict(user, movie, clip=False).est for movie in range(num_movies)])
    if isinstance(model, KNNBaseline):
        offset, known = _neighbours(model, row)
    else:
        offset, known = _dot_products(model, row)
    scores = np.full(num_movies, trainset.global_mean + offset)
    scores[[trainset.to_raw_iid(inner) for inner in range(trainset.n_items)]] = known
    return scores


def _dot_products(model: AlgoBase, row: int) -> tuple[float, NDArray[np.float64]]:
    """Returns the user's bias and his rating of every movie that was learnt from, as SVD and SVD++ have them."""
    vector = model.pu[row]
    if isinstance(model, SVDpp):
        watched = [movie for movie, _ in model.trainset.ur[row]]
        vector = vector + model.yj[watched].sum(axis=0) / np.sqrt(len(watched))
    return model.bu[row], model.trainset.global_mean + model.bu[row] + model.bi + model.qi @ vector


def _neighbours(model: KNNBaseline, row: int) -> tuple[float, NDArray[np.float64]]:
    """Returns the same as KNNBaseline has it: of the k most similar watched movies those with positive similarity."""
    watched = np.array([movie for movie, _ in model.trainset.ur[row]])
    ratings = np.array([rating for _, rating in model.trainset.ur[row]])
    mean, bias, of_movies = model.trainset.global_mean, model.by[row], model.bx
    similar = model.sim[:, watched]  # [M, n]
    if len(watched) > model.k:
        nearest = np.argpartition(-similar, model.k, axis=1)[:, : model.k]
        similar = np.take_along_axis(similar, nearest, axis=1)
        residuals = (ratings - (mean + of_movies[watched] + bias))[nearest]
    else:
        residuals = np.broadcast_to(ratings - (mean + of_movies[watched] + bias), similar.shape)
    similar = np.maximum(similar, 0)
    total = similar.sum(axis=1)
    shift = np.divide((similar * residuals).sum(axis=1), total, out=np.zeros_like(total), where=total > 0)
    return bias, mean + bias + of_movies + shift


def _inner(trainset: object, user: int) -> int:
    try:
        return int(trainset.to_inner_uid(user))  # type: ignore[attr-defined]
    except ValueError:
        return -1
