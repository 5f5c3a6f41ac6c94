"""Cuts give the past and ask for what follows."""

import numpy as np
import pytest
import torch

from trainer.dataset import Interactions
from trainer.fits.two_tower_losses import log_inclusion, softmax_loss
from trainer.fits.two_tower_sequences import CutOptions, Cuts, Sequences


def rows_of(sizes: list[int], step: int = 1) -> Interactions:
    """Users with so many events; an event's movie is its number, and `step` events share a moment."""
    users = np.repeat(np.arange(len(sizes)), sizes)
    events = np.concatenate([np.arange(size) for size in sizes])
    return Interactions(
        users.astype(np.int32), events.astype(np.int32), events.astype(np.float32), (events // step).astype(np.int64)
    )


def cut(rows: Interactions, num_users: int, *, ordered: bool = True, **changes: object) -> Cuts:
    options = {"window": 5, "cuts": 30, "num_next": 3, "num_rated": 4, "hide_ties": True} | changes
    sequences = Sequences.of(rows, num_users, ordered=ordered)
    return sequences.cut(np.arange(num_users), CutOptions(**options), np.random.default_rng(0))  # type: ignore[arg-type]


def test_every_place_of_a_short_history_is_cut_once() -> None:
    """A place before each event; what is beyond a history's end is not used."""
    cuts = cut(rows_of([4, 2]), 2)

    assert sorted(cuts.places[0][cuts.used[0]].tolist()) == [0, 1, 2, 3]
    assert sorted(cuts.places[1][cuts.used[1]].tolist()) == [0, 1]
    assert cuts.movies[0, :4].tolist() == [0, 1, 2, 3]
    assert np.isnan(cuts.ratings[1, 2:]).all()


def test_ties_are_hidden_from_each_other_or_drawn_into_an_order() -> None:
    """Hidden, a cut gives whole moments only; drawn, every event before its place."""
    hidden, drawn = cut(rows_of([6], step=3), 1), cut(rows_of([6], step=3), 1, hide_ties=False)

    assert (hidden.given == hidden.places // 3 * 3).all()
    assert (drawn.given == drawn.places).all()
    assert set(hidden.movies[0, :3].tolist()) == {0, 1, 2}


def test_of_a_long_history_a_stretch_is_looked_at_that_leaves_a_window_before_each_cut() -> None:
    """A stretch of two windows; only one that begins at the beginning has cuts with less before them."""
    rows = rows_of([100])
    for seed in range(20):
        sequences = Sequences.of(rows, 1, ordered=True)
        cuts = sequences.cut(np.array([0]), CutOptions(5, 30, 3, 4, True), np.random.default_rng(seed))
        movies = cuts.movies[0]

        assert len(movies) == 10
        assert (np.diff(movies) == 1).all()
        assert cuts.used.any()
        assert movies[0] == 0 or (cuts.places[cuts.used] >= 5).all()


def test_without_times_a_sample_is_looked_at_in_a_drawn_order() -> None:
    """All events come up in the end, none twice at once."""
    rows = rows_of([40])
    rows.event_times_ms[:] = 0
    seen: set[int] = set()
    for seed in range(30):
        sequences = Sequences.of(rows, 1, ordered=False)
        movies = sequences.cut(np.array([0]), CutOptions(5, 30, 3, 4, True), np.random.default_rng(seed)).movies[0]
        assert len(set(movies.tolist())) == 10
        seen |= set(movies.tolist())

    assert seen == set(range(40))


def test_ratings_are_asked_for_from_the_place_on() -> None:
    """Never of an event that was given."""
    cuts = cut(rows_of([9, 3]), 2)

    assert (cuts.rated >= cuts.places[..., None]).all()
    assert (cuts.rated < cuts.lengths[:, None, None]).all()


def test_rows_in_any_order_are_sorted() -> None:
    """By user and time."""
    rows = rows_of([3, 4, 2])
    shuffled = rows.take(np.random.default_rng(0).permutation(9))

    sequences = Sequences.of(shuffled, 3, ordered=True)

    assert sequences.starts.tolist() == [0, 3, 7, 9]
    assert sequences.rows.movie_rows.tolist() == rows.movie_rows.tolist()


def test_the_softmax_loss_and_its_gradient_are_those_of_torch() -> None:
    """Masked movies take no part; a query without targets adds nothing."""
    generator = torch.Generator().manual_seed(0)
    users, vectors, biases = (torch.randn(shape, generator=generator) for shape in ((4, 3), (6, 3), (6,)))
    masked = (torch.tensor([0, 1]), torch.tensor([2, 5]))
    targets = (torch.tensor([0, 0, 2]), torch.tensor([1, 4, 0]))
    weights = torch.tensor([1.0, 0.4, 0.7])

    def plain(users: torch.Tensor, vectors: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
        scores = users @ vectors.T + biases
        scores = scores.index_put(masked, torch.tensor(-1e4))
        return -(weights * torch.log_softmax(scores, dim=-1)[targets]).sum()

    def ours(users: torch.Tensor, vectors: torch.Tensor, biases: torch.Tensor) -> torch.Tensor:
        return softmax_loss(users, vectors, biases, masked, targets, weights)

    found = []
    for loss in (plain, ours):
        leaves = [tensor.clone().requires_grad_() for tensor in (users, vectors, biases)]
        value = loss(*leaves)
        (2 * value).backward()
        found.append([value.detach(), *(leaf.grad for leaf in leaves)])

    for some, other in zip(*found, strict=True):
        assert torch.allclose(some, other, atol=1e-5)


def test_the_chance_to_be_drawn_is_one_for_what_is_always_drawn() -> None:
    """And about draws x frequency for what is rare."""
    found = torch.exp(log_inclusion(torch.tensor([0.9, 1e-5]), 100))

    assert found.tolist() == pytest.approx([1.0, 1e-3], rel=1e-3)
