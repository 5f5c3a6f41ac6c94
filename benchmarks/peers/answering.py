"""Answers from a checkpoint and users in memory. What every peer serves; knows no server and no wire.

The peers are spared what model_service does beside answering: nobody's features change, and nothing is read from a
store. Users go through their tower in every batch; with PEERS_EMBEDDED=1 they were embedded before the first question.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from two_tower import checkpoint as checkpoints
from two_tower.frames import movie_columns
from two_tower.heads import heads_of
from two_tower.permitted import Permitted
from two_tower.recommending import Wish, recommend
from two_tower.serving import UserEmbeddings
from two_tower.top_k import NumpyScorer, Scorer, TorchScorer
from two_tower.user_columns import Histories, Profiles, UserColumns

CHECKPOINT, MOVIES, USERS = "checkpoint", "movies.json", "users.npz"
_NUMPY_ROWS = 8
"""As model_service's default: benchmarks/results/scoring_crossover.json."""

_USERS_AT_ONCE = 1024

Question = Mapping[str, Any]
Answer = dict[str, Any]


class Answering:
    """A checkpoint over one catalogue, and its users."""

    def __init__(self, folder: Path) -> None:
        """Loads what `beside_peers.py` wrote: a checkpoint, its catalogue and its users."""
        torch.set_num_threads(1)
        [checkpoint] = (folder / CHECKPOINT).iterdir()
        loaded = checkpoints.load(checkpoint, "cpu")
        catalogue = movie_columns(json.loads((folder / MOVIES).read_text()))
        with torch.inference_mode():
            self._heads = heads_of(loaded.model, loaded.model.embed_movies(catalogue))
        assert loaded.model.rating_scale is not None
        self._scale = loaded.model.rating_scale
        self._movie_ids = catalogue.movie_ids
        self._number_of = {movie_id: number for number, movie_id in enumerate(catalogue.movie_ids)}
        with np.load(folder / USERS) as users:
            ids: list[str | None] = users["user_ids"].tolist()
            profiles = Profiles(
                [each or None for each in users["genders"].tolist()],
                users["ages"],
                [each or None for each in users["occupations"].tolist()],
            )
            names = ("offsets", "movie_numbers", "ratings", "event_times_ms", "complete")
            self._users = UserColumns(ids, profiles, Histories(*(users[name] for name in names)))
            self._seen_starts: NDArray[np.int64] = users["seen_starts"]
            self._seen: NDArray[np.int64] = users["seen"]
        self._row_of = {user_id: row for row, user_id in enumerate(ids)}
        self._embedded = self._embed_all() if os.environ.get("PEERS_EMBEDDED") == "1" else None
        self._available = np.ones(len(catalogue), np.bool_)

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers questions of both kinds: one with a `movie_id` wants a rating, one with a `k` a list."""
        ratings = iter(self.rate([each for each in questions if "movie_id" in each]))
        lists = iter(self.top([each for each in questions if "k" in each]))
        return [next(ratings) if "movie_id" in each else next(lists) for each in questions]

    @torch.inference_mode()
    def rate(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers `user_id` and `movie_id` by `rating`, `rounded_rating` and `score`, as PredictRating does."""
        if not questions:
            return []
        rows, users = self._embed(questions)
        numbers = np.array([self._number_of[each["movie_id"]] for each in questions], np.int64)
        scorer = _scorer_for(len(rows))
        ratings = self._heads.rate_pairs(scorer, users, rows, numbers)
        scores = self._heads.score_pairs(scorer, users, rows, numbers)
        told = zip(ratings.tolist(), self._scale.round(ratings).tolist(), scores.tolist(), strict=True)
        return [{"rating": rating, "rounded_rating": rounded, "score": score} for rating, rounded, score in told]

    @torch.inference_mode()
    def top(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers `user_id` and `k` by `movies`, what the user has seen left out, as TopK does."""
        if not questions:
            return []
        rows, users = self._embed(questions)
        stored = [self._row_of[each["user_id"]] for each in questions]
        seen = [self._seen[self._seen_starts[row] : self._seen_starts[row + 1]] for row in stored]
        permitted = Permitted(
            self._available[None],
            np.zeros(len(rows), np.int64),
            np.repeat(np.arange(len(rows)), [len(each) for each in seen]),
            np.concatenate(seen),
        )
        wishes = [Wish(each["k"]) for each in questions]
        lists = recommend(self._heads, _scorer_for(len(rows)), None, users, rows, wishes, permitted, self._available)
        return [
            {
                "movies": [
                    {"movie_id": self._movie_ids[number], "score": score, "predicted_rating": rating}
                    for number, score, rating in zip(
                        each.ranked.numbers.tolist(),
                        each.ranked.scores.tolist(),
                        [] if each.ratings is None else each.ratings.tolist(),
                        strict=True,
                    )
                ]
            }
            for each in lists
        ]

    def _embed(self, questions: Sequence[Question]) -> tuple[NDArray[np.int64], UserEmbeddings]:
        stored = np.array([self._row_of[each["user_id"]] for each in questions])
        rows = np.arange(len(questions), dtype=np.int64)
        if self._embedded is None:
            return rows, self._heads.embed(self._users.take(stored))
        index = torch.from_numpy(stored)
        vectors = self._embedded
        return rows, UserEmbeddings(vectors.rating_vectors[index], vectors.ranking_vectors[index])

    @torch.inference_mode()
    def _embed_all(self) -> UserEmbeddings:
        parts: list[UserEmbeddings] = [
            self._heads.embed(self._users.take(np.arange(start, min(start + _USERS_AT_ONCE, len(self._users)))))
            for start in range(0, len(self._users), _USERS_AT_ONCE)
        ]
        return UserEmbeddings(
            torch.cat([each.rating_vectors for each in parts]), torch.cat([each.ranking_vectors for each in parts])
        )


def _scorer_for(num_rows: int) -> Scorer:
    return NumpyScorer() if num_rows <= _NUMPY_ROWS else TorchScorer()
