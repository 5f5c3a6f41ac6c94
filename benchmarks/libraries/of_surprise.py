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
    """Returns the unclipped rating of every movie; by matrix products where the model is one."""
    trainset = model.trainset
    if isinstance(model, KNNBaseline) or not trainset.knows_user(_inner(trainset, user)):
        return np.array([model.predict(user, movie, clip=False).est for movie in range(num_movies)])
    row = trainset.to_inner_uid(user)
    vector = model.pu[row]
    if isinstance(model, SVDpp):
        watched = [movie for movie, _ in trainset.ur[row]]
        vector = vector + model.yj[watched].sum(axis=0) / np.sqrt(len(watched))
    known = trainset.global_mean + model.bu[row] + model.bi + model.qi @ vector
    scores = np.full(num_movies, trainset.global_mean + model.bu[row])
    scores[[trainset.to_raw_iid(inner) for inner in range(trainset.n_items)]] = known
    return scores


def _inner(trainset: object, user: int) -> int:
    try:
        return int(trainset.to_inner_uid(user))  # type: ignore[attr-defined]
    except ValueError:
        return -1
