"""The larger TensorFlow Recommenders network: a movie is its id, the words of its title and its genres.

A published notebook's network. Title words have vectors that were read from a file or trained along; a title is their
sum. Only the most active users and the most rated movies have a row of their own; row 0 is all others.
`trainer.fits.tfrs_titles` says how it is trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from two_tower.errors import MismatchedCheckpointError
from two_tower.features import FeatureEncoder, MovieFeatures, Range, UserFeatures, Vocabulary
from two_tower.models.encoded_pairwise import EncodedPairwise
from two_tower.movie_columns import MovieColumns
from two_tower.serving import RatingScale
from two_tower.title_words import WordBags

# All widths are the notebook's.
ID_WIDTH = 25
TITLE_WIDTH = 25
TOWER_WIDTHS = (100, 50)
PAIR_WIDTHS = (40, 20)


@dataclass(frozen=True, slots=True)
class Config:
    """What the network is, beside its weights.

    Attributes:
        word_width: Numbers of a word's vector.
        num_users: Rows of the user vocabulary, all others included.
        num_movies: Rows of the movie vocabulary, all others included.
        ages: Range of the age, which the network does not look at.
        years: Range of the year of release, which the network does not look at.
        scale: Rating scale of the data.
    """

    word_width: int
    num_users: int
    num_movies: int
    ages: Range
    years: Range
    scale: RatingScale

    def __post_init__(self) -> None:
        if not 0 < self.word_width <= 4096:
            raise MismatchedCheckpointError(["config.word_width is from 1 to 4096"])


class TitlesNetwork(nn.Module):
    """Two towers and three layers over their product. G = genres, T = tower width."""

    def __init__(self, config: Config, num_words: int, num_genres: int) -> None:
        super().__init__()
        first, second = TOWER_WIDTHS
        self.user_table = nn.Parameter(torch.empty(config.num_users, ID_WIDTH))
        self.movie_table = nn.Parameter(torch.empty(config.num_movies, ID_WIDTH))
        self.word_table = nn.Parameter(torch.empty(num_words, config.word_width))
        self.user_layers = _layers(ID_WIDTH, first, second)
        self.title_layer = nn.Linear(config.word_width, TITLE_WIDTH)
        self.movie_layers = _layers(ID_WIDTH + TITLE_WIDTH + num_genres, first, second)
        self.pair_layers = _layers(second, *PAIR_WIDTHS)
        self.output = nn.Linear(PAIR_WIDTHS[-1], 1)

    def embed_users(self, rows: Tensor) -> Tensor:
        """Runs the user tower. [B] → [B, T]."""
        return torch.as_tensor(self.user_layers(nn.functional.embedding(rows, self.user_table)))

    def embed_movies(self, rows: Tensor, titles: Tensor, genres: Tensor) -> Tensor:
        """Runs the movie tower: rows [B], sums of word vectors [B, word_width], genre flags [B, G] → [B, T]."""
        words = torch.softmax(self.title_layer(titles), dim=-1)  # [B, 25]
        parts = [nn.functional.embedding(rows, self.movie_table), words, genres]
        return torch.as_tensor(self.movie_layers(torch.cat(parts, dim=-1)))

    def meet(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns stars of what both towers gave. [..., T], [..., T] → [...]."""
        return torch.as_tensor(self.output(self.pair_layers(users * movies)))[..., 0]


class TfrsTitles(EncodedPairwise[Config, TitlesNetwork]):
    """The network behind the pairwise form."""

    name: ClassVar[str] = "tfrs-titles"
    uses_profile: ClassVar[bool] = False
    config_class: ClassVar[type[Config]] = Config
    vocabulary_names: ClassVar[tuple[str, ...]] = (*FeatureEncoder.vocabulary_names(), "words")

    def __init__(self, config: Config, encoder: FeatureEncoder, network: TitlesNetwork, words: Vocabulary) -> None:
        super().__init__(config, encoder, network)
        self._words = words

    @classmethod
    def make_network(cls, config: Config, vocabularies: Mapping[str, list[str]]) -> TitlesNetwork:
        """Returns a network with a table row for each word of the vocabularies."""
        return TitlesNetwork(config, len(vocabularies["words"]), len(vocabularies["genres"]))

    @classmethod
    def _assemble(cls, config: Config, vocabularies: Mapping[str, list[str]], network: TitlesNetwork) -> Self:
        known = {name: vocabularies[name] for name in FeatureEncoder.vocabulary_names()}
        encoder = FeatureEncoder.restore(known, config.ages, config.years)
        return cls(config, encoder, network, Vocabulary(vocabularies["words"]))

    def vocabularies(self) -> dict[str, list[str]]:
        """Returns all vocabularies by name."""
        return {**self._encoder.vocabularies(), "words": self._words.words}

    def raw_ratings(self, users: Tensor, movies: Tensor) -> Tensor:
        """Runs the layers over the product of both towers."""
        return self._network.meet(users, movies)

    @property
    def floats_per_pair(self) -> int:
        """The product, and each layer before and after its ReLU."""
        return TOWER_WIDTHS[-1] + 2 * sum(PAIR_WIDTHS)

    def _user_inputs(self, features: UserFeatures) -> Tensor:
        return self._network.embed_users(self._to_device(features.rows))  # [B, T]

    def _movie_inputs(self, features: MovieFeatures, movies: MovieColumns) -> tuple[Tensor, Tensor]:
        titles = WordBags.of(movies.titles, self._words).sums(self._network.word_table)  # [M, word_width]
        genres = self._to_device((features.genres > 0).astype("float32"))  # [M, G]
        vectors = self._network.embed_movies(self._to_device(features.rows), titles, genres)  # [M, T]
        return vectors, vectors


def _layers(width: int, *widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for wide in widths:
        layers += [nn.Linear(width, wide), nn.ReLU()]
        width = wide
    return nn.Sequential(*layers)
