"""Holds one checkpoint over one catalogue, ready to score. Knows vectors by catalogue number; never changes."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from model_service.catalogue import Catalogue
from model_service.indexed_scorer import CandidateIndex, IndexedScorer
from two_tower.checkpoint import Checkpoint
from two_tower.heads import Heads, heads_of
from two_tower.top_k import Scorer


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """What a batch is answered from, from beginning to end.

    Attributes:
        checkpoint: The model and what it says about itself.
        catalogue: The movies.
        heads: What ranks and rates them, in the order of the catalogue.
        index: Proposes what ranks high, in a large catalogue; None where all is ranked exactly.
        stale: Movies that the index does not know as they are now, ascending. int64 [s]
    """

    checkpoint: Checkpoint
    catalogue: Catalogue
    heads: Heads
    index: CandidateIndex | None = None
    stale: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def build(cls, checkpoint: Checkpoint, catalogue: Catalogue) -> "Generation":
        """Runs the movie tower over the catalogue.

        All of it: at some 10k movies that takes a fraction of a second in the background, and a model need not tell
        which embeddings a changed movie touches.
        """
        with torch.inference_mode():
            columns = catalogue.columns()
            popularity = checkpoint.popularity_over(columns.movie_ids)
            embeddings = checkpoint.model.embed_movies(columns)
            return cls(checkpoint, catalogue, heads_of(checkpoint.model, embeddings, popularity))

    def over(self, catalogue: Catalogue) -> "Generation":
        """Returns the same checkpoint over another catalogue; runs the movie tower only if it would see a change."""
        if catalogue.has_features_of(self.catalogue):
            return replace(self, catalogue=catalogue)
        built = Generation.build(self.checkpoint, catalogue)
        return built if self.index is None else built.with_index(self.index)

    def with_index(self, index: CandidateIndex) -> "Generation":
        """Returns the same with an index, of these movies or of what they were before some changed."""
        assert self.heads.ranking is not None
        with torch.inference_mode():
            return replace(self, index=index, stale=index.stale(self.heads.ranking))

    def scorer(self, exact: Scorer) -> Scorer:
        """Returns what ranks: by the index if there is one, else as it is given."""
        if self.index is None or self.heads.ranking is None:
            return exact
        return IndexedScorer(self.index, self.heads.ranking, self.stale, exact)
