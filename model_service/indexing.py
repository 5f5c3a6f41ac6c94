"""Decides which generations answer from an index, and builds it. Knows sizes and recalls; knows no request."""

import importlib.util

import numpy as np
import structlog

from model_service.generation import Generation
from model_service.index_users import user_vectors
from model_service.indexed_scorer import CandidateIndex, UnreachableRecallError

_log = structlog.get_logger(__name__)

_SEED = 0
_STALE_SHARE = 0.001
"""Of the movies: every stale one is scored for every user, and of a million a thousand take what a search takes."""


class Indexing:
    """Gives generations over large catalogues an index."""

    def __init__(self, min_movies: int, min_recall: float) -> None:
        """Stores when an index is wanted.

        Args:
            min_movies: Smaller catalogues are ranked exactly.
            min_recall: Share of the best movies that an index must find on average; at 1 nothing is indexed.
        """
        self._min_movies = min_movies
        self._min_recall = min_recall
        self._ranked_exactly: set[str] = set()

    def is_due(self, generation: Generation) -> bool:
        """Tells whether a generation lacks an index, or has one that no longer knows enough of its movies."""
        matrix = generation.heads.ranking
        if matrix is None or matrix.vectors.device.type != "cpu" or self._min_recall >= 1:
            return False
        num_movies = len(generation.catalogue)
        if num_movies < self._min_movies or generation.checkpoint.version in self._ranked_exactly:
            return False
        return generation.index is None or len(generation.stale) > _STALE_SHARE * num_movies

    def indexed(self, generation: Generation) -> Generation:
        """Returns the generation with an index if one is due and can be had."""
        index = self.build(generation) if self.is_due(generation) else None
        return generation if index is None else generation.with_index(index)

    def build(self, generation: Generation) -> CandidateIndex | None:
        """Builds an index; None, and never again for this checkpoint, where none is to be had."""
        version = generation.checkpoint.version
        if importlib.util.find_spec("faiss") is None:
            self._rank_exactly(version, "faiss is not installed; the extra `large` of this project brings it")
            return None
        # What is not installed everywhere is imported where it is wanted.
        from model_service.faiss_index import FaissIndex

        rng = np.random.default_rng(_SEED)
        matrix = generation.heads.ranking
        assert matrix is not None
        try:
            users = user_vectors(generation.checkpoint, generation.heads, rng)
            return FaissIndex.build(matrix, users, self._min_recall, rng)
        except UnreachableRecallError as error:
            self._rank_exactly(version, str(error))
            return None

    def _rank_exactly(self, version: str, reason: str) -> None:
        self._ranked_exactly.add(version)
        _log.warning("ranked_exactly", model_version=version, reason=reason)
