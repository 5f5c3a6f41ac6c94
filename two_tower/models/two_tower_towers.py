"""The two towers of `two-tower` as one network, for training and serving alike. Knows rows and weights; no id, no file.

Letters: B users, c places at which each history is cut (1 when serving), L history length, N movies, D ranking width,
R rating width, H hidden width, A attention width.

Ranking: u = b + Σ_j e^(-a_j·s)·short_j + Σ_j (e^(-a_j·l) + g)·long_j + attention over the history + profile, and
score = u·candidate + bias: the log-linear causal softmax of docs/experiments.md with learned decays, and what is new
here added to it. Rating: r = μ + b_i + b_u + s_u·p_u·q_i, where p_u sums, over the history, what was watched and how
it was rated (SVD++ without its ids: Koren 2008, section 4; asymmetric, so strangers have it too).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from two_tower.models.two_tower_config import TwoTowerConfig

BIAS_DAMPING = 5.0
"""Ratings that a user's mean is pulled to 0 by: the recipe's damped biases."""

_PROFILE_WIDTH = 8
"""Width of a gender's and an occupation's row: two-tower-history's 2 and 4 with room."""


@dataclass(frozen=True, slots=True)
class MovieParts:
    """What the movie tower makes of N movies.

    Attributes:
        candidates: What ranking vectors meet. [N, D]
        candidate_biases: [N]
        short: What a history adds and soon forgets. [N, D]
        long: What a history adds and keeps. [N, D]
        tastes: What rating vectors meet. [N, R]
        rating_biases: [N]
        rated: What a rating of one deviation above the user's mean adds to a rating vector. [N, R]
        watched: What the fact of a rating adds to it. [N, R]
        means: Mean rating less the global mean, damped. [N]
    """

    candidates: Tensor
    candidate_biases: Tensor
    short: Tensor
    long: Tensor
    tastes: Tensor
    rating_biases: Tensor
    rated: Tensor
    watched: Tensor
    means: Tensor

    def history_inputs(self) -> Tensor:
        """Returns what a history needs of each movie, side by side. [N, 2D + 2R + 1]."""
        return torch.cat([self.short, self.long, self.rated, self.watched, self.means[:, None]], dim=-1)


@dataclass(frozen=True, slots=True)
class HistoryInputs:
    """The histories of B users, each seen from c places.

    Attributes:
        inputs: What `MovieParts.history_inputs` gave for each event. [B, L, 2D + 2R + 1]
        ratings: Stars, NaN where there is none. [B, L]
        ages: Newer events between an event and the place; below 0 where it is hidden from there. int64 [B, c, L]
        shown: Weight of each event, 0 where it is hidden; above 1 in training, where others are dropped. [B, c, L]
    """

    inputs: Tensor
    ratings: Tensor
    ages: Tensor
    shown: Tensor


@dataclass(frozen=True, slots=True)
class ProfileInputs:
    """Rows of B users in the tables of ids, genders and occupations, and ages within 0..1.

    Attributes:
        rows: int64 [B, 3]
        ages: Age and a flag "age unknown". [B, 2]
    """

    rows: Tensor
    ages: Tensor


@dataclass(frozen=True, slots=True)
class UserParts:
    """What the user tower makes of B users at c places.

    Attributes:
        ranking: [B, c, D]
        rating: Already times the user's spread. [B, c, R]
        spread: Factor on what a movie's bias means to the user. [B, c]
        rating_biases: [B, c]
    """

    ranking: Tensor
    rating: Tensor
    spread: Tensor
    rating_biases: Tensor


@dataclass(frozen=True, slots=True)
class TableSizes:
    """Rows of each table, row 0, the unknown, included where there is one."""

    users: int
    movies: int
    genders: int
    occupations: int
    content: int
    title_words: int


