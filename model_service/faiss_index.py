"""An inverted file of compressed movie vectors by faiss, tuned to a recall. Knows vectors; knows no user and no filter.

Movies are grouped around centroids, and a search looks at the groups nearest to the user only (J. Sivic and A.
Zisserman, "Video Google", ICCV 2003); within a group it compares codes of four bits for two coordinates, by table
look-ups in registers (H. Jegou et al., "Product Quantization for Nearest Neighbor Search", PAMI 2011; F. Andre et al.,
"Cache locality is not enough", VLDB 2015). The bias of a movie is one more coordinate, which is 1 in every user.
benchmarks/results/topk_scaling.json compares it with exact search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_service.indexed_scorer import Look, UnreachableRecallError
from two_tower.top_k import MovieMatrix

_log = structlog.get_logger(__name__)

_FAISS: Any = faiss
"""Its Python classes take arrays and keywords, which its stubs do not say."""

DEPTHS = (100, 300, 1000)
"""Depths at which the recall is measured: a search reaches the next of them."""

_DEEPER = 1.25
"""Times a measured depth a search may reach: ten movies of who has seen a hundred are no deeper than a hundred."""

_CENTROIDS_PER_ROOT = 4
"""Groups for the root of the number of movies: https://github.com/facebookresearch/faiss/wiki/Guidelines-to-choose-an-index
gives 4 to 16; fewer are quicker to build."""

_TRAINED_ON = 64
"""Movies of each group that the centroids are learnt from; faiss wants 39 at least."""

_ROUNDS = 8
"""Of k-means; its own default of 10 finds no better groups."""

_SCORED_PER_MOVIE = (1.0, 1.5, 2.0, 3.0, 4.0)
_SCORED_AT_LEAST = 100
"""Codes err, so more movies are proposed than are wanted, and scored exactly: as few as the recall allows."""

_STEPS_PER_OCTAVE = 4
"""Numbers of proposals that are asked for: at most a quarter more than a row needs."""

_SKETCH_SIZE = 4
_SKETCH_TOLERANCE = 1e-3
"""Of the largest projection: smaller changes of a vector, as from another order of summing, move no movie far."""

_MORE_GROUPS = 1.4
"""Of each try the groups for the next: at most so much more is looked at than the recall needs."""

_FLOATS_AT_ONCE = 16 << 20
"""Exact scores held at once while the recall is measured: 64 MiB."""


@dataclass(frozen=True, slots=True)
class Depth:
    """What a search to a depth costs and finds.

    Attributes:
        num_groups: That are looked at.
        scored_per_movie: Movies that are scored for each one wanted, beside some for each list.
        recall: Share of the best movies that were found, measured.
    """

    num_groups: int
    scored_per_movie: float
    recall: float


class FaissIndex:
    """Proposes candidates for users; see `model_service.indexed_scorer.CandidateIndex`.

    Attributes:
        depths: By depth, ascending; as many of `DEPTHS` as reach the recall that was wanted.
    """

    def __init__(
        self,
        index: Any,
        num_movies: int,
        projection: Tensor,
        sketch: Tensor,
        depths: Mapping[int, Depth],
    ) -> None:
        """Stores an index and what was measured of it.

        Args:
            index: faiss's, over the vectors with their biases.
            num_movies: That are in it.
            projection: Random. float32 [D + 1, s]
            sketch: The vectors with their biases, projected: tells which changed. float32 [M, s]
            depths: As the attribute.
        """
        self._index = index
        self._num_movies = num_movies
        self._projection = projection
        self._sketch = sketch
        self.depths = depths

    @classmethod
    def build(
        cls, movies: MovieMatrix, users: NDArray[np.float32], min_recall: float, rng: np.random.Generator
    ) -> "FaissIndex":
        """Groups and codes the movies, and measures how many groups reach the recall; one thread is used.

        Args:
            movies: On the CPU.
            users: Vectors of users on whom the recall is measured. float32 [Q, D]
            min_recall: Share of the best 100 movies that a search must find on average.
            rng: Picks what is learnt from.

        Raises:
            UnreachableRecallError: Not even all groups give the recall.
        """
        if not len(users):
            raise UnreachableRecallError("the checkpoint makes no user vector to measure the recall on")
        # Of this thread alone: the others answer meanwhile.
        faiss.omp_set_num_threads(1)
        vectors = _with_biases(movies.vectors.numpy(), movies.biases.numpy())  # [M, D']
        num_movies, width = vectors.shape
        num_groups = max(1, min(int(_CENTROIDS_PER_ROOT * num_movies**0.5), num_movies // _TRAINED_ON))
        index: Any = faiss.index_factory(width, f"IVF{num_groups},PQ{width // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
        # Codes of what is left beside the centroid err less, and cost a product of two vectors no more.
        index.by_residual = True
        index.cp.niter = _ROUNDS
        index.cp.seed = int(rng.integers(1 << 31))
        sample = rng.choice(num_movies, min(num_movies, num_groups * _TRAINED_ON), replace=False)
        index.train(vectors[np.sort(sample)])
        index.add(vectors)
        projection = torch.from_numpy(rng.standard_normal((movies.vectors.shape[-1] + 1, _SKETCH_SIZE), np.float32))
        built = cls(index, num_movies, projection, _sketch(movies, projection), {})
        built.depths = built._measure(movies, users, min_recall)
        if not built.depths:
            raise UnreachableRecallError(f"looking at all {num_groups} groups finds less than {min_recall:g}")
        told = {
            depth: (each.num_groups, each.scored_per_movie, round(each.recall, 4))
            for depth, each in built.depths.items()
        }
        _log.info("index", num_movies=num_movies, num_groups=num_groups, depths=told)
        return built

    @property
    def size_bytes(self) -> int:
        """What it takes of memory."""
        return int(_FAISS.serialize_index(self._index).nbytes) + self._sketch.nbytes

    def look_for(self, k: int, num_excluded: int, depth: float) -> Look | None:
        """Decides as `CandidateIndex.look_for` says."""
        for each, reached in self.depths.items():
            if each * _DEEPER >= depth:
                # What is excluded may be among the best: the rest must be found as well as in a list of all of them.
                num_scored = _num_scored(k + num_excluded, reached.scored_per_movie)
                return Look(reached.num_groups, _rounded(num_scored + num_excluded), num_scored)
        return None

    def propose(self, users: NDArray[np.float32], look: Look, allowed: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Proposes as `CandidateIndex.propose` says."""
        # What the index was built without is never proposed; faiss reads no bit beyond those of its own movies.
        selector = _FAISS.IDSelectorBitmap(allowed)
        wanted = _FAISS.SearchParametersIVF(sel=selector, nprobe=look.num_groups)
        asked = _with_biases(users, np.ones(len(users), np.float32))  # [B, D']
        _, numbers = self._index.search(asked, min(look.num_proposed, self._num_movies), params=wanted)
        proposed: NDArray[np.int64] = numbers  # [B, P]
        return proposed

    def stale(self, movies: MovieMatrix) -> NDArray[np.int64]:
        """Compares as `CandidateIndex.stale` says."""
        now = _sketch(movies, self._projection)  # [M, s]
        both = min(len(now), self._num_movies)
        reach = float(self._sketch.abs().max())
        changed = (now[:both] - self._sketch[:both]).abs().amax(dim=-1) > _SKETCH_TOLERANCE * reach  # [both]
        return np.concatenate([np.flatnonzero(changed.numpy()), np.arange(both, len(now))]).astype(np.int64)

    def _measure(self, movies: MovieMatrix, users: NDArray[np.float32], min_recall: float) -> dict[int, Depth]:
        """Returns for each depth the least number of groups that reaches the recall; deeper ones need more."""
        depths = [depth for depth in DEPTHS if depth <= self._num_movies] or [self._num_movies]
        bars = _scores_at(movies, users, depths)  # [Q, depths]
        everything = np.full(self._num_movies // 8 + 1, 255, np.uint8)
        measured: dict[int, Depth] = {}
        num_groups = 1
        for depth, bar in zip(depths, bars.T, strict=True):
            widths = [_num_scored(depth, each) for each in _SCORED_PER_MOVIE]
            while True:
                proposed = self.propose(users, Look(num_groups, widths[-1], widths[-1]), everything)  # [Q, P]
                recalls = _recalls(movies, users, proposed, bar, depth, widths)
                if recalls[-1] >= min_recall:
                    fewest = next(place for place, recall in enumerate(recalls) if recall >= min_recall)
                    measured[depth] = Depth(num_groups, _SCORED_PER_MOVIE[fewest], recalls[fewest])
                    break
                if num_groups >= self._index.nlist:
                    return measured
                num_groups = min(self._index.nlist, max(num_groups + 1, int(num_groups * _MORE_GROUPS)))
        return measured


def _num_scored(k: int, per_movie: float) -> int:
    return int(per_movie * k) + _SCORED_AT_LEAST


def _rounded(num: int) -> int:
    """Returns the next of a few numbers, so that rows with about as many exclusions are looked up together."""
    step = max(1, (1 << num.bit_length()) // _STEPS_PER_OCTAVE // 2)
    return -(-num // step) * step


def _recalls(
    movies: MovieMatrix,
    users: NDArray[np.float32],
    proposed: NDArray[np.int64],
    bar: NDArray[np.float32],
    depth: int,
    widths: Sequence[int],
) -> list[float]:
    """Returns the share of the best movies, those that reach the users' bars, among so many of the first proposed."""
    vectors, biases = movies.vectors.numpy(), movies.biases.numpy()  # [M, D], [M]
    found = np.zeros(len(widths), np.int64)
    for user, numbers, lowest in zip(users, proposed, bar, strict=True):
        reached = (vectors.take(numbers, axis=0) @ user + biases[numbers] >= lowest) & (numbers >= 0)  # [P]
        # More than are wanted reach the bar where scores are equal.
        found += [min(depth, int(np.count_nonzero(reached[:width]))) for width in widths]
    return [int(each) / (depth * len(users)) for each in found]


def _with_biases(vectors: NDArray[np.float32], biases: NDArray[np.float32]) -> NDArray[np.float32]:
    """Appends the bias, and a zero where that makes the width even: codes are of two coordinates each. [n, D']."""
    size, width = vectors.shape
    joined = np.zeros((size, width + 1 + (width + 1) % 2), np.float32)
    joined[:, :width] = vectors
    joined[:, width] = biases
    return joined


def _sketch(movies: MovieMatrix, projection: Tensor) -> Tensor:
    sketch: Tensor = movies.vectors @ projection[:-1] + movies.biases[:, None] * projection[-1]  # [M, s]
    return sketch


def _scores_at(movies: MovieMatrix, users: NDArray[np.float32], depths: Sequence[int]) -> NDArray[np.float32]:
    """Returns the score of the nth best movie of each user, less what rounding may add. float32 [Q, depths]."""
    vectors, biases = movies.vectors.numpy(), movies.biases.numpy()  # [M, D], [M]
    at_once = max(1, _FLOATS_AT_ONCE // len(vectors))
    places = [len(vectors) - depth for depth in depths]
    bars = [
        np.partition(users[start : start + at_once] @ vectors.T + biases, places, axis=-1)[:, places]
        for start in range(0, len(users), at_once)
    ]
    margins = movies.margin(np.linalg.norm(users.astype(np.float64), axis=-1))  # [Q]
    return (np.concatenate(bars) - margins[:, None]).astype(np.float32)
