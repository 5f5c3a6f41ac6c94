"""The notebooks' pairwise networks answer what their layers say, worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from two_tower.errors import MismatchedCheckpointError
from two_tower.features import FeatureEncoder, Range
from two_tower.models.content_fc import Config as ContentConfig
from two_tower.models.content_fc import ContentFc, movie_columns, user_columns
from two_tower.models.nn_collab import Config as CollabConfig
from two_tower.models.nn_collab import NnCollab, NnCollabGenre
from two_tower.models.tfrs_simple import Config as SimpleConfig
from two_tower.models.tfrs_simple import TfrsSimple
from two_tower.models.tfrs_titles import Config as TitlesConfig
from two_tower.models.tfrs_titles import TfrsTitles
from two_tower.movie_columns import MovieColumns
from two_tower.scoring import rate_all
from two_tower.serving import RatingScale
from two_tower.user_columns import Histories, Profiles, UserColumns

SCALE = RatingScale(0.5, 5, 0.5)


@pytest.fixture
def encoder(profiles: Profiles, movies: MovieColumns) -> FeatureEncoder:
    """Two users and the first three movies have rows; ages 20 to 60, years 1979 to 1995."""
    return FeatureEncoder.of(["u0", "u1"], ["m0", "m1", "m2"], profiles, movies)


def set_all(network: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=generator)


def users_of(*ids: str | None, profiles: Profiles | None = None) -> UserColumns:
    return UserColumns(ids, profiles or Profiles.unknown(len(ids)), Histories.empty(len(ids)))


def test_content_columns_are_years_and_flags(encoder: FeatureEncoder, profiles: Profiles, movies: MovieColumns) -> None:
    """Age, its flag, unknown gender, M, unknown occupation, artist, doctor; year, its flag, unknown genre, genres."""
    users = encoder.encode_users(["u0", "u1", None], profiles)

    columns = user_columns(users, encoder.ages, len(encoder.genders), len(encoder.occupations))

    assert columns.tolist() == [[20, 0, 0, 1, 0, 1, 0], [60, 0, 0, 0, 0, 0, 1], [40, 1, 1, 0, 1, 0, 0]]
    assert encoder.genres.words == ["", "Comedy", "Crime", "Drama", "Horror"]
    first, *_, last = movie_columns(encoder.encode_movies(movies), encoder.years).tolist()
    assert first == pytest.approx([95, 0, 0, 0, 1, 1, 0], abs=1e-4)
    assert last == pytest.approx([(95 + 79 + 88) / 3, 1, 0, 0, 0, 0, 0], abs=1e-4)


def test_data_without_ages_and_years_gives_zeros_for_them(encoder: FeatureEncoder, movies: MovieColumns) -> None:
    """Not 1900 years before 1900."""
    nothing = Range.of(np.array([np.nan], np.float32))

    assert movie_columns(encoder.encode_movies(movies), nothing)[:, 0].tolist() == [0, 0, 0, 0]


def test_content_fc_is_a_plain_network_over_all_columns(
    encoder: FeatureEncoder, profiles: Profiles, movies: MovieColumns
) -> None:
    """Split into a user and a movie part, the first layer gives what it gives over both side by side."""
    config = ContentConfig((5, 4), 3, 4, encoder.ages, encoder.years, SCALE)
    network = ContentFc.make_network(config, encoder.vocabularies())
    set_all(network)
    model = ContentFc(config, encoder, network)
    embedded = model.embed_movies(movies)
    embeddings = model.embed_users(users_of("u0", "u1", None, profiles=profiles), embedded)

    found = model.raw_ratings_of_all(embeddings.inputs, embedded.inputs)

    users = user_columns(encoder.encode_users(["u0", "u1", None], profiles), encoder.ages, 3, 3)
    x = np.concatenate(
        [np.repeat(users, 4, axis=0), np.tile(movie_columns(encoder.encode_movies(movies), encoder.years), (3, 1))],
        axis=1,
    )
    weight = torch.cat([network.user_layer.weight, network.movie_layer.weight], dim=1)
    hidden = torch.relu(torch.from_numpy(x) @ weight.T + network.user_layer.bias)
    for layer in network.layers:
        hidden = torch.relu(layer(hidden))
    assert found.flatten().numpy() == pytest.approx(hidden[:, 0].numpy(), rel=1e-4)
    assert embedded.known.tolist() == [True, True, True, False]


def collab(encoder: FeatureEncoder, pooling: str, *, rounded: bool = False, padded: int = 0) -> NnCollab:
    """A network whose hidden layer passes its first inputs on and adds them up."""
    kind = NnCollab if pooling == "none" else NnCollabGenre
    config = CollabConfig(1, 1, 0 if pooling == "none" else 1, pooling, padded, 0, 5.5, rounded, 3, 4, Range(0, 0, 0),
                          Range(0, 0, 0), SCALE)  # fmt: skip
    network = kind.make_network(config, encoder.vocabularies())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.user_table[:, 0] = torch.tensor([0.5, 1.0, 2.0])
        network.movie_table[:, 0] = torch.tensor([0.25, 1.0, -3.0, 4.0])
        if network.genre_table.numel():
            network.genre_table[:, 0] = torch.tensor([100.0, 10.0, 20.0, 30.0, 40.0])
        network.user_layer.weight[0, 0] = 1
        network.movie_layer.weight[0] = 1
        network.output.weight[0, 0] = 1
        network.output.bias[0] = -1
    return kind(config, encoder, network)


def test_nn_collab_meets_in_one_hidden_layer(encoder: FeatureEncoder, movies: MovieColumns) -> None:
    """relu(user + movie) - 1, squashed to 0..5.5; strangers and new movies have row 0."""
    model = collab(encoder, "none")
    embedded = model.embed_movies(movies)
    users = model.embed_users(users_of("u1", None), embedded)

    raw = model.raw_ratings_of_all(users.inputs, embedded.inputs)

    assert raw.tolist() == [[2, -1, 5, 1.25], [0.5, -1, 3.5, -0.25]]
    assert model.link(np.array([0, 100, -100], np.float32)).tolist() == pytest.approx([2.75, 5.5, 0])
    assert rate_all(model, users, embedded)[0, 2] == 5


@pytest.mark.parametrize(
    ("pooling", "expected"), [("sum", [50, 40, 10, 0]), ("mean", [25, 40, 10, 0]), ("concat", [50, 40, 10, 0])]
)
def test_genres_are_pooled_as_asked(
    encoder: FeatureEncoder, movies: MovieColumns, pooling: str, expected: list[float]
) -> None:
    """Crime 20 and Drama 30 are 50 or 25; a movie without genres adds nothing: padding is no genre."""
    model = collab(encoder, pooling)

    inputs = model.embed_movies(movies).inputs[:, 0].tolist()

    assert inputs == pytest.approx([1 + expected[0], -3 + expected[1], 4 + expected[2], 0.25 + expected[3]])


def test_padding_that_is_a_genre_counts_as_the_bug_had_it(encoder: FeatureEncoder, movies: MovieColumns) -> None:
    """Lists are filled up to three with Comedy, 10: Crime and Drama get one, no genres at all get three."""
    model = collab(encoder, "sum", padded=3)

    inputs = model.embed_movies(movies).inputs[:, 0].tolist()

    assert inputs == pytest.approx([1 + 50 + 10, -3 + 40 + 20, 4 + 10 + 20, 0.25 + 30])


def test_ratings_are_rounded_if_that_is_wished(encoder: FeatureEncoder) -> None:
    """To the half stars of the scale."""
    raw = np.array([0.1, 0.3, 9.0], np.float32)

    assert collab(encoder, "none", rounded=True).link(raw).tolist() == [3, 3, 5]
    assert collab(encoder, "none").link(raw)[0] == pytest.approx(5.5 / (1 + np.exp(-0.1)))


def test_tfrs_simple_multiplies_its_towers(encoder: FeatureEncoder, movies: MovieColumns) -> None:
    """Of towers and layers that pass one number on, the answer is the product of both embeddings."""
    config = SimpleConfig(3, 4, encoder.ages, encoder.years, SCALE)
    network = TfrsSimple.make_network(config, encoder.vocabularies())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.user_table[:, 0] = torch.tensor([3.0, 1.0, 2.0])
        network.movie_table[:, 0] = torch.tensor([0.5, 1.0, -3.0, 4.0])
        for layer in (network.user_layer, network.movie_layer, network.hidden, network.output):
            layer.weight[0, 0] = 1
    model = TfrsSimple(config, encoder, network)
    embedded = model.embed_movies(movies)

    raw = model.raw_ratings_of_all(model.embed_users(users_of("u1", None), embedded).inputs, embedded.inputs)

    assert raw.tolist() == [[2, 0, 8, 1], [3, 0, 12, 1.5]]
    assert embedded.similarity_vectors[:, 0].tolist() == [1, -3, 4, 0.5]


def titles(encoder: FeatureEncoder) -> TfrsTitles:
    config = TitlesConfig(2, 3, 4, encoder.ages, encoder.years, SCALE)
    vocabularies = {**encoder.vocabularies(), "words": ["", "heat", "alien"]}
    network = TfrsTitles.make_network(config, vocabularies)
    set_all(network)
    return TfrsTitles._assemble(config, vocabularies, network)


def test_tfrs_titles_looks_at_words_genres_and_ids(encoder: FeatureEncoder, movies: MovieColumns) -> None:
    """Known words and genres tell new movies apart, unknown words do not."""
    model = titles(encoder)
    new = MovieColumns(
        ["n0", "n1", "n2", "n3"], ["Heat", "Cold", "", "Cold"], movies.years, [("Drama",), ("Drama",), ("Drama",), ()]
    )

    known, unknown, untitled, bare = model.embed_movies(new).inputs

    assert not torch.allclose(known, unknown)
    assert torch.equal(unknown, untitled)
    assert not torch.allclose(unknown, bare)


def test_a_wrong_config_is_named(encoder: FeatureEncoder) -> None:
    """Poolings that do not exist, widths that do not fit and vocabularies of another size."""
    model = collab(encoder, "sum")
    config = model.config()
    for wrong in ({"pooling": "max"}, {"genre_width": 0}, {"low": 6.0}, {"num_movies": 5}, {"user_width": 0}):
        with pytest.raises(MismatchedCheckpointError, match=next(iter(wrong))):
            NnCollabGenre.restore({**config, **wrong}, model.tensors(), model.vocabularies(), torch.device("cpu"))
    with pytest.raises(MismatchedCheckpointError, match="not nn-collab"):
        NnCollab.restore(config, model.tensors(), model.vocabularies(), torch.device("cpu"))
