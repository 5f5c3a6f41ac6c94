"""An inverted file of compressed movie vectors by faiss, tuned to a recall. Knows vectors; knows no user and no filter.

Movies are grouped around centroids, and a search looks at the groups nearest to the user only (J. Sivic and A.
Zisserman, "Video Google", ICCV 2003); within a group it compares codes of four bits for two coordinates, by table
look-ups in registers (H. Jegou et al., "Product Quantization for Nearest Neighbor Search", PAMI 2011; F. Andre et al.,
"Cache locality is not enough", VLDB 2015). The bias of a movie is one more coordinate, which is 1 in every user. With a
filter, the groups are those that hold most of what it lets through near the user: see `model_service.group_choice`.
benchmarks/results/topk_scaling.json compares it with exact search.
"""

from typing import Any

import faiss
import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_service.group_choice import Groups
from model_service.indexed_scorer import Look, UnreachableRecallError
from model_service.reaches import Measuring, Reaches
from two_tower.top_k import MovieMatrix

_log = structlog.get_logger(__name__)

_FAISS: Any = faiss
"""Its Python classes take arrays and keywords, which its stubs do not say."""

_CENTROIDS_PER_ROOT = 4
"""Groups for the root of the number of movies: https://github.com/facebookresearch/faiss/wiki/Guidelines-to-choose-an-index
gives 4 to 16; fewer are quicker to build."""

_TRAINED_ON = 64
"""Movies of each group that the centroids are learnt from; faiss wants 39 at least."""

_ROUNDS = 8
"""Of k-means; its own default of 10 finds no better groups."""

_FILTERS_REMEMBERED = 64
"""At a million movies 10 MB: 125 kB of bits and 32 of counts each."""

_SKETCH_SIZE = 4
_SKETCH_TOLERANCE = 1e-3
"""Of the largest projection: smaller changes of a vector, as from another order of summing, move no movie far."""


class FaissIndex:
    """Proposes candidates for users; see `model_service.indexed_scorer.CandidateIndex`.

    Attributes:
        groups: Its own, of movies.
        reaches: What was measured of it.
    """

    def __init__(self, index: Any, groups: Groups, projection: Tensor, sketch: Tensor) -> None:
        """Stores an index of which nothing is measured.

        Args:
            index: faiss's, over the vectors with their biases.
            groups: Its own.
            projection: Random. float32 [D + 1, s]
            sketch: The vectors with their biases, projected: tells which changed. float32 [M, s]
        """
        self._index = index
        self.groups = groups
        self._num_movies = len(sketch)
        self._projection = projection
        self._sketch = sketch
        self._counts: dict[bytes, NDArray[np.int64]] = {}
        self.reaches = Reaches(self._num_movies)

    @classmethod
    def build(
        cls, movies: MovieMatrix, users: NDArray[np.float32], min_recall: float, rng: np.random.Generator
    ) -> "FaissIndex":
        """Groups and codes the movies, and measures how many groups reach the recall; one thread is used.

        Args:
            movies: On the CPU.
            users: Vectors of users on whom the recall is measured. float32 [Q, D]
            min_recall: Share of the best movies that a search must find on average.
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
        centroids = index.quantizer.reconstruct_n(0, num_groups)  # [G, D']
        groups = Groups.measured(vectors, centroids, _group_of(index, num_movies), rng)
        del vectors
        built = cls(index, groups, projection, _sketch(movies, projection))
        reaches = Measuring(built.propose, num_groups, movies, users, min_recall).reaches(rng)
        if not reaches.depths:
            raise UnreachableRecallError(f"looking at all {num_groups} groups finds less than {min_recall:g}")
        built.reaches = reaches
        told = {
            depth: (each.num_groups, each.num_scored, round(each.recall, 4)) for depth, each in reaches.depths.items()
        }
        told_filtered = {
            f"{share:g} at {depth}": (each.coverage, each.num_scored, round(each.recall, 4))
            for (share, depth), each in reaches.filtered.items()
        }
        _log.info("index", num_movies=num_movies, num_groups=num_groups, depths=told, filtered=told_filtered)
        return built

    @property
    def size_bytes(self) -> int:
        """What it takes of memory."""
        return int(_FAISS.serialize_index(self._index).nbytes) + self._sketch.nbytes + self.groups.size_bytes

    def look_for(self, k: int, num_excluded: int, num_allowed: int) -> Look | None:
        """Decides as `CandidateIndex.look_for` says."""
        return self.reaches.look_for(k, num_excluded, num_allowed)

    def propose(self, users: NDArray[np.float32], look: Look, allowed: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Proposes as `CandidateIndex.propose` says."""
        # What the index was built without is never proposed; faiss reads no bit beyond those of its own movies.
        selector = _FAISS.IDSelectorBitmap(allowed)
        asked = _with_biases(users, np.ones(len(users), np.float32))  # [B, D']
        num_proposed = min(look.num_proposed, self._num_movies)
        if look.num_groups:
            wanted = _FAISS.SearchParametersIVF(sel=selector, nprobe=look.num_groups)
            proposed: NDArray[np.int64] = self._index.search(asked, num_proposed, params=wanted)[1]  # [B, P]
            return proposed
        groups, scores = self.groups.choose(asked, look.num_wanted, look.coverage, self._counts_of(allowed))
        wanted = _FAISS.SearchParametersIVF(sel=selector, nprobe=groups.shape[-1])
        found = np.empty((len(users), num_proposed), np.float32)  # [B, P]
        proposed = np.full(found.shape, -1, np.int64)  # [B, P]
        # Its Python method takes no parameters.
        pointers = [_FAISS.swig_ptr(each) for each in (asked, groups, scores, found, proposed)]
        self._index.search_preassigned_c(len(users), pointers[0], num_proposed, *pointers[1:], False, wanted)
        return proposed

    def _counts_of(self, allowed: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Returns how many movies of each group a filter lets through; filters of late are remembered. [G]."""
        key = allowed.tobytes()
        counts = self._counts.pop(key, None)
        if counts is None:
            bits = np.unpackbits(allowed, bitorder="little")[: self._num_movies]  # [M]
            counts = self.groups.counts(bits.view(np.bool_))
            while len(self._counts) >= _FILTERS_REMEMBERED:
                del self._counts[next(iter(self._counts))]
        self._counts[key] = counts
        return counts

    def stale(self, movies: MovieMatrix) -> NDArray[np.int64]:
        """Compares as `CandidateIndex.stale` says."""
        now = _sketch(movies, self._projection)  # [M, s]
        both = min(len(now), self._num_movies)
        reach = float(self._sketch.abs().max())
        changed = (now[:both] - self._sketch[:both]).abs().amax(dim=-1) > _SKETCH_TOLERANCE * reach  # [both]
        return np.concatenate([np.flatnonzero(changed.numpy()), np.arange(both, len(now))]).astype(np.int64)


def _group_of(index: Any, num_movies: int) -> NDArray[np.integer]:
    """Returns the group of each movie. [M]."""
    groups: NDArray[np.integer] = np.zeros(num_movies, np.uint16 if index.nlist <= 1 << 16 else np.int32)
    for group in range(index.nlist):
        size = index.invlists.list_size(group)
        if size:
            groups[_FAISS.rev_swig_ptr(index.invlists.get_ids(group), size)] = group
    return groups


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
