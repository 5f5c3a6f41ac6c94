"""Holds one checkpoint over one catalogue, ready to score. Knows vectors by catalogue number; never changes."""

from dataclasses import dataclass, replace

import torch

from model_service.catalogue import Catalogue
from two_tower.checkpoint import Checkpoint
from two_tower.heads import Heads, heads_of


@dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """What a batch is answered from, from beginning to end.

    Attributes:
        checkpoint: The model and what it says about itself.
        catalogue: The movies.
        heads: What ranks and rates them, in the order of the catalogue.
    """

    checkpoint: Checkpoint
    catalogue: Catalogue
    heads: Heads

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
        return Generation.build(self.checkpoint, catalogue)
