"""Fits the rating head of `marquee`: members, compression, content map, prior, user vectors."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.fits.biases import fit_damped_biases
from trainer.fits.compression import compress
from trainer.fits.content_ridge import choose_content_ridge
from trainer.fits.factorisation_machine import MachineConfig
from trainer.fits.item_autoencoder import AutoencoderConfig
from trainer.fits.marquee_options import Options
from trainer.fits.rating_members import RESIDUAL_SPREAD, Member, RatedRows, blend, fit_machine, fit_tower
from trainer.fits.trained_rows import TrainedRows, with_unknown_row
from trainer.fits.user_prior import fit_user_prior
from two_tower.models.marquee_content import num_profile_rows, profile_rows

TOWER_STAGE = "movie tower"
MACHINE_STAGE = "factorisation machine"

MANY_RATINGS = 300_000
"""Between MovieLens latest-small (100,836) and MovieLens 1M: the recipe's constants differ on the two sides."""

CONTENT_RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""λ of the content map, in movies, from which the errors on left out movies choose."""


@dataclass(frozen=True, slots=True)
class RatingHead:
    """What the rating head came to.

    Attributes:
        tensors: By name.
        size: Coordinates.
        noise_variance: stars²
        cold_noise_variance: stars²
        spread_variance: stars²
    """

    tensors: dict[str, Tensor]
    size: int
    noise_variance: float
    cold_noise_variance: float
    spread_variance: float


NO_RATING_HEAD = RatingHead({}, 0, 1.0, 0.0, 1.0)
"""Of data without ratings."""


def steps_of(options: Options, num_ratings: int) -> dict[str, int]:
    """Returns how many steps each stage will report."""
    steps = {TOWER_STAGE: num_towers(options, num_ratings) * options.tower_epochs} if options.machine_share < 1 else {}
    if options.machine_share > 0:
        steps[MACHINE_STAGE] = machine_config(options, num_ratings).iterations
    return steps


def fit_rating_head(
    trained: TrainedRows,
    content: NDArray[np.float32],
    options: Options,
    rng: np.random.Generator,
    stages: Callable[[str, int, int], None],
) -> RatingHead:
    """Fits the head.

    Args:
        trained: Rows, at least one with a rating.
        content: Content features of its movies. [I, F]
        options: Constants.
        rng: For the members.
        stages: Told after each epoch of a member.
    """
    rated = trained.interactions.take(~np.isnan(trained.interactions.ratings))
    residuals = fit_damped_biases(rated, trained.num_users, trained.num_movies).residuals(rated)
    rows = RatedRows(trained, rated, max(float(residuals.std()), 1e-6) / RESIDUAL_SPREAD)
    members = []
    if options.machine_share < 1:
        config, towers = tower_config(options, len(rated), trained.num_movies), num_towers(options, len(rated))
        for number in range(towers):

            def progress(done: int, total: int, before: int = number * config.epochs) -> None:
                stages(TOWER_STAGE, before + done, towers * total)

            tower = fit_tower(rows, content, config, rng, progress)
            members.append(((1 - options.machine_share) / towers, tower))
    if options.machine_share > 0:
        machine = fit_machine(
            rows, machine_config(options, len(rated)), rng, lambda done, total: stages(MACHINE_STAGE, done, total)
        )
        members.append((options.machine_share, machine))
    return make_rating_head(trained, content, blend(members), options, float(residuals.var()))


def make_rating_head(
    trained: TrainedRows, content: NDArray[np.float32], member: Member, options: Options, residual_variance: float
) -> RatingHead:
    """Turns a member into what serving needs of it.

    Args:
        trained: Rows.
        content: Content features of its movies. [I, F]
        member: The blend of all members.
        options: Constants.
        residual_variance: Of what damped biases leave of the ratings, stars².
    """
    is_rated = ~np.isnan(trained.interactions.ratings)
    counts = np.bincount(trained.interactions.movie_rows[is_rated], minlength=trained.num_movies)
    user_counts = np.bincount(trained.interactions.user_rows[is_rated], minlength=trained.num_users)
    many = counts.sum() >= MANY_RATINGS
    size = options.rating_size or (128 if many else 96)
    spread = options.prior_spread or (1.2 if many else 1.5)
    # A user's bias is the weight of a constant coordinate.
    compressed = compress(
        np.concatenate([member.movie_vectors, np.ones((len(counts), 1))], axis=1),
        np.concatenate([member.user_vectors, member.user_biases[:, None]], axis=1),
        counts,
        size,
        spread,
    )
    movie_biases = member.movie_biases + compressed.movie_biases
    # A movie counts as its ratings do: those rated often are better liked, and an unseen movie is asked about as often
    # as it will be rated. A mean over movies is too low, worse than biases alone (docs/experiments.md, 2026-11-22).
    weights = counts / counts.mean()
    # Of an error of the map what is off in the score of a usual user, who is N(0, I / spread) about the mean one.
    importances = np.append(np.full(size, 1 / spread), 1.0)
    from_content = choose_content_ridge(
        content,
        np.concatenate([compressed.movie_vectors, movie_biases[:, None]], axis=1),
        weights,
        CONTENT_RIDGES if options.content_ridge is None else (options.content_ridge,),
        importances,
    )
    noise_variance = max(options.noise_share * residual_variance, 1e-6)
    # What n ratings leave unknown of a movie, of which content foretells bias and vector.
    of_content = max(float(from_content.left_out_variances @ importances), 1e-6)
    movie_variances = 1 / (1 / of_content + np.concatenate(([0], counts)) / noise_variance)
    return RatingHead(
        {
            "rating.variances": torch.from_numpy(movie_variances.astype(np.float32)),
            "rating.vectors": with_unknown_row(compressed.movie_vectors),
            "rating.biases": with_unknown_row(movie_biases),
            "rating.from_content": torch.from_numpy(from_content.coefficients),
            "rating.users": with_unknown_row(compressed.user_vectors),
            "rating.user_counts": with_unknown_row(user_counts),
        }
        | fit_prior_of_strangers(trained, compressed.user_vectors, options),
        size,
        noise_variance,
        float(from_content.left_out_variances[-1]),
        max(member.noise_variance or noise_variance, 1e-6),
    )


def fit_prior_of_strangers(
    trained: TrainedRows, user_vectors: NDArray[np.float32], options: Options
) -> dict[str, Tensor]:
    """Returns what is expected of a stranger: learned from the trained users' vectors, profiles and watched movies."""
    rows = trained.interactions
    prior = fit_user_prior(
        user_vectors,
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
    return {
        "rating.from_profile": torch.from_numpy(prior.from_profile),
        "rating.implicit": with_unknown_row(prior.implicit),
    }


def num_towers(options: Options, num_ratings: int) -> int:
    """Returns how many movie towers are trained on so many ratings, each from another start."""
    return options.towers or (1 if num_ratings >= MANY_RATINGS else 2)


def tower_config(options: Options, num_ratings: int, num_movies: int) -> AutoencoderConfig:
    """Returns how the movie tower is trained on so many ratings of so many movies."""
    many = num_ratings >= MANY_RATINGS
    per_movie = num_ratings / max(num_movies, 1)
    # Through the recipe's three points: 6e-4 at 10 ratings a movie, 4e-4 at 60, 1.5e-4 at 260.
    weight_decay = float(np.interp(np.log(per_movie), np.log([10, 60, 260]), [6e-4, 4e-4, 1.5e-4]))
    return AutoencoderConfig(
        hidden_size=options.hidden_size or (1000 if many else 400),
        epochs=options.tower_epochs,
        batch_movies=options.tower_batch or (128 if many or per_movie < 20 else 64),
        learning_rate=options.tower_learning_rate,
        weight_decay=weight_decay if options.tower_weight_decay is None else options.tower_weight_decay,
        input_dropout=(0.5 if many else 0.3) if options.input_dropout is None else options.input_dropout,
        side_scale=(8.0 if per_movie < 20 else 4.0) if options.side_scale is None else options.side_scale,
    )


def machine_config(options: Options, num_ratings: int) -> MachineConfig:
    """Returns how the factorisation machine is sampled on so many ratings."""
    many = num_ratings >= MANY_RATINGS
    iterations = options.machine_iterations or (200 if many else 300)
    return MachineConfig(
        rank=options.machine_rank or (24 if many else 16),
        iterations=iterations,
        kept=max(1, round(0.7 * iterations)),
        size=options.machine_size or (64 if many else 48),
    )
