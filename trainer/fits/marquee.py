"""Fits the `marquee` model: movie tower, compression, retrieval head, content maps, priors; then folds the users in.

What is trained is the movie side; every user vector is the closed-form posterior that serving would compute from the
same ratings, so the trainer, a stored user and a stranger are judged by one formula.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.dataset import Dataset, Interactions
from trainer.fits import Progress
from trainer.fits.biases import fit_damped_biases
from trainer.fits.compression import Compressed, compress
from trainer.fits.content_ridge import fit_content_ridge
from trainer.fits.edlae import fit_edlae
from trainer.fits.item_autoencoder import AutoencoderConfig, ItemAutoencoder, fit_item_autoencoder
from trainer.fits.log_linear import LogLinearConfig, fit_log_linear
from trainer.fits.marquee_options import Options
from trainer.fits.user_prior import fit_user_prior
from two_tower.features import FeatureEncoder
from two_tower.models.marquee import Marquee, tensor_shapes
from two_tower.models.marquee_config import LONG, SHORT, MarqueeConfig, Memory
from two_tower.models.marquee_content import movie_content, profile_content
from two_tower.movie_columns import MovieColumns
from two_tower.user_columns import Histories, Profiles, UserColumns

__all__ = ["Options", "fit"]

_MANY_RATINGS = 300_000
"""Between MovieLens latest-small (100,836) and MovieLens 1M: the recipe's constants differ on the two sides."""

_RESIDUAL_SPREAD = 0.92
"""Standard deviation, in stars, of what biases leave on MovieLens; other scales are brought to it, as the constants of
the tower were found there."""

_MAX_RANKED_CELLS = 1.8e9
"""Cuts x movies over the whole training of the retrieval head; about half a minute on two cores."""

_USERS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class _Trained:
    """The part of a data set that has interactions, in dense rows.

    Attributes:
        encoder: Row r + 1 of its vocabularies is row r here.
        interactions: In those rows.
        profiles: Of those users.
        movies: Those movies.
    """

    encoder: FeatureEncoder
    interactions: Interactions
    profiles: Profiles
    movies: MovieColumns

    @property
    def num_users(self) -> int:
        return len(self.profiles)

    @property
    def num_movies(self) -> int:
        return len(self.movies)

    @classmethod
    def of(cls, data: Dataset) -> "_Trained":
        rows = data.interactions
        users, user_rows = np.unique(rows.user_rows, return_inverse=True)
        movies, movie_rows = np.unique(rows.movie_rows, return_inverse=True)
        encoder = FeatureEncoder.of(
            [data.user_ids[row] for row in users],
            [data.movies.movie_ids[row] for row in movies],
            data.profiles,
            data.movies,
        )
        return cls(
            encoder,
            Interactions(user_rows.astype(np.int32), movie_rows.astype(np.int32), rows.ratings, rows.event_times_ms),
            Profiles(
                [data.profiles.genders[row] for row in users],
                data.profiles.ages[users],
                [data.profiles.occupations[row] for row in users],
            ),
            MovieColumns(
                [data.movies.movie_ids[row] for row in movies],
                [data.movies.titles[row] for row in movies],
                data.movies.years[movies],
                [data.movies.genres[row] for row in movies],
            ),
        )


class _Stages:
    """Turns the stages of the fit, each with steps of its own, into one count of steps."""

    def __init__(self, progress: Progress, totals: dict[str, int]) -> None:
        self._progress = progress
        self._totals = totals

    def __call__(self, stage: str, done: int, total: int) -> None:
        before = 0
        for name, steps in self._totals.items():
            if name == stage:
                break
            before += steps
        self._progress(before + done, sum(self._totals.values()), stage)


def fit(data: Dataset, options: Options, *, seed: int, progress: Progress) -> Marquee:
    """Fits the model.

    Args:
        data: Its interactions are the training rows, at least one. Without ratings only the retrieval head is made;
            without times it is a linear autoencoder.
        options: Constants.
        seed: All chance comes from it.
        progress: Told once an epoch.
    """
    if not len(data.interactions):
        raise ValueError("marquee needs at least one interaction")
    trained = _Trained.of(data)
    tower_seed, ranking_seed = np.random.SeedSequence(seed).spawn(2)
    stages = _Stages(
        progress,
        ({"movie tower": options.tower_epochs} if data.scale is not None else {})
        | ({"retrieval head": options.ranking_epochs} if data.has_times else {"retrieval head": 1}),
    )
    content = movie_content(trained.movies, trained.encoder)
    tensors: dict[str, Tensor] = {}
    rating_size, noise, cold_noise = 0, 1.0, 0.0
    if data.scale is not None:
        rating = _fit_rating_head(trained, content, options, np.random.default_rng(tower_seed), stages)
        tensors |= rating.tensors
        rating_size, noise, cold_noise = rating.size, rating.noise_variance, rating.cold_noise_variance
    memories = _memories(options, data.has_times)
    tensors |= _fit_ranking_head(
        trained, content, memories, options, data.has_times, np.random.default_rng(ranking_seed), stages
    )
    config = MarqueeConfig(
        data.scale,
        rating_size,
        tensors["ranking.vectors"].shape[1],
        memories,
        noise,
        cold_noise,
        options.prior_events,
        options.implicit_damping,
        int(data.interactions.event_times_ms.max()) if data.has_times else 0,
        trained.encoder.years,
        trained.encoder.ages,
    )
    if data.scale is not None:
        _fold_users_in(trained, config, tensors, options)
    shapes = tensor_shapes(config, trained.encoder)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes
    return Marquee(config, trained.encoder, {name: tensors[name].contiguous() for name in shapes})


