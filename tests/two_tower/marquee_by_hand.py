"""A marquee model of random tables, its users and movies, and what its formulas say of them. Asserts nothing."""

import numpy as np
import torch
from numpy.typing import NDArray

from two_tower.features import FeatureEncoder
from two_tower.models.marquee import Marquee, tensor_shapes
from two_tower.models.marquee_config import LONG, SHORT, MarqueeConfig, Memory
from two_tower.movie_columns import MovieColumns
from two_tower.serving import MovieEmbeddings, RatingScale
from two_tower.user_columns import Histories, Profiles, UserColumns

NUM_MOVIES = 300
UNTIL_MS = 1_000_000
NAN = float("nan")
MOVIES = MovieColumns(
    [f"m{row}" for row in range(NUM_MOVIES + 1)],
    ["A title"] * (NUM_MOVIES + 1),
    np.linspace(1930, 2010, NUM_MOVIES + 1).astype(np.float32),
    [(("Comedy", "Drama")[row % 2],) for row in range(NUM_MOVIES + 1)],
)
COLD = NUM_MOVIES
"""The number of the movie that the checkpoint does not know."""

Event = tuple[int, float, int]


def make_model(config: MarqueeConfig | None = None) -> Marquee:
    """A model of random tables; it knows the users u0..u4 and all movies but the last."""
    profiles = Profiles(["M", "F"], np.array([20, 50], np.float32), ["artist", "doctor"])
    encoder = FeatureEncoder.of([f"u{row}" for row in range(5)], MOVIES.movie_ids[:NUM_MOVIES], profiles, MOVIES)
    config = config or MarqueeConfig(
        scale=RatingScale(1, 5, 1),
        rating_size=12,
        ranking_size=6,
        memories=(Memory(SHORT, 0.6, 1.0), Memory(LONG, 0.9, 1.0), Memory(LONG, 1.0, 0.1)),
        noise_variance=0.7,
        cold_noise_variance=0.3,
        spread_variance=0.5,
        prior_events=5.0,
        implicit_damping=10.0,
        data_until_ms=UNTIL_MS,
        years=encoder.years,
        ages=encoder.ages,
    )
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: 0.4 * torch.randn(shape, generator=generator) for name, shape in tensor_shapes(config, encoder).items()
    }
    for name, table in tensors.items():
        if name.endswith(
            (
                ".vectors",
                ".biases",
                ".users",
                ".user_counts",
                ".implicit",
                ".from_profile",
                ".short",
                ".long",
                "memories",
            )
        ):
            table[0] = 0
    # Most tests are about long histories, where it has faded.
    tensors["ranking.of_everybody"].zero_()
    tensors["ranking.user_events"] = torch.tensor([0.0, 10, 300, 40, 250, 1])
    if config.scale is not None:
        tensors["rating.variances"].square_()
        tensors["rating.user_counts"][1:] = torch.tensor([10.0, 300, 40, 250, 1])
    return Marquee(config, encoder, tensors)


def a_user(
    events: list[Event],
    *,
    user_id: str | None = None,
    complete: bool = True,
    gender: str | None = None,
    age: float = NAN,
    occupation: str | None = None,
) -> UserColumns:
    return UserColumns(
        [user_id],
        Profiles([gender], np.array([age], np.float32), [occupation]),
        Histories(
            np.array([0, len(events)], np.int64),
            np.array([event[0] for event in events], np.int32),
            np.array([event[1] for event in events], np.float32),
            np.array([event[2] for event in events], np.int64),
            np.array([complete]),
        ),
    )


def together(users: list[UserColumns]) -> UserColumns:
    sizes = [len(user.histories.movie_numbers) for user in users]
    return UserColumns(
        [user.user_ids[0] for user in users],
        Profiles(
            [user.profiles.genders[0] for user in users],
            np.concatenate([user.profiles.ages for user in users]),
            [user.profiles.occupations[0] for user in users],
        ),
        Histories(
            np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
            np.concatenate([user.histories.movie_numbers for user in users]),
            np.concatenate([user.histories.ratings for user in users]),
            np.concatenate([user.histories.event_times_ms for user in users]),
            np.concatenate([user.histories.complete for user in users]),
        ),
    )


def some_events(count: int, seed: int = 0, newest_ms: int = UNTIL_MS) -> list[Event]:
    """Different movies, newest first; every fifth was watched and not rated."""
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(NUM_MOVIES)[:count]
    return [
        (int(number), NAN if place % 5 == 4 else float(rng.integers(1, 6)), newest_ms - place)
        for place, number in enumerate(numbers)
    ]


def weights_of(model: Marquee) -> dict[str, NDArray[np.floating]]:
    return {name: tensor.numpy().astype(np.float64) for name, tensor in model.tensors().items()}


def posterior(
    movies: MovieEmbeddings,
    events: list[Event],
    mean: NDArray[np.floating],
    variance: float = 1.0,
    cold_noise: float = 0.3,
) -> NDArray[np.floating]:
    """The textbook posterior mean under the prior N(mean, variance·I), movie by movie."""
    precision, moment = np.eye(len(mean)) / variance, mean / variance
    for number, stars, _ in events:
        if np.isnan(stars):
            continue
        vector = movies.rating_vectors[number].numpy().astype(np.float64)
        noise = 0.7 + (0 if movies.known[number] else cold_noise)
        precision += np.outer(vector, vector) / noise
        moment = moment + vector * (stars - float(movies.rating_biases[number])) / noise
    solved: NDArray[np.floating] = np.linalg.solve(precision, moment)
    return solved


def implicit_mean(model: Marquee, events: list[Event]) -> NDArray[np.floating]:
    rows = [number + 1 for number, _, _ in events if number != COLD]
    total: NDArray[np.floating] = weights_of(model)["rating.implicit"][rows].sum(0)
    return np.asarray(total * np.sqrt(len(events)) / (len(events) + 10))
