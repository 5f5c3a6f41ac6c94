"""The closed-form model answers as its formulas say, for strangers, trained users and everything between."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from two_tower.errors import CheckpointError
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


@pytest.fixture(scope="module")
def model() -> Marquee:
    """The model."""
    return make_model()


@pytest.fixture(scope="module")
def movies(model: Marquee) -> MovieEmbeddings:
    """Its catalogue."""
    return model.embed_movies(MOVIES)


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


@pytest.mark.parametrize("count", [1, 3, 20, 290])
def test_a_stranger_is_the_posterior_mean_of_his_ratings(model: Marquee, movies: MovieEmbeddings, count: int) -> None:
    """Written out as a textbook regression, movie by movie, in double precision."""
    events = some_events(count)

    found = model.embed_users(a_user(events), movies).rating_vectors[0].numpy()

    assert found == pytest.approx(posterior(movies, events, implicit_mean(model, events)), abs=2e-5)


def test_a_profile_is_a_prior(model: Marquee, movies: MovieEmbeddings) -> None:
    """Each known field moves the answer by its row; an unknown one does not."""
    table = weights_of(model)["rating.from_profile"]
    # Rows: unknown; F, M; seven age bands, of which 50 to 55 is the sixth; artist, doctor.
    expected, gender_only = table[[2, 8, 10]].sum(0), table[2]

    whole = model.embed_users(a_user([], gender="M", age=52, occupation="artist"), movies)
    partly = model.embed_users(a_user([], gender="M"), movies)
    nothing = model.embed_users(a_user([]), movies)

    assert whole.rating_vectors[0].numpy() == pytest.approx(expected, abs=1e-5)
    assert partly.rating_vectors[0].numpy() == pytest.approx(gender_only, abs=1e-5)
    assert not nothing.rating_vectors.any()


def test_the_prior_counts_less_the_more_is_rated(model: Marquee, movies: MovieEmbeddings) -> None:
    """Two users who differ in profile only come closer as they rate the same movies alike."""

    def apart(events: list[Event]) -> float:
        pair = together([a_user(events, gender="M"), a_user(events, gender="F")])
        vectors = model.embed_users(pair, movies).rating_vectors
        return float((vectors[0] - vectors[1]).norm())

    assert apart([]) > apart(some_events(10)) > apart(some_events(200))


def test_a_complete_history_is_preferred_to_the_trained_vector(model: Marquee, movies: MovieEmbeddings) -> None:
    """Then a trained user and a stranger with the same history are the same."""
    events = some_events(20)

    trained = model.embed_users(a_user(events, user_id="u1"), movies)
    stranger = model.embed_users(a_user(events), movies)

    assert torch.equal(trained.rating_vectors, stranger.rating_vectors)
    assert torch.equal(trained.ranking_vectors, stranger.ranking_vectors)


def test_a_trimmed_history_leaves_the_trained_vector_unless_there_is_news(
    model: Marquee, movies: MovieEmbeddings
) -> None:
    """Events that the checkpoint has read, and events without a time, add nothing; nor does the profile."""
    old = [*some_events(50), (COLD, 2.0, 0)]

    user = model.embed_users(a_user(old, user_id="u1", complete=False, gender="M"), movies)

    weights = weights_of(model)
    assert user.rating_vectors[0].numpy() == pytest.approx(weights["rating.users"][2], abs=1e-6)
    memories = weights["ranking.memories"][2]
    expected = weights["ranking.user_bias"] + memories[0] + memories[1] + 0.1 * memories[2]
    assert user.ranking_vectors[0].numpy() == pytest.approx(expected, abs=1e-5)


def test_news_of_a_trained_user_update_his_trained_vector(model: Marquee, movies: MovieEmbeddings) -> None:
    """The prior is N(trained vector, q / (q + n)·I), with n his 300 training ratings and q = 5."""
    news = some_events(8, newest_ms=UNTIL_MS + 100)
    events = news + some_events(100, seed=1)

    found = model.embed_users(a_user(events, user_id="u1", complete=False), movies).rating_vectors[0].numpy()

    trained = weights_of(model)["rating.users"][2]
    assert found == pytest.approx(posterior(movies, news, trained, variance=5 / 305), abs=2e-5)


def test_memories_advance_as_if_recomputed(movies: MovieEmbeddings) -> None:
    """What the checkpoint remembers, moved on by the news, is the sum over the whole history."""
    model = make_model()
    old, news = some_events(40), [(260, 3.0, UNTIL_MS + 2), (261, NAN, UNTIL_MS + 1)]
    old = [event for event in old if event[0] not in (260, 261)]
    tables = model.tensors()
    for place, (table, decay) in enumerate([("short", 0.6), ("long", 0.9), ("long", 1.0)]):
        powers = decay ** torch.arange(len(old), dtype=torch.float32)
        rows = torch.tensor([number + 1 for number, _, _ in old])
        tables["ranking.memories"][2, place] = powers @ tables[f"ranking.{table}"][rows]
    model = Marquee.restore(model.config(), tables, model.vocabularies(), torch.device("cpu"))

    advanced = model.embed_users(a_user(news + old[:5], user_id="u1", complete=False), movies)
    recomputed = model.embed_users(a_user(news + old), movies)

    assert advanced.ranking_vectors[0].numpy() == pytest.approx(recomputed.ranking_vectors[0].numpy(), abs=1e-5)


def test_recent_movies_weigh_more_for_ranking(model: Marquee, movies: MovieEmbeddings) -> None:
    """Two events in either order give what the formula gives."""
    weights = weights_of(model)
    short, long = weights["ranking.short"], weights["ranking.long"]
    expected = weights["ranking.user_bias"] + short[8] + 1.1 * long[8] + 0.6 * short[4] + (0.9 + 0.1) * long[4]

    found = model.embed_users(a_user([(7, 3, 20), (3, NAN, 10)]), movies).ranking_vectors[0].numpy()
    turned = model.embed_users(a_user([(3, 3, 20), (7, NAN, 10)]), movies).ranking_vectors[0].numpy()

    assert found == pytest.approx(expected, abs=1e-5)
    assert turned != pytest.approx(expected, abs=1e-2)


def test_a_movie_watched_and_not_rated_counts_for_ranking_and_prior_only(
    model: Marquee, movies: MovieEmbeddings
) -> None:
    """There is no rating to explain."""
    watched = model.embed_users(a_user([(3, NAN, 10)]), movies)

    assert watched.rating_vectors[0].numpy() == pytest.approx(implicit_mean(model, [(3, NAN, 10)]), abs=1e-6)
    assert not torch.equal(watched.ranking_vectors, model.embed_users(a_user([]), movies).ranking_vectors)


def test_a_cold_movie_counts_with_more_noise_and_not_for_ranking(model: Marquee, movies: MovieEmbeddings) -> None:
    """Its rating is evidence through its content; its place in the history is as if it had not been watched."""
    events = [(COLD, 5.0, 11), (3, 2.0, 10)]

    user = model.embed_users(a_user(events), movies)

    assert not movies.known[COLD]
    assert user.rating_vectors[0].numpy() == pytest.approx(
        posterior(movies, events, implicit_mean(model, events)), abs=1e-5
    )
    assert torch.equal(user.ranking_vectors, model.embed_users(a_user(events[1:]), movies).ranking_vectors)


def test_users_together_equal_users_alone(model: Marquee, movies: MovieEmbeddings) -> None:
    """Of any mix of lengths, trained, strange, complete, trimmed and empty."""
    rng = np.random.default_rng(0)
    users = [
        a_user(
            some_events(int(size), seed=place, newest_ms=UNTIL_MS + place * 3),
            user_id=[None, "u1", "u3", "a stranger"][place % 4],
            complete=bool(place % 3),
            gender=["M", None, "F"][place % 3],
            age=20 + place,
        )
        for place, size in enumerate([*rng.integers(0, 40, 30), 0, 200, 290, 130, 64, 65])
    ]
    batch = model.embed_users(together(users), movies)

    for place, user in enumerate(users):
        alone = model.embed_users(user, movies)
        assert alone.rating_vectors[0].numpy() == pytest.approx(batch.rating_vectors[place].numpy(), abs=1e-5)
        assert alone.ranking_vectors[0].numpy() == pytest.approx(batch.ranking_vectors[place].numpy(), abs=1e-5)


def test_a_complete_history_that_was_trained_on_leaves_the_trained_vector(
    model: Marquee, movies: MovieEmbeddings
) -> None:
    """As many ratings as it was made of, u0's ten, and no news: nothing is inferred anew."""
    events = [(number, 3.0, UNTIL_MS) for number in range(10)]

    trained = model.embed_users(a_user(events, user_id="u0"), movies).rating_vectors[0].numpy()
    other = model.embed_users(a_user(events[1:], user_id="u0"), movies).rating_vectors[0].numpy()

    assert trained == pytest.approx(weights_of(model)["rating.users"][1], abs=1e-6)
    assert other == pytest.approx(posterior(movies, events[1:], implicit_mean(model, events[1:])), abs=1e-5)