@dataclass(frozen=True, slots=True)
class _RatingHead:
    """What the movie side of the rating head came to.

    Attributes:
        tensors: All but those that `_fold_users_in` adds.
        size: Coordinates.
        noise_variance: stars²
        cold_noise_variance: stars²
    """

    tensors: dict[str, Tensor]
    size: int
    noise_variance: float
    cold_noise_variance: float


def _fit_rating_head(
    trained: _Trained,
    content: NDArray[np.float32],
    options: Options,
    rng: np.random.Generator,
    stages: _Stages,
) -> _RatingHead:
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
        stages,
    )
    counts = np.bincount(rated.movie_rows, minlength=trained.num_movies)
    many = len(rated) >= _MANY_RATINGS
    size = options.rating_size or (128 if many else 96)
    user_biases = biases.user_biases / unit + tower.user_biases.double().numpy()
    compressed = _compress_tower(tower, user_biases, counts, size, options.prior_spread, unit)
    movie_biases = (
        biases.global_mean + biases.movie_biases + unit * tower.movie_biases.double().numpy() + compressed.movie_biases
    )
    from_content = fit_content_ridge(
        content,
        np.concatenate([compressed.movie_vectors, movie_biases[:, None]], axis=1),
        counts / (counts + 10.0),
        options.content_ridge,
    )
    return _RatingHead(
        {
            "rating.vectors": _with_unknown_row(compressed.movie_vectors),
            "rating.biases": _with_unknown_row(movie_biases),
            "rating.from_content": torch.from_numpy(from_content.coefficients),
        },
        size,
        options.noise_share * float(residuals.var()),
        float(from_content.left_out_variances[-1]),
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


def _memories(options: Options, timed: bool) -> tuple[Memory, ...]:
    if not timed:
        return (Memory(LONG, 1.0, 1.0),)
    return (
        Memory(SHORT, float(np.exp(-1 / options.short_decay)), 1.0),
        Memory(LONG, float(np.exp(-1 / options.long_decay)), 1.0),
        Memory(LONG, 1.0, options.flat_gain),
    )


def _fit_ranking_head(
    trained: _Trained,
    content: NDArray[np.float32],
    memories: tuple[Memory, ...],
    options: Options,
    timed: bool,
    rng: np.random.Generator,
    stages: _Stages,
) -> dict[str, Tensor]:
    rows = trained.interactions
    counts = np.bincount(rows.movie_rows, minlength=trained.num_movies)
    if timed:
        head = fit_log_linear(
            rows.user_rows,
            rows.movie_rows,
            rows.event_times_ms,
            trained.num_movies,
            _log_linear_config(options, trained),
            rng,
            stages,
        )
        vectors, biases, user_bias = head.vectors.numpy(), head.biases.numpy(), head.user_bias
        tables = {SHORT: head.short.numpy(), LONG: head.long.numpy()}
    else:
        stages("retrieval head", 0, 1)
        linear = fit_edlae(
            rows.user_rows,
            rows.movie_rows,
            trained.num_users,
            trained.num_movies,
            size=options.untimed_size,
            dropout=options.untimed_dropout,
            ridge=options.untimed_ridge,
            max_movies=options.max_closed_form_movies,
        )
        # Far below any score of a history: it orders the list of a user who has none by popularity.
        vectors, biases = linear.outputs, 1e-4 * np.log1p(counts)
        user_bias = torch.zeros(vectors.shape[1])
        tables = {LONG: linear.inputs}
        stages("retrieval head", 1, 1)
    from_content = fit_content_ridge(
        content,
        np.concatenate([vectors, biases[:, None]], axis=1),
        np.ones(trained.num_movies),
        options.content_ridge,
    )
    tensors = {
        "ranking.vectors": _with_unknown_row(vectors),
        "ranking.biases": _with_unknown_row(biases),
        "ranking.user_bias": user_bias,
        "ranking.from_content": torch.from_numpy(from_content.coefficients),
    } | {f"ranking.{name}": _with_unknown_row(table) for name, table in tables.items()}
    tensors["ranking.memories"] = _remember(trained, memories, tensors)
    return tensors


def _log_linear_config(options: Options, trained: _Trained) -> LogLinearConfig:
    cuts = options.ranking_cuts
    if cuts is None:
        cells_per_cut = options.ranking_epochs * trained.num_users * trained.num_movies
        cuts = int(np.clip(_MAX_RANKED_CELLS / max(cells_per_cut, 1), 1, 60))
    return LogLinearConfig(
        size=options.ranking_size,
        epochs=options.ranking_epochs,
        cuts_per_user=cuts,
        batch_users=options.ranking_batch,
        learning_rate=options.ranking_learning_rate,
        weight_decay=options.ranking_weight_decay,
        history_dropout=options.history_dropout,
        short_decay=options.short_decay,
        long_decay=options.long_decay,
        flat_gain=options.flat_gain,
    )


def _remember(trained: _Trained, memories: tuple[Memory, ...], tensors: dict[str, Tensor]) -> Tensor:
    """Returns every memory of every user after his last training event; row 0 is zeros. [U + 1, memories, K]."""
    histories = _whole_histories(trained)
    ages = np.arange(len(histories.movie_numbers)) - np.repeat(histories.offsets[:-1], np.diff(histories.offsets))
    remembered = [
        functional.embedding_bag(
            torch.from_numpy(histories.movie_numbers.astype(np.int64)) + 1,
            tensors[f"ranking.{memory.table}"],
            torch.from_numpy(histories.offsets),
            mode="sum",
            per_sample_weights=torch.from_numpy((memory.decay ** ages.astype(np.float64)).astype(np.float32)),
            include_last_offset=True,
        )
        for memory in memories
    ]
    stacked = torch.stack(remembered, dim=1)  # [U, memories, K]
    return torch.cat([torch.zeros(1, *stacked.shape[1:]), stacked])


def _whole_histories(trained: _Trained) -> Histories:
    """Returns all training events of every user, newest first, nothing trimmed."""
    rows = trained.interactions
    order = np.lexsort((-rows.movie_rows.astype(np.int64), -rows.event_times_ms, rows.user_rows))
    offsets = np.searchsorted(rows.user_rows[order], np.arange(trained.num_users + 1)).astype(np.int64)
    return Histories(
        offsets,
        rows.movie_rows[order],
        rows.ratings[order],
        rows.event_times_ms[order],
        np.ones(trained.num_users, np.bool_),
    )


def _fold_users_in(trained: _Trained, config: MarqueeConfig, tensors: dict[str, Tensor], options: Options) -> None:
    """Adds the users' prior and vectors: posteriors under a flat prior teach the prior, and it makes the final ones."""
    rows = trained.interactions
    flags, flag_known = profile_content(trained.profiles, trained.encoder)
    size = config.rating_size
    rated = np.bincount(rows.user_rows[~np.isnan(rows.ratings)], minlength=trained.num_users)
    tensors["rating.user_counts"] = _with_unknown_row(rated)
    tensors["rating.users"] = torch.zeros(trained.num_users + 1, size)
    tensors["rating.profile_shares"] = torch.zeros(flags.shape[1])
    tensors["rating.from_profile"] = torch.zeros(flags.shape[1], size)
    tensors["rating.implicit"] = torch.zeros(trained.num_movies + 1, size)
    prior = fit_user_prior(
        _infer_users(trained, config, tensors),
        flags,
        flag_known,
        rows.user_rows,
        rows.movie_rows,
        trained.num_movies,
        profile_ridge=options.profile_ridge,
        implicit_ridge=options.implicit_ridge,
        implicit_damping=options.implicit_damping,
        max_movies=options.max_closed_form_movies,
    )
    tensors["rating.profile_shares"] = torch.from_numpy(prior.shares)
    tensors["rating.from_profile"] = torch.from_numpy(prior.from_profile)
    tensors["rating.implicit"] = _with_unknown_row(prior.implicit)
    tensors["rating.users"] = _with_unknown_row(_infer_users(trained, config, tensors))


def _infer_users(trained: _Trained, config: MarqueeConfig, tensors: dict[str, Tensor]) -> NDArray[np.float32]:
    """Returns the rating vector of every user from all his training events, as serving computes a stranger's."""
    model = Marquee(config, trained.encoder, tensors)
    movies = model.embed_movies(trained.movies)
    histories = _whole_histories(trained)
    vectors = []
    for first in range(0, trained.num_users, _USERS_AT_ONCE):
        last = min(first + _USERS_AT_ONCE, trained.num_users)
        events = slice(histories.offsets[first], histories.offsets[last])
        users = UserColumns(
            [None] * (last - first),
            Profiles(
                trained.profiles.genders[first:last],
                trained.profiles.ages[first:last],
                trained.profiles.occupations[first:last],
            ),
            Histories(
                histories.offsets[first : last + 1] - histories.offsets[first],
                histories.movie_numbers[events],
                histories.ratings[events],
                histories.event_times_ms[events],
                histories.complete[first:last],
            ),
        )
        vectors.append(model.embed_users(users, movies).rating_vectors.numpy())
    return np.concatenate(vectors)


def _with_unknown_row(table: NDArray[np.generic]) -> Tensor:
    """Returns the table as float32 with a row of zeros put before it."""
    rows = np.asarray(table, np.float32)
    return torch.from_numpy(np.concatenate([np.zeros((1, *rows.shape[1:]), np.float32), rows]))