class Towers(nn.Module):
    """Both towers; see the head of this file for what they compute."""

    def __init__(self, config: TwoTowerConfig, sizes: TableSizes) -> None:
        super().__init__()
        self.config = config
        d, r, h = config.ranking_size, config.rating_size, config.hidden_size
        self._movie_widths = [d, 1, d, d, r, 1, r, r]
        self.user_table = _table(sizes.users, config.id_size + 1)
        self.ranking_table = _table(sizes.movies, 3 * d + 1)
        self.rating_table = _table(sizes.movies, 3 * r + 1)
        self.register_buffer("movie_means", torch.zeros(sizes.movies))
        self.movie_means: Tensor
        self.gender_table = _table(sizes.genders, _PROFILE_WIDTH)
        self.occupation_table = _table(sizes.occupations, _PROFILE_WIDTH)
        given = config.title_size > 0
        self.content_table = _table(sizes.content + (0 if given else sizes.title_words), h)
        if given:
            self.register_buffer("title_vectors", torch.zeros(sizes.title_words, config.title_size))
            self.title_vectors: Tensor
            self.title_layer = nn.Linear(config.title_size, h, bias=False)
        self.hidden_layer = nn.Linear(h, h)
        self.content_layer = nn.Linear(h, sum(self._movie_widths), bias=False)
        self.mean_gain = nn.Parameter(torch.empty(1))
        self.profile_layer = nn.Linear(2 * _PROFILE_WIDTH + 2 + 3, h)
        self.user_layer = nn.Linear(h, d + r + 1)
        self.id_layer = nn.Linear(config.id_size, d + r, bias=False)
        self.log_decays = nn.Parameter(torch.empty(3))
        self.flat_gain = nn.Parameter(torch.empty(1))
        self.rating_gates = nn.Parameter(torch.empty(3))
        self.scale_gains = nn.Parameter(torch.empty(2))
        if config.attention_size:
            a = config.attention_size
            self.query_layer = nn.Linear(d, a)
            self.key_layer = nn.Linear(d, a, bias=False)
            self.value_layer = nn.Linear(d, d, bias=False)
            self.age_slopes = nn.Parameter(torch.empty(config.attention_heads))

    def embed_movies(self, rows: Tensor, words: Tensor, offsets: Tensor, weights: Tensor) -> MovieParts:
        """Runs the movie tower.

        Args:
            rows: Rows of the movie tables, 0 where unknown. int64 [N]
            words: Rows of the content table, movie after movie. int64 [E]
            offsets: Where each movie's words begin. int64 [N]
            weights: Of each word. float32 [E]
        """
        means = self.movie_means[rows] if self.config.movie_means else torch.zeros_like(self.movie_means[rows])  # [N]
        hidden = nn.functional.embedding_bag(words, self._content(), offsets, mode="sum", per_sample_weights=weights)
        hidden = hidden + torch.relu(self.hidden_layer(hidden))  # [N, H]
        own = torch.cat([self.ranking_table[rows], self.rating_table[rows]], dim=-1)
        parts = torch.split(own + self.content_layer(hidden), self._movie_widths, dim=-1)
        candidates, candidate_biases, short, long, tastes, rating_biases, rated, watched = parts
        biases = rating_biases[:, 0] + self.mean_gain * means  # [N]
        return MovieParts(candidates, candidate_biases[:, 0], short, long, tastes, biases, rated, watched, means)

    def embed_users(self, history: HistoryInputs, profile: ProfileInputs) -> UserParts:
        """Runs the user tower."""
        config = self.config
        d, r = config.ranking_size, config.rating_size
        short, long, rated, watched, means = torch.split(history.inputs, [d, d, r, r, 1], dim=-1)  # [B, L, .] each
        shown = history.shown  # [B, c, L]
        count = shown.sum(dim=-1)  # [B, c]
        has_rating = ~history.ratings.isnan()  # [B, L]
        # With ratings left out of the history nothing of them is known, not even the user's own mean.
        counted = shown * (has_rating if config.history_ratings else torch.zeros_like(has_rating))[:, None]  # [B, c, L]
        residuals = torch.where(has_rating, history.ratings - config.mean_rating - means[..., 0], 0.0)  # [B, L]
        num_rated = counted.sum(dim=-1)  # [B, c]
        bias = (counted @ residuals[..., None])[..., 0] / (num_rated + BIAS_DAMPING)  # [B, c]
        apart = residuals[:, None] - bias[..., None]  # [B, c, L]
        variance = config.rating_deviation**2
        squares = (counted * apart.square()).sum(dim=-1) + BIAS_DAMPING * variance  # [B, c]
        log_spread = 0.5 * torch.log(squares / (num_rated + BIAS_DAMPING) / variance)  # [B, c]
        if not config.user_scale:
            bias, log_spread = torch.zeros_like(bias), torch.zeros_like(log_spread)
            apart = residuals[:, None].expand_as(shown)
        liking = apart / config.rating_deviation * torch.exp(-log_spread)[..., None]  # [B, c, L], 0 mean, about 1 wide
        liking = torch.where(counted > 0, liking, 0.0)

        faded = self._fade(history.ages.clamp(min=0), shown, count)  # three of [B, c, L]
        gates = [1 + gate * liking for gate in self.rating_gates[:2]]
        ranking = torch.bmm(faded[0] * gates[0], short) + torch.bmm(faded[1] * gates[1], long)  # [B, c, D]
        if config.attention_size:
            ranking = ranking + self._attend(ranking, long, history, liking)
        norm = torch.rsqrt(count + 1)[..., None]  # [B, c, 1]
        rating = (torch.bmm(faded[2] * liking, rated) + torch.bmm(faded[2], watched)) * norm  # [B, c, R]

        own = self.user_table[profile.rows[:, 0]]  # [B, id + 1]
        from_id = self.id_layer(own[:, :-1])[:, None]  # [B, 1, D + R]
        stats = torch.stack([bias, log_spread, torch.log1p(count) / 5], dim=-1)  # [B, c, 3]
        facts = [self.gender_table[profile.rows[:, 1]], self.occupation_table[profile.rows[:, 2]], profile.ages]
        known = torch.cat(facts, dim=-1)[:, None].expand(-1, stats.shape[1], -1)  # [B, c, .]
        made = self.user_layer(torch.relu(self.profile_layer(torch.cat([known, stats], dim=-1))))  # [B, c, D + R + 1]
        spread = torch.exp(self.scale_gains[1] * log_spread)  # [B, c]
        return UserParts(
            ranking=ranking + from_id[..., :d] + made[..., :d],
            rating=(rating + from_id[..., d:] + made[..., d : d + r]) * spread[..., None],
            spread=spread,
            rating_biases=self.scale_gains[0] * bias + own[:, None, -1] + made[..., -1],
        )

    def _content(self) -> Tensor:
        if not self.config.title_size:
            return self.content_table
        return torch.cat([self.content_table, self.title_layer(self.title_vectors)])

    def _fade(self, ages: Tensor, shown: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the weights of the short, the long and the rating memory. [B, c, L] each."""
        if not (self.config.ordered and self.config.recency):
            flat = shown * torch.rsqrt(count + 1)[..., None]
            return flat, flat, shown
        rates = torch.exp(self.log_decays)
        old = ages.to(shown.dtype)
        short = torch.exp(-rates[0] * old) * shown
        long = (torch.exp(-rates[1] * old) + self.flat_gain) * shown
        return short, long, torch.exp(-rates[2] * old) * shown

    def _attend(self, asking: Tensor, values: Tensor, history: HistoryInputs, liking: Tensor) -> Tensor:
        """Lets what is in mind ask the history: movies like it weigh more. [B, c, D]."""
        num_heads = self.config.attention_heads
        width = self.config.attention_size // num_heads
        queries = self.query_layer(asking).unflatten(-1, (num_heads, width)).transpose(1, 2)  # [B, heads, c, w]
        keys = self.key_layer(values).unflatten(-1, (num_heads, width)).transpose(1, 2)  # [B, heads, L, w]
        logits = queries @ keys.transpose(-1, -2) / math.sqrt(width)  # [B, heads, c, L]
        if self.config.ordered and self.config.recency:
            # A slope per head: attention with linear biases (Press et al. 2022, section 3).
            slopes = torch.exp(self.age_slopes)[:, None, None]
            logits = logits - slopes * history.ages.clamp(min=0).to(logits.dtype)[:, None]
        # One more place, of logit 0 and value 0, takes the weight where nothing is alike or the history is empty.
        logits = logits.masked_fill(history.shown[:, None] <= 0, -1e9)
        logits = torch.cat([logits, torch.zeros_like(logits[..., :1])], dim=-1)
        weights = torch.softmax(logits, dim=-1)[..., :-1]  # [B, heads, c, L]
        weights = weights * (1 + self.rating_gates[2] * liking)[:, None]
        ours = self.value_layer(values).unflatten(-1, (num_heads, -1)).transpose(1, 2)  # [B, heads, L, D / heads]
        attended: Tensor = (weights @ ours).transpose(1, 2).flatten(2)  # [B, c, D]
        return attended


def _table(num_rows: int, width: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(num_rows, width))
