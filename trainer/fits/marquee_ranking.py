"""Fits the retrieval head of `marquee`: by the order in times, or by what is watched together at any time."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.errors import DataError
from trainer.fits.closed_retrieval import ClosedFormConfig, fit_closed_form, most_watched
from trainer.fits.content_ridge import fit_content_ridge
from trainer.fits.edlae import fit_edlae
from trainer.fits.log_linear import LogLinear, LogLinearConfig, fit_log_linear
from trainer.fits.marquee_options import Options
from trainer.fits.ranking_prior import fit_ranking_prior
from trainer.fits.trained_rows import TrainedRows, with_unknown_row
from two_tower.models.marquee_config import LONG, SHORT, Memory
from two_tower.models.marquee_content import num_profile_rows, profile_rows

RANKING_STAGE = "retrieval head"

_RANKED_CELLS = 1e9
"""Cuts x movies over the whole training of the retrieval head, at 100,000 rows: 30 cuts a user and epoch on ML-100K,
about half a minute of one core. It grows with the root of the rows, so that a user is cut less often in larger data."""

RATINGS_OF_A_DENSE_MOVIE = 20
"""Below so many events a movie, as in latest-small with 10, the log-linear part learns too little and the closed form
carries the head; ML-100K has 60. Constants on both sides: docs/experiments.md, 2026-11-21."""

SPARSE_GAIN, DENSE_GAIN = 2.0, 0.5
"""Weights of the closed form beside the log-linear part; half or twice as much is up to .002 worse on validation."""

_POPULARITY_OF_NOBODY = 1e-4
"""Of a head whose scores are no logarithms: popularity and profile order the list of a user without history, far below
any score of one."""

_CONTENT_RIDGE = 10.0
"""λ of the map from content to ranking vectors, in movies. Others were not tried."""

_MAX_CUTS = 30
"""More cost time and bring nothing: docs/experiments.md, 2026-11-21."""


def heeds_times(options: Options, has_times: bool) -> bool:
    """Tells whether the head is fitted by order.

    Raises:
        DataError: It is asked to, and the data has no times.
    """
    if options.ranking_timed and not has_times:
        raise DataError("ranking_timed=true wants the times of ratings, and the data has none; leave it out")
    return has_times if options.ranking_timed is None else options.ranking_timed


def memories_of(options: Options, timed: bool) -> tuple[Memory, ...]:
    """Returns what the head remembers of a history."""
    if not timed:
        return (Memory(LONG, 1.0, 1.0),)
    return (
        Memory(SHORT, float(np.exp(-1 / options.short_decay)), 1.0),
        Memory(LONG, float(np.exp(-1 / options.long_decay)), 1.0),
        Memory(LONG, 1.0, options.flat_gain),
    )


def ranking_size_of(options: Options, num_rows: int, num_movies: int) -> int:
    """Returns the coordinates, at most, that a head with times has for data of this size."""
    log_linear = options.ranking_size if options.ranking_epochs else 0
    return log_linear + min(num_movies, _closed_form_config(options, _is_sparse(num_rows, num_movies)).size)


def _is_sparse(num_rows: int, num_movies: int) -> bool:
    return num_rows < RATINGS_OF_A_DENSE_MOVIE * num_movies


def fit_ranking_head(
    trained: TrainedRows,
    content: NDArray[np.float32],
    memories: tuple[Memory, ...],
    options: Options,
    timed: bool,
    rng: np.random.Generator,
    stages: Callable[[str, int, int], None],
) -> dict[str, Tensor]:
    """Returns all tensors of the head.

    Args:
        trained: Rows.
        content: Content features of its movies. [I, F]
        memories: Of `memories_of`.
        options: Constants.
        timed: Whether the order of the rows counts.
        rng: For the head with times.
        stages: Told after each epoch.
    """
    counts = np.bincount(trained.interactions.movie_rows, minlength=trained.num_movies)
    head = (_fit_timed if timed else _fit_untimed)(trained, counts, options, rng, stages)
    from_content = fit_content_ridge(
        content,
        np.concatenate([head.vectors, head.biases[:, None]], axis=1),
        head.ranked.astype(np.float64),
        _given(options.content_ridge, _CONTENT_RIDGE),
    )
    vectors, biases = _make_others(head, content, counts, from_content.coefficients)
    tensors = {
        "ranking.vectors": with_unknown_row(vectors),
        "ranking.biases": with_unknown_row(biases),
        "ranking.user_bias": torch.from_numpy(head.user_bias),
        "ranking.from_content": torch.from_numpy(from_content.coefficients),
    } | {f"ranking.{name}": with_unknown_row(table) for name, table in head.tables.items()}
    unit = 1.0 if timed and options.ranking_epochs else _POPULARITY_OF_NOBODY
    prior = fit_ranking_prior(
        trained.interactions.user_rows,
        trained.interactions.movie_rows,
        profile_rows(trained.profiles, trained.encoder),
        num_profile_rows(trained.encoder),
        vectors,
        (biases + vectors @ head.user_bias) / unit,
    )
    tensors["ranking.of_everybody"] = torch.from_numpy(np.float32(unit) * prior.of_everybody)
    tensors["ranking.from_profile"] = torch.from_numpy(np.float32(unit) * prior.from_profile)
    tensors["ranking.user_events"] = with_unknown_row(
        np.bincount(trained.interactions.user_rows, minlength=trained.num_users)
    )
    tensors["ranking.memories"] = _remember(trained, memories, tensors)
    return tensors


@dataclass(frozen=True, slots=True)
class _Head:
    """What ranks: score_i = u·vectors[i] + biases[i], u = user_bias + what the memories hold of the tables.

    Attributes:
        vectors: float32 [I, K]
        biases: float [I]
        user_bias: float32 [K]
        tables: float32 [I, K] each
        ranked: False for a movie of which the head learned nothing. [I]
    """

    vectors: NDArray[np.float32]
    biases: NDArray[np.floating]
    user_bias: NDArray[np.float32]
    tables: dict[str, NDArray[np.float32]]
    ranked: NDArray[np.bool_]


def _fit_untimed(
    trained: TrainedRows,
    counts: NDArray[np.int64],
    options: Options,
    rng: np.random.Generator,
    stages: Callable[[str, int, int], None],
) -> _Head:
    rows = trained.interactions
    stages(RANKING_STAGE, 0, 1)
    linear = fit_edlae(
        rows.user_rows,
        rows.movie_rows,
        trained.num_users,
        trained.num_movies,
        size=options.untimed_size,
        dropout=options.untimed_dropout,
        ridge=options.untimed_ridge,
        max_movies=options.untimed_movies,
    )
    stages(RANKING_STAGE, 1, 1)
    return _Head(
        linear.outputs,
        _POPULARITY_OF_NOBODY * np.log1p(counts),
        np.zeros(options.untimed_size, np.float32),
        {LONG: linear.inputs},
        np.ones(len(counts), np.bool_),
    )


def _fit_timed(
    trained: TrainedRows,
    counts: NDArray[np.int64],
    options: Options,
    rng: np.random.Generator,
    stages: Callable[[str, int, int], None],
) -> _Head:
    """Puts the log-linear part and the closed form side by side: their coordinates, so their scores are added."""
    rows, num_movies = trained.interactions, trained.num_movies
    sequence = rows.user_rows, rows.movie_rows, rows.event_times_ms
    sparse = _is_sparse(len(rows), num_movies)
    chosen = most_watched(counts, options.ranking_movies)
    ranked = np.zeros(num_movies, np.bool_)
    short: list[NDArray[np.float32]] = []
    long: list[NDArray[np.float32]] = []
    vectors: list[NDArray[np.float32]] = []
    biases: NDArray[np.floating] = _POPULARITY_OF_NOBODY * np.log1p(counts)
    user_bias = np.zeros(0, np.float32)
    if options.ranking_epochs:
        head = _fit_log_linear(trained, chosen, options, sparse, rng, stages)
        ranked[chosen] = True
        biases = _spread_out(head.biases, chosen, num_movies)
        user_bias = head.user_bias.numpy()
        for parts, part in ((short, head.short), (long, head.long), (vectors, head.vectors)):
            parts.append(_spread_out(part, chosen, num_movies))
    else:
        stages(RANKING_STAGE, 0, 1)
        ranked[:] = True
    gain = _given(options.closed_gain, SPARSE_GAIN if sparse else DENSE_GAIN)
    if gain > 0 or not options.ranking_epochs:
        closed = fit_closed_form(*sequence, num_movies, _closed_form_config(options, sparse), rng)
        short.append(closed.short)
        long.append(closed.long)
        vectors.append(np.float32(gain if options.ranking_epochs else 1) * closed.vectors)
    tables = {SHORT: np.concatenate(short, axis=1), LONG: np.concatenate(long, axis=1)}
    width = tables[SHORT].shape[1]
    if not options.ranking_epochs:
        stages(RANKING_STAGE, 1, 1)
    return _Head(
        np.concatenate(vectors, axis=1), biases, np.pad(user_bias, (0, width - len(user_bias))), tables, ranked
    )


def _fit_log_linear(
    trained: TrainedRows,
    chosen: NDArray[np.int64],
    options: Options,
    sparse: bool,
    rng: np.random.Generator,
    stages: Callable[[str, int, int], None],
) -> LogLinear:
    rows = trained.interactions
    places = np.full(trained.num_movies, -1, np.int32)
    places[chosen] = np.arange(len(chosen), dtype=np.int32)
    kept = places[rows.movie_rows] >= 0
    return fit_log_linear(
        rows.user_rows[kept],
        places[rows.movie_rows[kept]],
        rows.event_times_ms[kept],
        len(chosen),
        _log_linear_config(options, trained, len(chosen), sparse),
        rng,
        lambda done, total: stages(RANKING_STAGE, done, total),
    )


def _make_others(
    head: _Head, content: NDArray[np.float32], counts: NDArray[np.int64], from_content: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.floating]]:
    """Returns vectors and biases in which movies that the head did not rank are made as unknown movies are.

    But for their popularity, which is known: a bias starts at half of log(n + 1), as in the log-linear part.
    """
    if head.ranked.all():
        return head.vectors, head.biases
    others = ~head.ranked
    made = np.pad(content[others], ((0, 0), (0, 1)), constant_values=1) @ from_content  # [o, K + 1]
    vectors, biases = head.vectors.copy(), head.biases.copy()
    vectors[others] = made[:, :-1]
    popularity = 0.5 * np.log1p(counts)
    biases[others] = made[:, -1] + popularity[others] - popularity[head.ranked].mean()
    return vectors, biases


def _spread_out(part: Tensor, chosen: NDArray[np.int64], num_movies: int) -> NDArray[np.float32]:
    """Returns the rows of the chosen movies at their places among all, the others zeros."""
    whole = np.zeros((num_movies, *part.shape[1:]), np.float32)
    whole[chosen] = part.numpy()
    return whole


def _given(option: float | None, default: float) -> float:
    return default if option is None else option


def _closed_form_config(options: Options, sparse: bool) -> ClosedFormConfig:
    return ClosedFormConfig(
        size=options.closed_size or (384 if sparse else 128),
        max_movies=options.closed_movies,
        ease_ridge=_given(options.ease_ridge, 100.0 if sparse else 300.0),
        sequential_ridge=_given(options.sequential_ridge, 100.0 if sparse else 500.0),
        popularity_power=_given(options.popularity_power, 0.2 if sparse else 0.1),
        short_decay=options.short_decay,
        long_decay=options.long_decay,
        flat_gain=options.flat_gain,
    )


def _log_linear_config(options: Options, trained: TrainedRows, num_movies: int, sparse: bool) -> LogLinearConfig:
    cells = _RANKED_CELLS * max(1.0, len(trained.interactions) / 1e5) ** 0.5
    affordable = cells / (options.ranking_epochs * trained.num_users * num_movies)
    return LogLinearConfig(
        size=options.ranking_size,
        epochs=options.ranking_epochs,
        cuts_per_user=options.ranking_cuts or int(np.clip(affordable, 1, _MAX_CUTS)),
        user_share=1.0 if options.ranking_cuts else min(1.0, affordable),
        batch_users=options.ranking_batch or (8 if sparse else 32),
        learning_rate=options.ranking_learning_rate,
        weight_decay=options.ranking_weight_decay,
        history_dropout=options.history_dropout,
        short_decay=options.short_decay,
        long_decay=options.long_decay,
        flat_gain=options.flat_gain,
    )


def _remember(trained: TrainedRows, memories: tuple[Memory, ...], tensors: dict[str, Tensor]) -> Tensor:
    """Returns every memory of every user after his last training event; row 0 is zeros. [U + 1, memories, K]."""
    histories = trained.whole_histories()
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
