"""tfrs-simple and tfrs-titles: who gets a row, how towers run, what titles bring."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.toy_dataset import toy_dataset
from trainer.errors import DataError
from trainer.evaluation import evaluate
from trainer.fits import silent, tfrs_simple, tfrs_titles
from trainer.fits.options import OptionsError, parse_options
from trainer.fits.tower_pairs import Tower, initialise_as_keras, shortest_prefix
from two_tower.models.tfrs_simple import SimpleNetwork


def test_the_vocabulary_is_the_shortest_prefix_that_covers_the_share() -> None:
    """7 has five rows of ten, 3 has three, 1 and 9 one each; of equals the smaller comes first."""
    rows = np.array([3, 7, 7, 9, 3, 7, 1, 7, 7, 3])

    assert shortest_prefix(rows, 0.5).tolist() == [7]
    assert shortest_prefix(rows, 0.51).tolist() == [7, 3]
    assert shortest_prefix(rows, 0.8).tolist() == [7, 3]
    assert shortest_prefix(rows, 0.9).tolist() == [7, 3, 1]
    assert shortest_prefix(rows, 1.0).tolist() == [7, 3, 1, 9]


def test_a_tower_runs_over_all_rows_or_over_the_batch_with_the_same_result() -> None:
    """Whichever is fewer; inputs may stand for several rows of the data."""
    ran: list[int] = []

    def embed(numbers: Tensor) -> Tensor:
        ran.append(len(numbers))
        return numbers[:, None] * 10.0

    tower = Tower(embed, 3, torch.tensor([0, 2, 1, 2]))

    assert tower.run(torch.tensor([3, 0])).tolist() == [[20], [0]]
    assert tower.run(torch.tensor([3, 0, 1, 2])).tolist() == [[20], [0], [20], [10]]
    assert ran == [2, 3]


def test_it_starts_as_keras_does() -> None:
    """Tables within .05, layers within √(6/(in + out)), biases 0."""
    network = SimpleNetwork(1000, 1000)

    initialise_as_keras(network, torch.Generator().manual_seed(0))

    assert 0.049 < float(network.user_table.detach().abs().max()) <= 0.05
    bound = (6 / 45) ** 0.5
    assert 0.95 * bound < float(network.movie_layer.weight.detach().abs().max()) <= bound
    assert not bool(network.hidden.bias.detach().any())


@pytest.mark.parametrize("fit", ["simple", "titles"])
def test_it_learns_tastes(fit: str) -> None:
    """Held-out ratings of users with two clear tastes are predicted far better than by their mean."""
    data = toy_dataset(rows_per_user=30)
    train, test = data.interactions.take(np.arange(200, 1800)), data.interactions.take(np.arange(200))
    learned = replace(data, interactions=train)

    if fit == "simple":
        model = tfrs_simple.fit(
            learned,
            tfrs_simple.Options(coverage=1, batch_size=200, learning_rate=0.01, epochs=150),
            seed=0,
            progress=silent,
        )
        scored = evaluate(model, data, train, test, protocol="")
    else:
        options = tfrs_titles.Options(coverage=1, batch_size=200, learning_rate=0.01, epochs=60)
        scored = evaluate(tfrs_titles.fit(learned, options, seed=0, progress=silent), data, train, test, protocol="")

    assert scored.metrics.rmse is not None
    assert scored.metrics.rmse < 0.75 * test.ratings.std()


def test_all_others_share_row_zero() -> None:
    """Users and movies beyond the covered share are known to the data and not to the model."""
    data = toy_dataset()
    options = tfrs_simple.Options(coverage=0.5, epochs=2)

    model = tfrs_simple.fit(data, options, seed=0, progress=silent)

    words = model.vocabularies()
    # Every user has as many rows as the others, so half of them have half of the rows.
    assert words["users"] == ["", *(f"u{row}" for row in range(30))]
    assert 10 < len(words["movies"]) < 25
    assert bool(model.tensors()["user_table"][0].any())
    assert model.embed_movies(data.movies).known.sum() == len(words["movies"]) - 1


def test_without_others_row_zero_is_the_mean() -> None:
    """A stranger is an average user, not the numbers that training started from."""
    tensors = tfrs_simple.fit(
        toy_dataset(), tfrs_simple.Options(coverage=1, epochs=2), seed=0, progress=silent
    ).tensors()

    for name in ("user_table", "movie_table"):
        assert tensors[name][0].numpy() == pytest.approx(tensors[name][1:].mean(dim=0).numpy(), abs=1e-7)


def test_training_stops_when_the_training_loss_does() -> None:
    """Far before 1,000 epochs on data with nothing to learn."""
    data = toy_dataset()
    flat = replace(data, interactions=replace(data.interactions, ratings=np.full(900, 3, np.float32)))
    told: list[str] = []

    tfrs_simple.fit(
        flat,
        tfrs_simple.Options(batch_size=100, patience=2, learning_rate=0.05),
        seed=0,
        progress=lambda done, total, message, figures=None: told.append(message),
    )

    assert len(told) < 1000
    assert "stopped" in told[-1]


def test_word_vectors_of_a_file_stay_as_they_are(tmp_path: Path) -> None:
    """Words of titles are kept, and the most frequent ones for movies to come; their width may be any."""
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 2 3\nmovie 4 5 6\n7 7 8 9\n")

    model = tfrs_titles.fit(
        toy_dataset(), tfrs_titles.Options(title_vectors=str(path), epochs=2), seed=0, progress=silent
    )

    assert model.vocabularies()["words"] == ["", "the", "movie", "7"]
    assert model.tensors()["word_table"].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_without_a_file_words_of_several_titles_are_trained() -> None:
    """A word of a single title would be one more id of its movie."""
    model = tfrs_titles.fit(toy_dataset(), tfrs_titles.Options(epochs=2), seed=0, progress=silent)

    assert model.vocabularies()["words"] == ["", "movie"]


def test_a_file_that_is_not_there_is_refused_with_the_options() -> None:
    """Before minutes of reading."""
    with pytest.raises(OptionsError, match=r"there is no file 'absent\.txt'"):
        parse_options(tfrs_titles.Options, ["title_vectors=absent.txt"])


def test_data_without_ratings_is_refused() -> None:
    """The networks predict stars and say so."""
    with pytest.raises(DataError, match="tfrs-simple learns from ratings"):
        tfrs_simple.fit(toy_dataset(rated=False), tfrs_simple.Options(), seed=0, progress=silent)
    with pytest.raises(DataError, match="tfrs-titles learns from ratings"):
        tfrs_titles.fit(toy_dataset(rated=False), tfrs_titles.Options(), seed=0, progress=silent)
