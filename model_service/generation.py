"""Holds one checkpoint over one catalogue, ready to score. Knows vectors by catalogue number; never changes."""

from dataclasses import dataclass, replace

import torch

from model_service.catalogue import Catalogue
from model_service.scoring import MovieMatrix
from two_tower.checkpoint import Checkpoint
from two_tower.serving import MovieEmbeddings


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """What a batch is answered from, from beginning to end.

    Attributes:
        checkpoint: The model and what it says about itself.
        catalogue: The movies.
        embeddings: Their embeddings, in the order of the catalogue.
        rating: Rating head.
        ranking: Ranking head.
        cosines: Ranking vectors at length 1.
    """

    checkpoint: Checkpoint
    catalogue: Catalogue
    embeddings: MovieEmbeddings
    rating: MovieMatrix
    ranking: MovieMatrix
    cosines: MovieMatrix

    @classmethod
    def build(cls, checkpoint: Checkpoint, catalogue: Catalogue) -> "Generation":
        """Runs the movie tower over the catalogue.

        All of it: at some 10k movies that takes a fraction of a second in the background, and a model need not tell
        which embeddings a changed movie touches.
        """
        with torch.inference_mode():
            return cls._build(checkpoint, catalogue)

    @classmethod
    def _build(cls, checkpoint: Checkpoint, catalogue: Catalogue) -> "Generation":
        embeddings = checkpoint.model.embed_movies(catalogue.columns())
        ranking = MovieMatrix.of(embeddings.ranking_vectors, embeddings.ranking_biases)
        return cls(
            checkpoint,
            catalogue,
            embeddings,
            MovieMatrix.of(embeddings.rating_vectors, embeddings.rating_biases),
            ranking,
            ranking.cosines(),
        )

    def over(self, catalogue: Catalogue) -> "Generation":
        """Returns the same checkpoint over another catalogue; runs the movie tower only if it would see a change."""
        if catalogue.has_features_of(self.catalogue):
            return replace(self, catalogue=catalogue)
        return Generation.build(self.checkpoint, catalogue)