def test_what_was_trained_on_holds_the_trained_vector_against_news(model: Marquee, movies: MovieEmbeddings) -> None:
    """A regression on all events in which the old ones are met exactly by the trained vector."""
    old, news = [(number, 1.0, UNTIL_MS) for number in range(10)], [(20, 5.0, UNTIL_MS + 1), (21, 4.0, UNTIL_MS + 1)]
    trained = weights_of(model)["rating.users"][1]
    vectors, biases = movies.rating_vectors.numpy(), movies.rating_biases.numpy()
    as_if = [(number, float(biases[number] + vectors[number] @ trained), UNTIL_MS) for number, _, _ in old]

    found = model.embed_users(a_user(news + old, user_id="u0"), movies).rating_vectors[0].numpy()

    assert found == pytest.approx(posterior(movies, news + as_if, trained), abs=2e-5)


def test_a_deviation_adds_what_is_unknown_of_user_and_movie_to_the_noise(
    model: Marquee, movies: MovieEmbeddings
) -> None:
    """The posterior variance of a textbook regression, the movie's own and that of a rating whose parties are known."""
    events = [*some_events(20), (COLD, 4.0, 0)]
    users = together([a_user([]), a_user(events), a_user(some_events(100))])
    positions, numbers = np.array([1, 0, 1, 2]), np.array([COLD, 4, 5, 6])

    found = model.rating_deviations(users, movies, positions, numbers)

    vectors = movies.rating_vectors.numpy().astype(np.float64)
    own = weights_of(model)["rating.variances"]
    precision = np.eye(12)
    for number, stars, _ in events:
        if not np.isnan(stars):
            precision += np.outer(vectors[number], vectors[number]) / (0.7 if number != COLD else 1.0)
    expected = [
        vectors[COLD] @ np.linalg.solve(precision, vectors[COLD]) + own[0],
        vectors[4] @ vectors[4] + own[5],
        vectors[5] @ np.linalg.solve(precision, vectors[5]) + own[6],
    ]
    assert found is not None
    assert found[:3] ** 2 - 0.5 == pytest.approx(expected, rel=1e-3)
    assert found[3] < found[1]


