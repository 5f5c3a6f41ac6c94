"""The loss of one batch of `two-tower`. Knows cuts, towers and chance; knows no epoch, optimiser or process."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.fits.two_tower_features import MOVIE_DAMPING, TrainingFeatures, as_tensor
from trainer.fits.two_tower_losses import contrast, log_inclusion, softmax_loss
from trainer.fits.two_tower_options import Options
from trainer.fits.two_tower_sequences import Cuts
from two_tower.models.two_tower_towers import HistoryInputs, MovieParts, ProfileInputs, Towers, UserParts

_CONTRASTED = 256
"""Views told apart at once: the batch of the papers' experiments, about."""


@dataclass(frozen=True, slots=True)
class _Met:
    """The movies that a batch has to do with.

    Attributes:
        rows: Rows of the movie tables, sorted. int64 [N]
        candidates: Places in `rows` of those that the softmax is over. int64 [n]
        columns: Place among the candidates of each of `rows`, -1 for others. int64 [N]
        log_q: What corrects the scores of candidates that were drawn; 0 where all movies are candidates. [n]
        parts: What the movie tower makes of them.
    """

    rows: NDArray[np.int64]
    candidates: NDArray[np.int64]
    columns: NDArray[np.int64]
    log_q: Tensor
    parts: MovieParts

    def places(self, table_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns places in `rows`, of which all are there."""
        return np.searchsorted(self.rows, table_rows)


class Step(nn.Module):
    """Makes the loss of a batch. Letters as in `two_tower_towers`; Q = B x c queries, N movies met in the batch.

    Its output is cross-entropy + weight · (squared error / deviation² + penalty) + contrastive loss.
    """

    def __init__(self, towers: Towers, features: TrainingFeatures, options: Options, *, full_softmax: bool) -> None:
        super().__init__()
        self.towers = towers
        self.losses = {"cross-entropy": 0.0, "mse": 0.0}
        """Of the last batch, for a person."""
        self._features = features
        self._options = options
        self._full = full_softmax
        self._extra = 0 if options.negatives == "in-batch" else options.sampled_movies
        self._cumulative = np.cumsum(features.frequencies, dtype=np.float64)
        self._all_rows = np.arange(len(features.frequencies))
        self._device = towers.ranking_table.device

    def forward(self, cuts: Cuts, rng: np.random.Generator) -> Tensor:
        """Returns the loss, means over the batch."""
        rows = self._features.table_rows[cuts.movies]  # [B, L]
        ahead = np.arange(self._options.num_next)
        next_events = cuts.places[..., None] + ahead  # [B, c, h]
        real = cuts.used[..., None] & (next_events < cuts.lengths[:, None, None])  # [B, c, h]
        wanted = rows[np.arange(len(rows))[:, None, None], np.where(real, next_events, 0)][real]  # [t]
        met = self._meet(rows, wanted, rng)
        inputs = met.parts.history_inputs()[self._tensor(met.places(rows))]  # [B, L, .]
        profile = self._profile(cuts, rng)
        users = self.towers.embed_users(self._history(cuts, inputs, rng), profile)

        query = np.arange(cuts.places.size).reshape(cuts.places.shape)  # [B, c]
        index = self._tensor(met.candidates)
        num_used = max(1, int(cuts.used.sum()))
        total = softmax_loss(
            users.ranking.flatten(0, 1),
            met.parts.candidates[index],
            met.parts.candidate_biases[index] - met.log_q,
            self._seen(cuts, met.columns[met.places(rows)], query),
            (
                self._tensor(np.broadcast_to(query[..., None], real.shape)[real]),
                self._tensor(met.columns[met.places(wanted)]),
            ),
            self._tensor((np.broadcast_to(np.exp(-ahead), real.shape)[real] / num_used).astype(np.float32)),
        )
        self.losses["cross-entropy"] = float(total.detach())
        if self.towers.config.scale is not None and self._options.rating_weight:
            total = total + self._options.rating_weight * self._rating_loss(cuts, rows, met, users)
        if self._options.contrastive_weight:
            again = self.towers.embed_users(self._history(cuts, inputs, rng), profile)
            total = total + self._options.contrastive_weight * self._contrast(cuts, met, users, again, rng)
        return total

    def _meet(self, rows: NDArray[np.int64], wanted: NDArray[np.int64], rng: np.random.Generator) -> _Met:
        if self._full:
            met, candidates = self._all_rows, self._all_rows[1:]
        else:
            drawn = np.searchsorted(self._cumulative, rng.random(self._extra) * self._cumulative[-1])
            chosen = np.unique(np.concatenate([wanted, np.clip(drawn, 1, len(self._all_rows) - 1)]))
            met = np.unique(np.concatenate([rows.ravel(), chosen]))
            candidates = np.searchsorted(met, chosen)
        columns = np.full(len(met), -1)
        columns[candidates] = np.arange(len(candidates))
        log_q = torch.zeros((), device=self._device)
        if not self._full:
            # What a batch guesses is drawn by frequency as well.
            log_q = log_inclusion(self._tensor(self._features.frequencies[met[candidates]]), self._extra + len(wanted))
        hidden = rng.random(len(met)) < self._options.movie_unknown_rate
        words = self._features.content if self._full else self._features.content.take(met)
        parts = self.towers.embed_movies(
            self._tensor(np.where(hidden, 0, met)),
            self._tensor(words.rows),
            self._tensor(words.offsets[:-1]),
            self._tensor(words.weights),
        )
        return _Met(met, candidates, columns, log_q, parts)

    def _profile(self, cuts: Cuts, rng: np.random.Generator) -> ProfileInputs:
        rows = self._features.profile_rows[cuts.users]  # [B, 3]
        hidden = rng.random(rows.shape) < self._options.user_unknown_rate
        return ProfileInputs(self._tensor(np.where(hidden, 0, rows)), self._tensor(self._features.ages[cuts.users]))

    def _history(self, cuts: Cuts, inputs: Tensor, rng: np.random.Generator) -> HistoryInputs:
        options = self._options
        ages = cuts.given[..., None] - 1 - np.arange(cuts.movies.shape[1])  # [B, c, L]
        shown = (ages >= 0) & (ages < options.history_length)
        shown &= rng.random(ages.shape, dtype=np.float32) >= options.history_dropout
        shown &= rng.random((*cuts.places.shape, 1)) >= options.blank_rate
        scale = np.float32(1 / (1 - options.history_dropout))
        return HistoryInputs(inputs, self._tensor(cuts.ratings), self._tensor(ages), self._tensor(shown * scale))

    def _seen(self, cuts: Cuts, columns: NDArray[np.int64], query: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Returns the places of [Q, n] at which a query has seen the candidate, whether given to it or hidden."""
        before = np.arange(cuts.movies.shape[1]) < cuts.places[..., None]  # [B, c, L]
        before &= columns[:, None] >= 0
        users, _, events = np.nonzero(before)
        return self._tensor(np.broadcast_to(query[..., None], before.shape)[before]), self._tensor(
            columns[users, events]
        )

    def _rating_loss(self, cuts: Cuts, rows: NDArray[np.int64], met: _Met, users: UserParts) -> Tensor:
        """Returns the squared error over deviation², and the L2 penalty, means over the ratings asked for."""
        batch = np.arange(len(rows))[:, None, None]
        stars = cuts.ratings[batch, cuts.rated]  # [B, c, T]
        asked = cuts.used[..., None] & ~np.isnan(stars)
        table_rows = rows[batch, cuts.rated]
        counts = self._features.rating_counts[table_rows]
        config, towers = self.towers.config, self.towers
        residuals = np.where(asked, stars - np.float32(config.mean_rating), 0)
        place = self._tensor(met.places(table_rows))
        biases = met.parts.rating_biases[place]  # [B, c, T]
        if config.movie_means:
            # The movie's mean without the very rating that is asked for.
            means = self._features.movie_means[table_rows]
            others = (means * (counts + MOVIE_DAMPING) - residuals) / (counts - 1 + MOVIE_DAMPING)
            known = means != 0
            biases = biases + towers.mean_gain * self._tensor(np.where(known, others - means, 0).astype(np.float32))
        tastes = met.parts.tastes[place]  # [B, c, T, R]
        dots = (tastes @ users.rating[..., None])[..., 0]  # [B, c, T]
        predicted = dots + users.spread[..., None] * biases + users.rating_biases[..., None]
        weights = self._tensor(asked.astype(np.float32) / max(1, int(asked.sum())))
        squared_error = (weights * (predicted - self._tensor(residuals)).square()).sum()
        self.losses["mse"] = float(squared_error.detach())
        lengths = tastes.square().sum(dim=-1) + users.rating.square().sum(dim=-1)[..., None] + biases.square()
        penalty = (weights * lengths).sum()
        return squared_error / config.rating_deviation**2 + self._options.rating_l2 * penalty

    def _contrast(self, cuts: Cuts, met: _Met, users: UserParts, again: UserParts, rng: np.random.Generator) -> Tensor:
        """Returns how badly a user is told by another dropout of his history, and a movie by its content alone."""
        one_each = self._tensor(np.flatnonzero(cuts.used[:, 0])[:_CONTRASTED])
        loss = contrast(users.ranking[one_each, 0], again.ranking[one_each, 0])
        some = rng.permutation(met.candidates)[:_CONTRASTED]
        words = self._features.content.take(met.rows[some])
        content = (self._tensor(words.rows), self._tensor(words.offsets[:-1]), self._tensor(words.weights))
        bare = self.towers.embed_movies(torch.zeros(len(some), dtype=torch.int64, device=self._device), *content)
        return loss + contrast(met.parts.candidates[self._tensor(some)], bare.candidates)

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return as_tensor(array, self._device)
