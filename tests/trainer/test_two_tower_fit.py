"""The fit learns what is there to learn, goes on where it stopped, and stops when it has lost its way."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.toy_dataset import toy_dataset
from trainer.errors import DataError
from trainer.evaluation import evaluate
from trainer.fits import silent
from trainer.fits.divergence import DivergedFitError
from trainer.fits.options import parse_options
from trainer.fits.training_state import StateError, TrainingState
from trainer.fits.two_tower import Options, fit
from trainer.fits.two_tower_training import wants_bf16
from two_tower.models.two_tower import TwoTower

QUICK = Options(attention=True, epochs=4, cuts=10, ranking_size=16, rating_size=8)


class InterruptedTrainingError(Exception):
    """Someone switched it off."""


def tensors_equal(some: TwoTower, others: TwoTower) -> bool:
    kept, made = some.tensors(), others.tensors()
    return all(torch.equal(kept[name], made[name]) for name in kept)


@pytest.mark.parametrize("timed", [True, False])
def test_it_learns_tastes(timed: bool) -> None:
    """Held-out ratings of strangers with two clear tastes are predicted far better than by their mean."""
    data = toy_dataset(timed=timed, rows_per_user=30)
    train, test = data.interactions.take(np.arange(200, 1800)), data.interactions.take(np.arange(200))
    options = replace(QUICK, epochs=20)

    model = fit(replace(data, interactions=train), options, seed=0, progress=silent)
    strangers = replace(data, user_ids=[f"stranger {row}" for row in range(60)])

    for asked in (data, strangers):
        rmse = evaluate(model, asked, train, test, protocol="").metrics.rmse
        assert rmse is not None
        assert rmse < 0.6 * test.ratings.std()


def test_movies_that_nobody_watched_are_made_from_content() -> None:
    """Users who love comedies are told of new comedies, for movies give up their ids now and then in training."""
    data = toy_dataset(rows_per_user=30)
    old = data.interactions.take(np.flatnonzero(data.interactions.movie_rows >= 6))
    new = data.interactions.take(np.flatnonzero(data.interactions.movie_rows < 6))
    options = replace(QUICK, epochs=20, movie_unknown_rate=0.2)

    model = fit(replace(data, interactions=old), options, seed=0, progress=silent)

    rmse = evaluate(model, data, old, new, protocol="").metrics.rmse
    assert rmse is not None
    assert rmse < 0.7 * new.ratings.std()


@pytest.mark.parametrize("stopped_after", [1, 3])
def test_a_training_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path: Path, stopped_after: int) -> None:
    """All chance comes from seed and epoch, and the optimiser's memory is kept too."""
    data = toy_dataset()
    whole = fit(data, QUICK, seed=0, progress=silent)
    told: list[str] = []

    def stop(done: int, total: int, message: str, figures: object = None) -> None:
        told.append(message)
        if message.startswith(f"epoch {stopped_after + 1} "):
            raise InterruptedTrainingError

    path = tmp_path / "state"
    with pytest.raises(InterruptedTrainingError):
        # Killed within an epoch: what it did of it is lost.
        fit(data, QUICK, seed=0, progress=stop, state=_Forgetful(path, "this", stopped_after))
    told.clear()
    resumed = fit(
        data,
        QUICK,
        seed=0,
        progress=lambda done, total, message, figures=None: told.append(message),
        state=TrainingState(path, "this", resume=True),
    )

    assert tensors_equal(resumed, whole)
    assert told[0].startswith(f"epoch {stopped_after + 1} of 4")


class _Forgetful(TrainingState):
    """Keeps nothing after a certain epoch, as if the process had been killed before."""

    def __init__(self, path: Path, identity: str, last: int) -> None:
        super().__init__(path, identity, resume=False)
        self._last = last

    def save(self, network: torch.nn.Module, optimiser: torch.optim.Optimizer, epoch: int, **more: Any) -> None:
        if epoch <= self._last:
            super().save(network, optimiser, epoch, **more)


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    """So is one that is damaged; neither is an accident that a training should paper over."""
    data, path = toy_dataset(), tmp_path / "state"
    fit(data, replace(QUICK, epochs=1), seed=0, progress=silent, state=TrainingState(path, "this", resume=False))

    with pytest.raises(StateError, match="is of another training"):
        fit(data, QUICK, seed=0, progress=silent, state=TrainingState(path, "that", resume=True))
    path.write_bytes(b"half a file")
    with pytest.raises(StateError, match="cannot be read"):
        fit(data, QUICK, seed=0, progress=silent, state=TrainingState(path, "this", resume=True))