def test_the_factor_widens_what_is_unknown_of_the_user_alone(model: Marquee, movies: MovieEmbeddings) -> None:
    """Movie and noise are in the tables as they are to be; a checkpoint from before the factor has 1."""
    user, positions, numbers = a_user(some_events(20)), np.array([0]), np.array([7])
    trebled = make_model(replace(model._config, user_variance_factor=3.0))
    earlier = model.config()
    del earlier["user_variance_factor"]
    restored = Marquee.restore(earlier, model.tensors(), model.vocabularies(), torch.device("cpu"))

    of_user, of_movie, noise = model.variance_parts(user, movies, positions, numbers)
    found = [np.asarray(each.rating_deviations(user, movies, positions, numbers)) for each in (trebled, restored)]

    assert found[0] ** 2 == pytest.approx(3 * of_user + of_movie + noise, rel=1e-5)
    assert found[1] ** 2 == pytest.approx(of_user + of_movie + noise, rel=1e-5)


def test_the_number_of_ratings_counts_those_that_were_trimmed(model: Marquee) -> None:
    """A trained user's 300 and what came since; of a complete history what it holds."""
    news = [(3, 4.0, UNTIL_MS + 5), (4, NAN, UNTIL_MS + 4)]
    events = [*news, (7, 2.0, UNTIL_MS), (8, 2.0, UNTIL_MS)]
    users = together([a_user(events, user_id="u1", complete=False), a_user(events, user_id="u1"), a_user([])])

    assert model.count_ratings(users).tolist() == [301, 3, 0]


