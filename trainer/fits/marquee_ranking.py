"""Fits the retrieval head of `marquee`: by order where the data has times, else by what is watched together."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.fits.content_ridge import fit_content_ridge
from trainer.fits.edlae import fit_edlae
from trainer.fits.log_linear import LogLinearConfig, fit_log_linear
from trainer.fits.marquee_options import Options
from trainer.fits.trained_rows import TrainedRows, with_unknown_row
from two_tower.models.marquee_config import LONG, SHORT, Memory

RANKING_STAGE = "retrieval head"

_RANKED_CELLS = 1e9
"""Cuts x movies over the whole training of the retrieval head, at 100,000 rows: 30 cuts a user and epoch on ML-100K,
about half a minute of one core. It grows with the root of the rows, so that a user is cut less often in larger data."""

_MAX_CUTS = 30
"""More cost time and bring nothing: docs/experiments.md, 2026-11-21."""


def memories_of(options: Options, timed: bool) -> tuple[Memory, ...]:
    """Returns what the head remembers of a history."""
    if not timed:
        return (Memory(LONG, 1.0, 1.0),)
    return (
        Memory(SHORT, float(np.exp(-1 / options.short_decay)), 1.0),
        Memory(LONG, float(np.exp(-1 / options.long_decay)), 1.0),
        Memory(LONG, 1.0, options.flat_gain),
    )


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
        timed: Whether the rows have an order.
        rng: For the head with times.
        stages: Told after each epoch.
    """
    rows = trained.interactions
    if timed:
        head = fit_log_linear(
            rows.user_rows,
            rows.movie_rows,
            rows.event_times_ms,
            trained.num_movies,
            _log_linear_config(options, trained),
            rng,
            lambda done, total: stages(RANKING_STAGE, done, total),
        )
        vectors, biases, user_bias = head.vectors.numpy(), head.biases.numpy(), head.user_bias
        tables = {SHORT: head.short.numpy(), LONG: head.long.numpy()}
    else:
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
        # Far below any score of a history: it orders the list of a user who has none by popularity.
        biases = 1e-4 * np.log1p(np.bincount(rows.movie_rows, minlength=trained.num_movies))
        vectors, user_bias = linear.outputs, torch.zeros(options.untimed_size)
        tables = {LONG: linear.inputs}
        stages(RANKING_STAGE, 1, 1)
    from_content = fit_content_ridge(
        content,
        np.concatenate([vectors, biases[:, None]], axis=1),
        np.ones(trained.num_movies),
        options.content_ridge,
    )
    tensors = {
        "ranking.vectors": with_unknown_row(vectors),
        "ranking.biases": with_unknown_row(biases),
        "ranking.user_bias": user_bias,
        "ranking.from_content": torch.from_numpy(from_content.coefficients),
    } | {f"ranking.{name}": with_unknown_row(table) for name, table in tables.items()}
    tensors["ranking.memories"] = _remember(trained, memories, tensors)
    return tensors


def _log_linear_config(options: Options, trained: TrainedRows) -> LogLinearConfig:
    cells = _RANKED_CELLS * max(1.0, len(trained.interactions) / 1e5) ** 0.5
    affordable = cells / (options.ranking_epochs * trained.num_users * trained.num_movies)
    return LogLinearConfig(
        size=options.ranking_size,
        epochs=options.ranking_epochs,
        cuts_per_user=options.ranking_cuts or int(np.clip(affordable, 1, _MAX_CUTS)),
        user_share=1.0 if options.ranking_cuts else min(1.0, affordable),
        batch_users=options.ranking_batch,
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
