"""The `marquee` model as it serves: a closed-form Bayesian rating head and a log-linear retrieval head.

Rating: what is left of the movie towers and the factorisation machine is one compressed vector z_i a movie, whitened so
that strangers have the prior N(m, I). A stranger's vector is the mean of his posterior given his ratings (a ridge
regression on his movies' vectors). A trained user keeps the vector that was learned with the movies', moved by whatever
he rated since; the posterior's variance says how sure a rating is.
Retrieval: a user is a decaying sum of the rows of the movies he watched.

Movies that the checkpoint does not know are made from content by ridge regressions; in a history, their ratings count
with extra noise, and for retrieval they count as if not watched, since they have no row there.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from two_tower.features import FeatureEncoder
from two_tower.models.marquee_config import MarqueeConfig
from two_tower.models.marquee_content import (
    movie_content,
    num_movie_features,
    num_profile_rows,
    profile_rows,
)
from two_tower.models.marquee_contributions import history_contributions, memory_weights
from two_tower.models.marquee_histories import CountedEvents
from two_tower.models.marquee_uncertainty import pair_variances
from two_tower.movie_columns import MovieColumns
from two_tower.restoring import decode_config, require_tensors, require_vocabularies
from two_tower.ridge import PosteriorFactor, posterior_means
from two_tower.serving import FactoredModel, MovieEmbeddings, RatingScale, UserEmbeddings
from two_tower.user_columns import UserColumns


def tensor_shapes(config: MarqueeConfig, encoder: FeatureEncoder) -> dict[str, tuple[int, ...]]:
    """Returns the name and shape of every tensor of a model.

    U users and I movies, each with row 0 for the unknown, F movie features, R and K coordinates.
    """
    users, movies = len(encoder.users), len(encoder.movies)
    features = num_movie_features(encoder)
    rating, ranking = config.rating_size, config.ranking_size
    shapes: dict[str, tuple[int, ...]] = {
        "ranking.vectors": (movies, ranking),
        "ranking.biases": (movies,),
        "ranking.user_bias": (ranking,),
        "ranking.memories": (users, len(config.memories), ranking),
        "ranking.from_content": (features + 1, ranking + 1),
        "ranking.of_everybody": (ranking,),
        "ranking.from_profile": (num_profile_rows(encoder), ranking),
        "ranking.user_events": (users,),
    }
    shapes |= {f"ranking.{table}": (movies, ranking) for table in config.tables}
    if config.scale is not None:
        shapes |= {
            "rating.vectors": (movies, rating),
            "rating.biases": (movies,),
            "rating.variances": (movies,),
            "rating.users": (users, rating),
            "rating.user_counts": (users,),
            "rating.from_content": (features + 1, rating + 1),
            "rating.from_profile": (num_profile_rows(encoder), rating),
            "rating.implicit": (movies, rating),
        }
    return shapes


class Marquee(FactoredModel):
    """Both heads over one set of movies and users.

    B users, E events, M catalogue movies, R rating and K ranking coordinates.
    """

    name: ClassVar[str] = "marquee"

    def __init__(self, config: MarqueeConfig, encoder: FeatureEncoder, tensors: Mapping[str, Tensor]) -> None:
        """Takes the tensors that `tensor_shapes` names, all on one device."""
        self._config = config
        self._encoder = encoder
        self._tensors = dict(tensors)

    @property
    def device(self) -> torch.device:
        """The device that holds the tables."""
        return self._tensors["ranking.vectors"].device

    @property
    def rating_scale(self) -> RatingScale | None:
        """The scale of the data."""
        return self._config.scale

    @torch.no_grad()
    def embed_movies(self, movies: MovieColumns) -> MovieEmbeddings:
        """Looks trained movies up; makes the others from genres and year."""
        rows = self._encoder.movies.rows_of(movies.movie_ids)
        known = rows > 0
        index = self._to_device(rows)
        features = movie_content(movies, self._encoder)
        content = self._to_device(np.pad(features, ((0, 0), (0, 1)), constant_values=1))  # [M, F + 1]
        is_known = self._to_device(known)

        def head(name: str) -> tuple[Tensor, Tensor]:
            made = content @ self._tensors[f"{name}.from_content"]
            vectors = torch.where(is_known[:, None], self._tensors[f"{name}.vectors"][index], made[:, :-1])
            return vectors.contiguous(), torch.where(is_known, self._tensors[f"{name}.biases"][index], made[:, -1])

        ranking_vectors, ranking_biases = head("ranking")
        if self._config.scale is None:
            rating_vectors = torch.zeros(len(movies), 0, device=self.device)
            rating_biases = torch.zeros(len(movies), device=self.device)
        else:
            rating_vectors, rating_biases = head("rating")
        return MovieEmbeddings(
            rating_vectors, rating_biases, ranking_vectors, ranking_biases, known, np.where(known, rows, -1)
        )

    @torch.no_grad()
    def embed_users(self, users: UserColumns, movies: MovieEmbeddings) -> UserEmbeddings:
        """Infers users from their histories, their profiles and what the checkpoint holds of them."""
        # Of a complete history the retrieval head recomputes what the checkpoint remembers.
        ranked_rows = np.where(users.histories.complete, 0, self._encoder.users.rows_of(users.user_ids))
        ranked = CountedEvents.of(users.histories, ranked_rows > 0, self._config.data_until_ms)
        ranked = ranked.keep(movies.movie_rows[ranked.movie_numbers] >= 0)
        ranking_vectors = self._ranking_vectors(ranked_rows, ranked, movies)
        ranking_vectors = ranking_vectors + self._ranking_priors(users, ranked_rows, ranked)
        if self._config.scale is None:
            return UserEmbeddings(torch.zeros(len(users), 0, device=self.device), ranking_vectors)
        return UserEmbeddings(self._rating_vectors(users, *self._rated_events(users), movies), ranking_vectors)

    def knows_users(self, user_ids: list[str | None]) -> NDArray[np.bool_]:
        """Tells for each id whether the checkpoint holds a trained vector for it."""
        return self._encoder.users.rows_of(user_ids) > 0

    def count_ratings(self, users: UserColumns) -> NDArray[np.int64]:
        """Returns how many ratings an answer rests on: of a trimmed history also those that were trained on."""
        user_rows = self._encoder.users.rows_of(users.user_ids)
        trimmed = (user_rows > 0) & ~users.histories.complete
        events = CountedEvents.of(users.histories, trimmed, self._config.data_until_ms)
        counts = events.count(~np.isnan(events.ratings))
        if self._config.scale is None:
            return counts
        return counts + np.where(trimmed, self._trained_counts()[user_rows], 0)

    @torch.no_grad()
    def rating_deviations(
        self,
        users: UserColumns,
        movies: MovieEmbeddings,
        positions: NDArray[np.int64],
        numbers: NDArray[np.int64],
    ) -> NDArray[np.float32] | None:
        """Returns the root of: what is not known of the user, what is not known of the movie, and noise."""
        if self._config.scale is None:
            return None
        of_user, of_movie, noise = self.variance_parts(users, movies, positions, numbers)
        deviations: NDArray[np.float32] = np.sqrt(self._config.user_variance_factor * of_user + of_movie + noise)
        return deviations

    def certainty_of(self, users: UserColumns, movies: MovieEmbeddings) -> PosteriorFactor | None:
        """Solves the regression behind the first of `variance_parts`."""
        if self._config.scale is None:
            return None
        events = CountedEvents.of(users.histories, np.zeros(len(users), np.bool_), self._config.data_until_ms)
        rated = np.flatnonzero(~np.isnan(events.ratings))  # [n]
        weights = self._to_device(self._event_weights(events, movies)[rated])  # [n]
        return PosteriorFactor.of(
            movies.rating_vectors[self._to_device(events.movie_numbers[rated])] * weights[:, None]
        )

    def deviations_by(
        self, certainty: PosteriorFactor, movies: MovieEmbeddings, numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Adds up the same parts on the CPU."""
        of_user = certainty.variances(movies.rating_vectors.numpy()[numbers])  # [P]
        of_movie = self._tensors["rating.variances"].numpy()[np.maximum(movies.movie_rows[numbers], 0)]  # [P]
        variances = self._config.user_variance_factor * of_user + of_movie + self._config.spread_variance
        deviations: NDArray[np.float32] = np.sqrt(variances, dtype=np.float32)
        return deviations

    @torch.no_grad()
    def variance_parts(
        self,
        users: UserColumns,
        movies: MovieEmbeddings,
        positions: NDArray[np.int64],
        numbers: NDArray[np.int64],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Returns what is not known of the user, before its factor, what is not of the movie, and noise. stars² [P].

        Of a trained user with a trimmed history what is in view counts; the rest would change little beside the noise.
        """
        events = CountedEvents.of(users.histories, np.zeros(len(users), np.bool_), self._config.data_until_ms)
        weights = self._event_weights(events, movies)
        of_user = pair_variances(events, weights, movies.rating_vectors, positions, numbers)
        rows = np.maximum(movies.movie_rows[numbers], 0)  # row 0 holds what is not known of a movie made from content
        of_movie = self._tensors["rating.variances"][self._to_device(rows)]
        noise = np.full(len(numbers), self._config.spread_variance, np.float32)
        return of_user.cpu().numpy(), of_movie.cpu().numpy(), noise

    @torch.no_grad()
    def history_contributions(
        self, users: UserColumns, movies: MovieEmbeddings, positions: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32] | None:
        """Returns each entry's part of the sum that a ranking score is."""
        return history_contributions(self._config, self._tensors, users.histories, movies, positions, numbers)

    def config(self) -> dict[str, Any]:
        """Returns the config as JSON values."""
        return {**asdict(self._config), "memories": [asdict(memory) for memory in self._config.memories]}

    def tensors(self) -> dict[str, Tensor]:
        """Returns all tables by name."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self._tensors.items()}

    def vocabularies(self) -> dict[str, list[str]]:
        """Returns all vocabularies by name."""
        return self._encoder.vocabularies()

    @classmethod
    def restore(
        cls,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        vocabularies: Mapping[str, list[str]],
        device: torch.device,
    ) -> Self:
        """Rebuilds the model."""
        # Checkpoints from before the factor was measured are without it.
        parsed = decode_config(MarqueeConfig, {"user_variance_factor": 1.0, **config})
        require_vocabularies(vocabularies, FeatureEncoder.vocabulary_names())
        encoder = FeatureEncoder.restore(vocabularies, parsed.ages, parsed.years)
        require_tensors(tensors, tensor_shapes(parsed, encoder))
        return cls(parsed, encoder, {name: tensor.to(device) for name, tensor in tensors.items()})

    def _rated_events(self, users: UserColumns) -> tuple[NDArray[np.int64], CountedEvents]:
        """Returns each user's row, 0 for whom the trained vector says nothing, and the events to infer him from.

        A trained vector explains the ratings that it was made of better than they could be explained anew: the movies'
        vectors were made of the same ratings, and a rare movie's of little else (docs/experiments.md, 2026-11-21). So
        it is the prior wherever the history holds exactly as many ratings from before as it was made of, or fewer
        because it was trimmed. Where it lacks or adds any, it is another history: that of a stranger.
        """
        user_rows = self._encoder.users.rows_of(users.user_ids)
        complete = users.histories.complete
        until_ms = self._config.data_until_ms
        events = CountedEvents.of(users.histories, np.zeros(len(users), np.bool_), until_ms)
        rated = ~np.isnan(events.ratings)
        made_of = self._trained_counts()[user_rows]
        is_the_same = events.count(rated & events.old) == made_of
        user_rows = np.where((made_of > 0) & (is_the_same | ~complete), user_rows, 0)
        has_news = events.count(rated & ~events.old) > 0
        only_new = (user_rows > 0) & ~(complete & has_news)
        return user_rows, CountedEvents.of(users.histories, only_new, until_ms) if only_new.any() else events

    def _trained_counts(self) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = self._tensors["rating.user_counts"].cpu().numpy().astype(np.int64)
        return counts

    def _rating_vectors(
        self, users: UserColumns, user_rows: NDArray[np.int64], events: CountedEvents, movies: MovieEmbeddings
    ) -> Tensor:
        """Returns the posterior mean of each user's vector. [B, R]."""
        means, spreads = self._priors(users, user_rows, events, movies)
        # What a trained vector was made of holds it in place and surprises it no more.
        explained = np.repeat(user_rows > 0, events.lengths()) & events.old  # [E]
        precisions = self._event_weights(events, movies)
        vectors = means.clone()
        for block in events.rated_blocks():
            watched = self._to_device(events.movie_numbers[block.entries])  # [b, L]
            ratings = self._to_device(events.ratings[block.entries])  # [b, L]
            weights = self._to_device(np.where(block.inside, precisions[block.entries], np.float32(0)))  # [b, L]
            who = self._to_device(block.users)
            prior = means[who]  # [b, R]
            designs = movies.rating_vectors[watched]  # [b, L, R]
            expected = movies.rating_biases[watched] + torch.bmm(designs, prior[:, :, None])[:, :, 0]
            surprises = (ratings - expected) * weights  # [b, L]
            if spreads is not None:
                surprises.masked_fill_(self._to_device(explained[block.entries]), 0.0)
            if spreads is None:
                vectors[who] = prior + posterior_means(designs.mul_(weights[:, :, None]), surprises)
            else:
                spread = spreads[who][:, None]  # [b, 1]
                designs.mul_((weights * spread)[:, :, None])
                vectors[who] = prior + spread * posterior_means(designs, surprises)
        return vectors

    def _event_weights(self, events: CountedEvents, movies: MovieEmbeddings) -> NDArray[np.float32]:
        """Returns one over the standard deviation of each event's noise. [E]."""
        weights = np.full(len(events.ratings), self._config.noise_variance**-0.5, np.float32)
        cold = movies.movie_rows[events.movie_numbers] < 0
        weights[cold] = (self._config.noise_variance + self._config.cold_noise_variance) ** -0.5
        return weights

    def _priors(
        self, users: UserColumns, user_rows: NDArray[np.int64], events: CountedEvents, movies: MovieEmbeddings
    ) -> tuple[Tensor, Tensor | None]:
        """Returns each user's prior mean [B, R] and standard deviation [B], None where all are strangers, of 1."""
        # n^-½ per movie, the whole damped by n / (n + 10): the recipe's prior mean of a stranger.
        counts = events.lengths()
        weights = np.repeat(np.sqrt(counts) / (counts + self._config.implicit_damping), counts)
        implicit = self._sum_rows("rating.implicit", events, weights, movies)
        profiles = self._to_device(profile_rows(users.profiles, self._encoder))
        strangers = implicit + self._tensors["rating.from_profile"][profiles].sum(dim=1)  # [B, R]
        if not user_rows.any():
            return strangers, None
        rows = self._to_device(user_rows)
        trained = rows > 0
        means = torch.where(trained[:, None], self._tensors["rating.users"][rows], strangers)
        # A trained vector is less uncertain than a stranger's the more ratings it was made of; row 0 was made of none.
        q = self._config.prior_events
        behind = self._tensors["rating.user_counts"][rows]  # [B]
        in_view = self._to_device(events.count(~np.isnan(events.ratings) & events.old).astype(np.float32))  # [B]
        return means, torch.sqrt(q / (q + torch.where(in_view < behind, behind, 0.0)))

    def _ranking_vectors(self, user_rows: NDArray[np.int64], events: CountedEvents, movies: MovieEmbeddings) -> Tensor:
        """Returns the weighted sum of each user's memories. [B, K]."""
        ages = events.ages()
        vectors = self._tensors["ranking.user_bias"].expand(len(user_rows), -1)  # [B, K]
        for table in self._config.tables:
            weights = memory_weights(self._config, table, ages)
            vectors = vectors + self._sum_rows(f"ranking.{table}", events, weights, movies)
        if user_rows.any():
            # What the checkpoint remembers has faded by the events since; row 0 remembers nothing.
            decays = np.array([memory.decay for memory in self._config.memories])
            gains = np.array([memory.gain for memory in self._config.memories])
            left = self._to_device((gains * decays ** events.lengths()[:, None]).astype(np.float32))  # [B, memories]
            remembered = self._tensors["ranking.memories"][self._to_device(user_rows)]  # [B, memories, K]
            vectors = vectors + (remembered * left[:, :, None]).sum(dim=1)
        return vectors

    def _ranking_priors(self, users: UserColumns, user_rows: NDArray[np.int64], events: CountedEvents) -> Tensor:
        """Returns what ranks where little is known of a user, faded by his events, remembered ones too. [B, K]."""
        behind = self._tensors["ranking.user_events"][self._to_device(user_rows)]  # [B], row 0 has none
        known = behind + self._to_device(events.lengths().astype(np.float32))
        faded = torch.exp(-known / self._config.ranking_prior_events)[:, None]  # [B, 1]
        profiles = self._to_device(profile_rows(users.profiles, self._encoder))  # [B, 3]
        of_profile = self._tensors["ranking.from_profile"][profiles].sum(dim=1)  # [B, K]
        return faded * (self._tensors["ranking.of_everybody"] + of_profile)

    def _sum_rows(
        self, table: str, events: CountedEvents, weights: NDArray[np.float64], movies: MovieEmbeddings
    ) -> Tensor:
        """Returns the weighted sum of the rows of each user's movies; a movie without a row adds nothing."""
        rows = np.maximum(movies.movie_rows[events.movie_numbers], 0)
        return functional.embedding_bag(
            self._to_device(rows),
            self._tensors[table],
            self._to_device(events.offsets),
            mode="sum",
            per_sample_weights=self._to_device(weights.astype(np.float32)),
            include_last_offset=True,
        )

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)
