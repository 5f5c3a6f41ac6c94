"""Fits the rating head of `marquee`: biases, movie tower, compression, content map, prior, user vectors."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.fits.biases import fit_damped_biases
from trainer.fits.compression import Compressed, compress
from trainer.fits.content_ridge import fit_content_ridge
from trainer.fits.item_autoencoder import AutoencoderConfig, ItemAutoencoder, fit_item_autoencoder
from trainer.fits.marquee_options import Options
from trainer.fits.trained_rows import TrainedRows, with_unknown_row
from trainer.fits.user_prior import fit_user_prior
from two_tower.models.marquee import Marquee
from two_tower.models.marquee_config import MarqueeConfig
from two_tower.models.marquee_content import num_profile_rows, profile_rows

TOWER_STAGE = "movie tower"

_MANY_RATINGS = 300_000
"""Between MovieLens latest-small (100,836) and MovieLens 1M: the recipe's constants differ on the two sides."""

_RESIDUAL_SPREAD = 0.92
"""Standard deviation, in stars, of what biases leave on MovieLens; other scales are brought to it, as the constants of
the tower were found there."""

_CONTENT_DAMPING = 10.0
"""Ratings at which a movie counts half in the content map: a rarer one's vector is mostly prior."""

_USERS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class RatingHead:
    """What the movie side of the rating head came to.

    Attributes:
        tensors: All but those that `fold_users_in` adds.
        size: Coordinates.
        noise_variance: stars²
        cold_noise_variance: stars²
    """

    tensors: dict[str, Tensor]
    size: int
    noise_variance: float
    cold_noise_variance: float


def fit_rating_head(
    trained: TrainedRows,
    content: NDArray[np.float32],
    options: Options,
    rng: np.random.Generator,
    stages: Callable[[str, int, int], None],
) -> RatingHead:
    """Fits the movie side.

    Args:
        trained: Rows, at least one with a rating.
        content: Content features of its movies. [I, F]
        options: Constants.
        rng: For the tower.
        stages: Told after each epoch of the tower.
    """
    rated = trained.interactions.take(~np.isnan(trained.interactions.ratings))
    biases = fit_damped_biases(rated, trained.num_users, trained.num_movies)
    residuals = biases.residuals(rated)
    unit = max(float(residuals.std()), 1e-6) / _RESIDUAL_SPREAD
    tower = fit_item_autoencoder(
        rated.user_rows,
        rated.movie_rows,
        (residuals / unit).astype(np.float32),
        content,
        trained.num_users,
        _tower_config(options, len(rated), trained.num_movies),
        rng,
        lambda done, total: stages(TOWER_STAGE, done, total),
    )
    counts = np.bincount(rated.movie_rows, minlength=trained.num_movies)
    many = len(rated) >= _MANY_RATINGS
    size = options.rating_size or (128 if many else 96)
    spread = options.prior_spread or (2.0 if many else 1.2)
    user_biases = biases.user_biases / unit + tower.user_biases.double().numpy()
    compressed = _compress_tower(tower, user_biases, counts, size, spread, unit)
    tower_biases = unit * tower.movie_biases.double().numpy() + compressed.movie_biases
    movie_biases = biases.global_mean + biases.movie_biases + tower_biases
    from_content = fit_content_ridge(
        content,
        np.concatenate([compressed.movie_vectors, movie_biases[:, None]], axis=1),
        counts / (counts + _CONTENT_DAMPING),
        options.content_ridge,
    )
    return RatingHead(
        {
            "rating.vectors": with_unknown_row(compressed.movie_vectors),
            "rating.biases": with_unknown_row(movie_biases),
            "rating.from_content": torch.from_numpy(from_content.coefficients),
        },
        size,
        max(options.noise_share * float(residuals.var()), 1e-6),
        float(from_content.left_out_variances[-1]),
    )