def test_a_loss_that_is_no_number_names_its_epoch_and_keeps_the_last_good_weights() -> None:
    """What can be served is not lost with what cannot."""
    data = toy_dataset()
    rows = data.interactions
    # Sorted rows are not copied, so what is done to them is done to the training.
    rows = rows.take(np.lexsort((rows.event_times_ms, rows.user_rows)))

    def spoil(done: int, total: int, message: str, figures: object = None) -> None:
        if message.startswith("epoch 2 of 4, "):
            rows.ratings[:] = np.inf

    with pytest.raises(DivergedFitError, match="in epoch 3: training stopped, the weights after epoch 2") as caught:
        fit(replace(data, interactions=rows), QUICK, seed=0, progress=spoil)

    assert isinstance(caught.value.model, TwoTower)
    assert all(bool(tensor.isfinite().all()) for tensor in caught.value.model.tensors().values())


@pytest.mark.parametrize("negatives", ["in-batch", "sampled"])
def test_a_softmax_over_some_movies_learns_as_well(negatives: str) -> None:
    """With the log of each movie's chance to be among them taken off."""
    data = toy_dataset(rows_per_user=30)
    options = replace(QUICK, epochs=8, negatives=negatives, sampled_movies=8)  # type: ignore[arg-type]
    losses: list[float] = []

    fit(data, options, seed=0, progress=lambda done, total, message, figures=None: losses.append(sum(figures.values())))

    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "off",
    ["history_ratings", "attention", "recency", "titles", "movie_means", "user_scale"],
)
def test_every_switch_can_be_off(off: str) -> None:
    """And the model then answers with numbers."""
    data = toy_dataset()
    options = parse_options(Options, [f"{off}=false", "epochs=1", "cuts=10"])

    model = fit(data, options, seed=0, progress=silent)

    metrics = evaluate(model, data, data.interactions, data.interactions, protocol="").metrics
    assert metrics.rmse is not None
    assert np.isfinite(metrics.rmse)


def test_views_are_pulled_together_and_bf16_computes() -> None:
    """Both options change what is learned and leave it finite."""
    data = toy_dataset()
    # "auto" would be bf16 on a processor that multiplies it.
    once = replace(QUICK, epochs=1, precision="fp32")
    plain = fit(data, once, seed=0, progress=silent)

    for other in (replace(once, contrastive_weight=0.5), replace(once, precision="bf16")):
        model = fit(data, other, seed=0, progress=silent)
        assert not tensors_equal(model, plain)
        assert all(bool(tensor.isfinite().all()) for tensor in model.tensors().values())


def test_bf16_is_used_where_the_hardware_multiplies_it() -> None:
    """Or where it is asked for; auto looks at the processor."""
    capabilities = torch.cpu.get_capabilities()
    has = bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))

    assert wants_bf16("auto", torch.device("cpu")) == has
    assert wants_bf16("bf16", torch.device("cpu"))
    assert not wants_bf16("fp32", torch.device("cpu"))


def test_data_without_ratings_is_ranked_and_not_rated() -> None:
    """The rating head is off; the data's scale, which is none, says so."""
    data = toy_dataset(rated=False)

    model = fit(data, QUICK, seed=0, progress=silent)
    metrics = evaluate(
        model, data, data.interactions.take(np.arange(800)), data.interactions.take(np.arange(800, 900)), protocol=""
    ).metrics

    assert metrics.rmse is None
    assert metrics.ndcg_at_10 is not None


def test_given_title_vectors_stay_as_they_are(tmp_path: Path) -> None:
    """They travel in the checkpoint, so that a movie of next year has its title read."""
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("movie .5 -.25\nnewcomer 1 2\n")

    model = fit(toy_dataset(), replace(QUICK, title_vectors=str(vectors)), seed=0, progress=silent)

    assert model.vocabularies()["title_words"] == ["", "movie", "newcomer"]
    assert model.tensors()["title_vectors"].tolist() == [[0.5, -0.25], [1, 2]]
    with pytest.raises(ValueError, match="title_vectors: there is no file"):
        replace(QUICK, title_vectors=str(tmp_path / "absent"))


def test_bags_are_read_where_there_are_some() -> None:
    """A value of a single movie has no row; a column that is not there is named."""
    data = toy_dataset()
    casts = [("Pacino",) if row % 3 else ("De Niro", f"extra {row}") for row in range(40)]
    data = replace(data, movies=replace(data.movies, bags={"cast": casts}))

    model = fit(data, QUICK, seed=0, progress=silent)

    assert model.vocabularies()["bag:cast"] == ["", "De Niro", "Pacino"]
    assert "bag:cast" not in fit(data, replace(QUICK, bags=""), seed=0, progress=silent).vocabularies()
    with pytest.raises(DataError, match="have no column 'director'; they have 'cast'"):
        fit(data, replace(QUICK, bags="director"), seed=0, progress=silent)


def test_data_without_rows_is_refused() -> None:
    """By name."""
    data = toy_dataset()

    with pytest.raises(DataError, match="toy has no interactions to train on"):
        fit(replace(data, interactions=data.interactions.take(np.zeros(0, np.int64))), QUICK, seed=0, progress=silent)
