"""What does a further worker of model_service take of memory, over a small catalogue and a large one?

    python benchmarks/worker_memory.py

Pss, which counts shared pages by their share, of one process alone, and of a parent with two and three workers, once
all have loaded; what the last worker added is the price of one more. Beside it stands what a worker keeps of the movies
as matrices: it is what workers could share. Nobody asks meanwhile, so that near caches are empty.
"""

import time
from typing import Any

from rich.console import Console

from benchmarks.prepared import SMOKE, Prepared, prepare
from benchmarks.process_usage import pss_with_children_bytes
from benchmarks.record import record
from deploy.local.processes import ServiceProcess, free_address
from deploy.local.stack import LocalStack
from model_service.catalogue import Catalogue, CatalogueMovie
from model_service.generation import Generation
from trainer.synthesis import SynthesisPlan
from two_tower.checkpoint import load

MODEL, WIDER = "two-tower-history", "marquee"
CATALOGUES = (4000, 50_000)
WORKERS = (1, 2, 3)
_STILL_S = 10.0
_STILL_SHARE = 0.01
_PATIENCE_S = 180.0
_MIB = 1 << 20


def settled_bytes(pid: int) -> int:
    """Returns the Pss of a process and its children once it has stood still for some seconds."""
    deadline = time.monotonic() + _PATIENCE_S
    since, known = time.monotonic(), pss_with_children_bytes(pid)
    while time.monotonic() - since < _STILL_S:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the memory of process {pid} does not stand still")
        time.sleep(0.5)
        now = pss_with_children_bytes(pid)
        if abs(now - known) > _STILL_SHARE * known:
            since, known = time.monotonic(), now
    return known


def of_workers(stack: LocalStack, workers: int) -> int:
    """Returns what model_service takes with so many workers."""
    settings = {
        "MODEL_LISTEN": free_address(),
        "MODEL_METRICS_LISTEN": "off",
        "MODEL_ADMIN_LISTEN": "off",
        "MODEL_WORKERS": str(workers),
        "MODEL_REGISTRY": str(stack.registry),
        "MODEL_FEATURE_SERVICE": stack.feature_address,
        "MODEL_DEVICE": "cpu",
    }
    log = stack.folder / f"model_service of {workers}.log"
    with ServiceProcess("model_service", settings["MODEL_LISTEN"], settings, log) as process:
        process.wait_until_serving(_PATIENCE_S)
        assert process.pid is not None
        return settled_bytes(process.pid)


def of_matrices(prepared: Prepared) -> int:
    """Returns what a generation keeps of the movies on top of the checkpoint: each tensor once."""
    movies = prepared.data.movies.movie_ids
    catalogue = Catalogue.empty("c").with_changes(
        (CatalogueMovie(number, movie_id) for number, movie_id in enumerate(movies)), 1
    )
    heads = Generation.build(load(prepared.checkpoint, "cpu"), catalogue).heads
    embeddings = heads.movies
    kept = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in (
            *(embeddings.rating_vectors, embeddings.rating_biases, embeddings.ranking_vectors),
            *(embeddings.ranking_biases, heads.cosines.vectors, heads.cosines.biases),
        )
    }
    return sum(kept.values())


def main() -> None:
    """Measures, prints and records."""
    console = Console(width=160)
    figures: dict[str, Any] = {"model": MODEL}
    for num_movies in CATALOGUES:
        prepared = prepare(MODEL, SynthesisPlan(num_users=2000, num_movies=num_movies, num_ratings=100_000, seed=3))
        with prepared.stack() as (stack, _):
            taken = {workers: of_workers(stack, workers) for workers in WORKERS}
        matrices = of_matrices(prepared)
        told = {f"{workers} workers, mib": round(each / _MIB, 1) for workers, each in taken.items()}
        told["one more worker, mib"] = round((taken[3] - taken[2]) / _MIB, 1)
        told["matrices of the movies, mib"] = round(matrices / _MIB, 1)
        told["matrices, bytes a movie"] = round(matrices / num_movies)
        figures[f"{num_movies} movies"] = told
        console.print(num_movies, told)
    figures[f"matrices of {WIDER}, bytes a movie"] = round(of_matrices(prepare(WIDER, SMOKE)) / SMOKE.num_movies)
    console.print(f"written to {record('worker_memory', figures).name}")


if __name__ == "__main__":
    main()