def fold_users_in(
    trained: TrainedRows, config: MarqueeConfig, tensors: dict[str, Tensor], options: Options
) -> dict[str, Tensor]:
    """Returns the users' prior and vectors: posteriors under a flat prior teach the prior, and it makes the final ones.

    Args:
        trained: Rows.
        config: Of the model being made.
        tensors: Both heads' movie sides and the ranking head's users.
        options: Constants.
    """
    rows = trained.interactions
    size = config.rating_size
    rated = np.bincount(rows.user_rows[~np.isnan(rows.ratings)], minlength=trained.num_users)
    added = {
        "rating.user_counts": with_unknown_row(rated),
        "rating.users": torch.zeros(trained.num_users + 1, size),
        "rating.from_profile": torch.zeros(num_profile_rows(trained.encoder), size),
        "rating.implicit": torch.zeros(trained.num_movies + 1, size),
    }
    prior = fit_user_prior(
        _infer_users(trained, Marquee(config, trained.encoder, tensors | added)),
        profile_rows(trained.profiles, trained.encoder),
        num_profile_rows(trained.encoder),
        rows.user_rows,
        rows.movie_rows,
        trained.num_movies,
        profile_ridge=options.profile_ridge,
        implicit_ridge=options.implicit_ridge,
        implicit_damping=options.implicit_damping,
        max_movies=options.implicit_movies,
    )
    added["rating.from_profile"] = torch.from_numpy(prior.from_profile)
    added["rating.implicit"] = with_unknown_row(prior.implicit)
    added["rating.users"] = with_unknown_row(_infer_users(trained, Marquee(config, trained.encoder, tensors | added)))
    return added


def _tower_config(options: Options, num_ratings: int, num_movies: int) -> AutoencoderConfig:
    many = num_ratings >= _MANY_RATINGS
    per_movie = num_ratings / max(num_movies, 1)
    # Through the recipe's three points: 6e-4 at 10 ratings a movie, 4e-4 at 60, 1.5e-4 at 260.
    weight_decay = float(np.interp(np.log(per_movie), np.log([10, 60, 260]), [6e-4, 4e-4, 1.5e-4]))
    return AutoencoderConfig(
        hidden_size=options.hidden_size or (600 if many else 400),
        epochs=options.tower_epochs,
        batch_movies=options.tower_batch or (128 if many or per_movie < 20 else 64),
        learning_rate=options.tower_learning_rate,
        weight_decay=weight_decay if options.tower_weight_decay is None else options.tower_weight_decay,
        input_dropout=(0.5 if many else 0.3) if options.input_dropout is None else options.input_dropout,
        side_scale=(8.0 if per_movie < 20 else 4.0) if options.side_scale is None else options.side_scale,
    )


def _compress_tower(
    tower: ItemAutoencoder,
    user_biases: NDArray[np.float64],
    counts: NDArray[np.integer],
    size: int,
    spread: float,
    unit: float,
) -> Compressed:
    """Compresses hidden units and user biases together; a user's bias is the weight of a constant coordinate."""
    movies = np.concatenate([tower.hidden.double().numpy(), np.ones((len(counts), 1))], axis=1)  # [I, D + 1]
    users = np.concatenate([tower.user_vectors.double().numpy(), user_biases[:, None]], axis=1)  # [U, D + 1]
    return compress(movies, users * unit, counts, size, spread)


def _infer_users(trained: TrainedRows, model: Marquee) -> NDArray[np.float32]:
    """Returns the rating vector of every user from all his training events, as serving computes a stranger's."""
    movies = model.embed_movies(trained.movies)
    histories = trained.whole_histories()
    vectors = []
    for first in range(0, trained.num_users, _USERS_AT_ONCE):
        users = trained.as_strangers(first, min(first + _USERS_AT_ONCE, trained.num_users), histories)
        vectors.append(model.embed_users(users, movies).rating_vectors.numpy())
    return np.concatenate(vectors)
