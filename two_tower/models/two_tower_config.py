"""What a `two-tower` checkpoint says beside its weights. Knows no tensor and no training."""

from dataclasses import dataclass

from two_tower.errors import MismatchedCheckpointError
from two_tower.features import Range
from two_tower.serving import RatingScale


@dataclass(frozen=True, slots=True)
class TwoTowerConfig:
    """What the network is, beside its weights.

    Attributes:
        scale: Rating scale of the data; None if it had no ratings, then there is no rating head.
        mean_rating: Of the training rows, in stars; 0 without ratings.
        rating_deviation: Standard deviation of what global and movie means leave of a rating, in stars; above 0.
        ranking_size: Width of a ranking vector.
        rating_size: Width of a rating vector before the coordinates of the biases.
        hidden_size: Width of the layer between content, or profile, and the vectors.
        id_size: Width of a user's own row.
        attention_size: Width of attention's queries and keys over all heads; 0 without attention.
        attention_heads: Heads of the attention.
        history_length: Movies of the history that the user tower looks at, the newest ones.
        ordered: Whether a history has an order: data with times.
        recency: Whether the newer movies of an ordered history weigh more, by decays that are learned.
        history_ratings: Whether the ratings in the history count, beside the fact that it was watched.
        movie_means: Whether a movie's mean rating is known to its tower.
        user_scale: Whether the user's own mean and spread of ratings count.
        title_size: Width of given title vectors; 0 where title words, if any, are trained.
        bags: Names of the bag-of-category columns that the movie tower reads, beside genres.
        ages: Range of the age.
        years: Range of the year of release.
    """

    scale: RatingScale | None
    mean_rating: float
    rating_deviation: float
    ranking_size: int
    rating_size: int
    hidden_size: int
    id_size: int
    attention_size: int
    attention_heads: int
    history_length: int
    ordered: bool
    recency: bool
    history_ratings: bool
    movie_means: bool
    user_scale: bool
    title_size: int
    bags: tuple[str, ...]
    ages: Range
    years: Range

    def __post_init__(self) -> None:
        problems = [
            f"config.{name} is from 1 to 4096"
            for name in ("ranking_size", "rating_size", "hidden_size", "id_size", "attention_heads")
            if not 0 < getattr(self, name) <= 4096
        ]
        if not 0 <= self.attention_size <= 4096 or self.attention_size % max(1, self.attention_heads):
            problems.append("config.attention_size is from 0 to 4096 and a multiple of config.attention_heads")
        if not 0 < self.history_length <= 10_000:
            problems.append("config.history_length is from 1 to 10000")
        if not self.rating_deviation > 0:
            problems.append("config.rating_deviation is above 0")
        if not 0 <= self.title_size <= 4096:
            problems.append("config.title_size is from 0 to 4096")
        if len(set(self.bags)) != len(self.bags):
            problems.append("config.bags names a column twice")
        if problems:
            raise MismatchedCheckpointError(problems)
