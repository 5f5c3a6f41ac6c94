"""Lists that a GPU ranks are those of the CPU, to the last bit; skipped, with the reason, where there is no GPU."""

import numpy as np
import pytest
import torch

from two_tower.blockwise import BlockwiseScorer
from two_tower.permitted import Permitted
from two_tower.top_k import MovieMatrix

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine")


@pytest.mark.parametrize("num_movies", [500, 100_000])
@pytest.mark.parametrize("num_rows", [1, 7, 64])
def test_a_gpu_ranks_as_the_cpu_does(num_rows, num_movies):
    """With filters, seen movies and lists of several lengths: sums in float64 leave nothing to the device."""
    rng = np.random.default_rng(num_rows)
    vectors = torch.from_numpy(rng.standard_normal((num_movies, 96), np.float32))
    biases = torch.from_numpy(rng.standard_normal(num_movies, np.float32))
    users = torch.from_numpy(rng.standard_normal((num_rows, 96), np.float32))
    permitted = Permitted(
        rng.random((3, num_movies)) < 0.5,
        rng.integers(0, 3, num_rows),
        np.repeat(np.arange(num_rows), 100),
        rng.integers(0, num_movies, 100 * num_rows),
    )
    ks = rng.integers(1, 101, num_rows).tolist()

    on_cpu = BlockwiseScorer().rank(users, MovieMatrix.of(vectors, biases), ks, permitted)
    on_gpu = BlockwiseScorer().rank(users.cuda(), MovieMatrix.of(vectors.cuda(), biases.cuda()), ks, permitted)

    assert [row.numbers.tolist() for row in on_gpu] == [row.numbers.tolist() for row in on_cpu]
    assert [row.scores.tolist() for row in on_gpu] == [row.scores.tolist() for row in on_cpu]