def test_a_movie_without_a_year_is_of_the_mean_year(model: Marquee) -> None:
    """And says that its year is unknown; a genre that the checkpoint never saw adds nothing."""
    new = MovieColumns(
        ["x", "y"], ["", ""], np.array([NAN, 1970], np.float32), [("Comedy",), ("Comedy", "Never heard of")]
    )

    embedded = model.embed_movies(new)

    of_year_unknown = weights_of(model)["rating.from_content"][-2]  # before the constant stands "year unknown"
    found = (embedded.rating_vectors[0] - embedded.rating_vectors[1]).numpy()
    assert found == pytest.approx(of_year_unknown[:-1], abs=1e-5)


def test_data_without_ratings_has_a_ranking_head_only(model: Marquee) -> None:
    """Rating vectors then have no coordinates, and nothing asks for stars."""
    config = model._config
    watched_only = make_model(replace(config, scale=None, rating_size=0))

    movies = watched_only.embed_movies(MOVIES)
    users = watched_only.embed_users(a_user(some_events(3)), movies)

    assert watched_only.rating_scale is None
    assert movies.rating_vectors.shape == (NUM_MOVIES + 1, 0)
    assert users.rating_vectors.shape == (1, 0)
    assert users.ranking_vectors.shape == (1, 6)


@pytest.mark.parametrize(
    "change",
    [
        {"rating_size": 0},
        {"ranking_size": 0},
        {"noise_variance": 0.0},
        {"cold_noise_variance": -1.0},
        {"prior_events": 0.0},
        {"spread_variance": 0.0},
        {"user_variance_factor": 0.0},
        {"memories": []},
        {"memories": [{"table": "middle", "decay": 0.5, "gain": 1.0}]},
        {"memories": [{"table": "long", "decay": 0.0, "gain": 1.0}]},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(model: Marquee, change: dict[str, object]) -> None:
    """With the name of the field."""
    with pytest.raises(CheckpointError, match=f"config.{next(iter(change))}"):
        Marquee.restore({**model.config(), **change}, model.tensors(), model.vocabularies(), torch.device("cpu"))


def test_a_profile_ranks_until_a_history_does(movies: MovieEmbeddings) -> None:
    """What ranks for everybody and for a profile fades to 1/e in eight events; remembered events count."""
    model = make_model()
    events_behind = torch.tensor([0.0, 8, 24, 8, 8, 8])
    model = Marquee.restore(
        model.config(), model.tensors() | {"ranking.user_events": events_behind}, model.vocabularies(), model.device
    )
    tables = model.tensors() | {"ranking.of_everybody": torch.full((6,), 2.0)}
    with_prior = Marquee.restore(model.config(), tables, model.vocabularies(), torch.device("cpu"))
    events = some_events(8)
    from_profile = weights_of(model)["ranking.from_profile"]
    woman = from_profile[model._encoder.genders.rows_of(["F"])[0]]

    def added(user: UserColumns) -> NDArray[np.floating]:
        nobody = replace(user, profiles=a_user([]).profiles)
        before, after = (each.embed_users(who, movies) for each, who in ((model, nobody), (with_prior, user)))
        difference: NDArray[np.floating] = (after.ranking_vectors - before.ranking_vectors)[0].numpy()
        return difference

    assert added(a_user([], gender="F")) == pytest.approx(2.0 + woman, abs=1e-5)
    assert added(a_user(events, gender="F")) == pytest.approx((2.0 + woman) / np.e, abs=1e-5)
    trimmed = a_user(events, user_id="u1", complete=False, gender="F")
    assert added(trimmed) == pytest.approx((2.0 + woman) * np.exp(-24 / 8), abs=1e-5)
