"""Asks implicit: ALS (Hu et al. 2008) and BPR (Rendle et al. 2009), on what was watched, without stars.

Settings are chosen by NDCG@10 on one row of each user held back from the training rows; the grid is around the defaults
of the library and the confidence of Hu et al. (section 6.2, alpha = 40).
"""

from itertools import product
from typing import Any

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from numpy.typing import NDArray

from benchmarks.libraries.question import Question, Reply, Stopwatch, best_unseen, ndcg_of_one

ALS_GRID = [
    {"factors": factors, "regularization": regularization, "alpha": alpha}
    for factors, regularization, alpha in product((32, 64), (0.01, 1.0), (1.0, 10.0, 40.0))
]
BPR_GRID = [
    {"factors": 64, "regularization": 0.01, "learning_rate": rate, "iterations": iterations}
    for rate, iterations in product((0.01, 0.05), (100, 300))
]
MANY_ROWS = 300_000
"""From here on BPR takes 100 passes: 300 would take longer than everything else together."""


def answer(method: str, question: Question) -> Reply:
    """Chooses settings, fits once more on all training rows, and ranks."""
    grid: list[dict[str, Any]] = ALS_GRID if method == "als" else BPR_GRID
    if method == "bpr" and len(question.train_users) > MANY_ROWS:
        grid = [settings for settings in grid if settings["iterations"] == 100]
    rest, held_back = question.hold_back()
    found = [ndcg_of_one(_rank(_fit(method, settings, rest), rest), held_back) for settings in grid]
    best = grid[int(np.argmax(found))]
    watch = Stopwatch()
    with watch.running():
        model = _fit(method, best, question)
    chosen = ", ".join(f"{name} {value:g}" for name, value in best.items())
    note = (
        f"implicit-{method}: {chosen}, best of {len(grid)} on a row of each user held back (NDCG@10 {max(found):.3f})."
    )
    return Reply(None, _rank(model, question), watch, (note,))


def _fit(method: str, settings: dict[str, Any], question: Question) -> Any:
    kind = AlternatingLeastSquares if method == "als" else BayesianPersonalizedRanking
    model = kind(random_state=question.seed, num_threads=1, **settings)
    model.fit(question.matrix(), show_progress=False)
    return model


def _rank(model: Any, question: Question) -> NDArray[np.int64]:
    scores = model.user_factors[question.list_users] @ model.item_factors.T  # [B, M]
    return best_unseen(scores, question.matrix()[question.list_users], question.ranks)
