"""Answers for whole tables, without servers, as the RPCs do. Knows frames and checkpoints; knows no RPC."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from two_tower import checkpoint as checkpoints
from two_tower.answer_source import are_popular, sources_of
from two_tower.blockwise import BlockwiseScorer
from two_tower.checkpoint import Checkpoint
from two_tower.errors import FrameError, UnknownVersionError
from two_tower.frames import Frame, ids, movie_columns
from two_tower.heads import Heads, heads_of
from two_tower.manifest import Manifest
from two_tower.movie_columns import MovieColumns
from two_tower.people import People
from two_tower.permitted import Permitted
from two_tower.recommending import RankedRow, Wish, recommend
from two_tower.registry import STABLE, Registry
from two_tower.top_k import Ranked
from two_tower.user_columns import UserColumns

USERS_AT_ONCE = 256

_NO_MOVIES = Ranked(np.zeros(0, np.int64), np.zeros(0, np.float32))

Columns = dict[str, NDArray[Any]]
"""Columns by name, all of one length: `pd.DataFrame(columns)` makes a frame of them."""


class Recommender:
    """A checkpoint over one catalogue and the users of one data set.

    Attributes:
        manifest: What the checkpoint says about itself.
        movies: The catalogue.
    """

    def __init__(self, checkpoint: Checkpoint, movies: MovieColumns, heads: Heads, people: People) -> None:
        self.manifest: Manifest = checkpoint.manifest
        self.movies = movies
        self._checkpoint = checkpoint
        self._heads = heads
        self._people = people
        self._number_of = _numbers(movies)
        self._scorer = BlockwiseScorer()

    def with_histories(self, histories: Frame | None, users: Frame | None = None) -> "Recommender":
        """Returns the same checkpoint and catalogue over other users, for a what-if; frames as `two_tower.load`."""
        people = People.read(histories, users, self._number_of)
        return Recommender(self._checkpoint, self.movies, self._heads, people)

    @torch.inference_mode()
    def predict(self, frame: Frame) -> Columns:
        """Predicts the rating of each row, as PredictRating does.

        Args:
            frame: user_id and movie_id. A user who is in no history is answered for as a stranger, a missing id too.

        Returns:
            rating, rounded_rating, score (what ranks), stddev (stars, NaN if the checkpoint cannot tell), num_ratings
            (of the user, behind the answer), source (PERSONAL, FOLDED_IN, PROFILE, POPULAR) and cold, one entry per
            row; numbers are NaN where the catalogue lacks the movie.

        Raises:
            FrameError: A column is missing, or the checkpoint was trained on data without ratings.
        """
        model = self._checkpoint.model
        if model.rating_scale is None:
            raise FrameError(f"checkpoint {self.manifest.version} was trained on data without ratings: it ranks only")
        user_ids = ids(frame, "user_id", "questions")
        movie_ids = ids(frame, "movie_id", "questions")
        if len(user_ids) != len(movie_ids):
            raise FrameError(f"questions have {len(user_ids)} user_id and {len(movie_ids)} movie_id")
        numbers = np.array([self._number_of.get(movie_id or "", -1) for movie_id in movie_ids], np.int64)  # [P]
        distinct = list(dict.fromkeys(user_ids))
        place_of = {user_id: place for place, user_id in enumerate(distinct)}
        places = np.array([place_of[user_id] for user_id in user_ids], np.int64)  # [P]
        ratings, scores, deviations = (np.full(len(places), np.nan, np.float32) for _ in range(3))
        num_ratings, sources = np.zeros(len(places), np.int64), np.full(len(places), "", object)
        for start, columns in self._blocks(distinct):
            mine = np.flatnonzero((places >= start) & (places < start + len(columns)))
            users = self._heads.embed(columns)
            counts = model.count_ratings(columns)
            num_ratings[mine] = counts[places[mine] - start]
            sources[mine] = self._sources(columns)[places[mine] - start]
            pairs = mine[numbers[mine] >= 0]
            asked = (places[pairs] - start, numbers[pairs])
            if not len(pairs):
                continue
            ratings[pairs] = self._heads.rate_pairs(self._scorer, users, *asked)
            scores[pairs] = self._heads.score_pairs(self._scorer, users, *asked)
            if self._heads.popularity is not None:
                popular = are_popular(sources_of(model, columns))[asked[0]]
                scores[pairs[popular]] = self._heads.popularity[asked[1][popular]]
            told = self._heads.deviations_of_pairs(columns, counts, self.manifest.rating_spread, *asked)
            deviations[pairs] = np.nan if told is None else told
        return {
            "rating": ratings,
            "rounded_rating": model.rating_scale.round(ratings),
            "score": scores,
            "stddev": deviations,
            "num_ratings": num_ratings,
            "source": sources,
            "cold": (numbers >= 0) & ~self._heads.known[numbers],
        }

    @torch.inference_mode()
    def top_k(
        self,
        frame: Frame | Sequence[str],
        k: int = 10,
        *,
        exclude_seen: bool = True,
        among: Collection[str] | None = None,
        diversity: float = 0.0,
        explain: int = 0,
    ) -> Columns:
        """Recommends movies to each distinct user, as TopK does.

        Args:
            frame: user_id, or a sequence of user ids.
            k: Movies wanted per user.
            exclude_seen: Whether what a user has in his history is left out.
            among: Only these movie ids; None for all.
            diversity: 0 for score alone, up to 1 for variety alone: see `two_tower.diversity`.
            explain: History entries named for each movie at most.

        Returns:
            user_id, rank (from 1), movie_id, title, score, predicted_rating (NaN if the data has no ratings), cold and
            source, one entry per recommended movie; with `explain` also reasons (a list of (movie id, share)) and
            unexplained.

        Raises:
            FrameError: There is no column user_id.
            ValueError: k, diversity or explain cannot be.
        """
        if k < 1 or not 0 <= diversity <= 1 or explain < 0:
            raise ValueError(f"k is {k}, diversity {diversity}, explain {explain}; right are 1 on, 0 to 1, 0 on")
        listed = ids({"user_id": list(frame)} if isinstance(frame, list | tuple) else frame, "user_id", "questions")
        allowed = np.ones(len(self.movies), np.bool_)
        if among is not None:
            allowed[:] = False
            allowed[[self._number_of[movie_id] for movie_id in among if movie_id in self._number_of]] = True
        wish = Wish(k, diversity, explain)
        parts: list[Columns] = []
        for _, columns in self._blocks(list(dict.fromkeys(listed))):
            rows = self._lists(columns, wish, allowed, exclude_seen)
            parts += [self._told(*each) for each in zip(columns.user_ids, self._sources(columns), rows, strict=True)]
        nothing = self._told(None, "", RankedRow(_NO_MOVIES, None, () if explain else None))
        return {name: np.concatenate([nothing[name], *(part[name] for part in parts)]) for name in nothing}

    @torch.inference_mode()
    def similar_movies(self, movie_id: str, k: int = 10) -> Columns:
        """Finds the movies nearest to one, as SimilarMovies does: movie_id, title and score.

        Raises:
            FrameError: The catalogue lacks the movie.
        """
        number = self._number_of.get(movie_id)
        if number is None:
            raise FrameError(f"movies lack {movie_id!r}")
        cosines = self._heads.cosines
        allowed = np.arange(len(self.movies)) != number
        permitted = _permitted(allowed, [np.zeros(0, np.int64)])
        [found] = self._scorer.rank(cosines.vectors[[number]], cosines, [k], permitted)
        told = self._told(None, "", RankedRow(found, None))
        return {name: told[name] for name in ("movie_id", "title", "score")}

    def _lists(
        self, columns: UserColumns, wish: Wish, allowed: NDArray[np.bool_], exclude_seen: bool
    ) -> list[RankedRow]:
        nothing = np.zeros(0, np.int64)
        seen = [self._people.seen(user_id) if exclude_seen else nothing for user_id in columns.user_ids]
        rows = np.arange(len(columns), dtype=np.int64)
        users = self._heads.embed(columns)
        available = np.ones(len(self.movies), np.bool_)
        return recommend(
            self._heads,
            self._scorer,
            columns,
            users,
            rows,
            [wish] * len(columns),
            _permitted(allowed, seen),
            available,
            are_popular(sources_of(self._checkpoint.model, columns)),
        )

    def _told(self, user_id: str | None, source: str, row: RankedRow) -> Columns:
        numbers = row.ranked.numbers
        size = len(numbers)
        unrated = np.full(size, np.nan, np.float32)
        told: Columns = {
            "user_id": np.full(size, user_id, object),
            "rank": np.arange(1, size + 1),
            "movie_id": np.array([self.movies.movie_ids[number] for number in numbers], object),
            "title": np.array([self.movies.titles[number] for number in numbers], object),
            "score": row.ranked.scores,
            "predicted_rating": unrated if row.ratings is None else row.ratings,
            "cold": ~self._heads.known[numbers],
            "source": np.full(size, source, object),
        }
        if row.explanations is not None:
            told["reasons"] = np.empty(size, object)
            for place, each in enumerate(row.explanations):
                named = [self.movies.movie_ids[number] for number in each.numbers]
                told["reasons"][place] = list(zip(named, each.shares.tolist(), strict=True))
            told["unexplained"] = np.array([each.unexplained for each in row.explanations], np.float32)
        return told

    def _blocks(self, user_ids: Sequence[str | None]) -> Iterator[tuple[int, UserColumns]]:
        """Yields some users at a time, with the position of the first."""
        for start in range(0, len(user_ids), USERS_AT_ONCE):
            some = user_ids[start : start + USERS_AT_ONCE]
            trained = self._checkpoint.model.knows_users(list(some))
            yield start, self._people.columns(some, self.manifest.history_window, trained)

    def _sources(self, columns: UserColumns) -> NDArray[np.object_]:
        return np.array([source.name for source in sources_of(self._checkpoint.model, columns)], object)


def open_recommender(
    path: Path, movies: Frame, histories: Frame | None, users: Frame | None, device: str
) -> Recommender:
    """Opens a checkpoint, as `two_tower.load` says."""
    loaded = checkpoints.load(_checkpoint_folder(path), device)
    checkpoints.self_check(loaded)
    catalogue = movie_columns(movies)
    catalogue = replace(catalogue, available=np.ones(len(catalogue), np.bool_))
    with torch.inference_mode():
        popularity = loaded.popularity_over(catalogue.movie_ids)
        heads = heads_of(loaded.model, loaded.model.embed_movies(catalogue), popularity)
    return Recommender(loaded, catalogue, heads, People.read(histories, users, _numbers(catalogue)))


def _checkpoint_folder(path: Path) -> Path:
    if (path / checkpoints.MANIFEST).exists():
        return path
    registry = Registry(path)
    version = registry.label(STABLE)
    if version is None:
        raise UnknownVersionError(
            f"{path} is neither a checkpoint nor a registry with one labelled {STABLE!r}; give the folder of a version"
        )
    return registry.path_of(version)


def _numbers(movies: MovieColumns) -> dict[str, int]:
    return {movie_id: number for number, movie_id in enumerate(movies.movie_ids)}


def _permitted(allowed: NDArray[np.bool_], excluded: Sequence[NDArray[np.int64]]) -> Permitted:
    return Permitted(
        allowed[None],
        np.zeros(len(excluded), np.int64),
        np.repeat(np.arange(len(excluded), dtype=np.int64), [len(numbers) for numbers in excluded]),
        np.concatenate(excluded),
    )
