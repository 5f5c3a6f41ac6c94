"""Shows the whole of Marquee once: data, training, serving, asking. Leaves nothing running."""

import argparse
import shutil
import signal
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.local.processes import StackError
from deploy.local.stack import LocalStack
from deploy.local.trainer_commands import make_available, run_trainer
from two_tower.checkpoint import Checkpoint, load
from two_tower.registry import STABLE, Registry

LABELS = {"marquee": STABLE, "two-tower-history": "two-tower-history"}
"""By model. The first has the label that everything else looks for when it is told nothing else."""
FOLDER = Path(".run/demo")


def show_metrics(console: Console, checkpoints: list[Checkpoint]) -> None:
    """Prints what each checkpoint is worth on rows that it was not trained on."""
    table = Table(title=f"On held-out ratings ({checkpoints[0].manifest.metrics.protocol})")
    table.add_column("model")
    for heading in ("RMSE", "MAE", "NDCG@10", "Recall@10"):
        table.add_column(heading, justify="right")
    for checkpoint in checkpoints:
        metrics = checkpoint.manifest.metrics
        figures = (metrics.rmse, metrics.mae, metrics.ndcg_at_10, metrics.recall_at_10)
        table.add_row(checkpoint.manifest.model, *("-" if figure is None else f"{figure:.4f}" for figure in figures))
    console.print(table)


def show_next_steps(console: Console, asked_for: str | None, data: str) -> None:
    """Prints three commands that are worth trying after this.

    Args:
        console: Where to.
        asked_for: Data that the demo was told to use; None if it made some up, which `make up` takes over trained.
        data: Data that it used.
    """
    up = "make up" if asked_for is None else f"make up DATA={asked_for}"
    console.print(
        "\nNothing is left running. Three things to try next:\n"
        f"  [bold]{up}[/]   keeps Redis and both services running until Ctrl-C\n"
        "  [bold].venv/bin/python -m trainer topk --help[/]   genres, variety, reasons: ask the running services\n"
        f"  [bold].venv/bin/python -m trainer inspect {data}[/]   what a data set holds, and what to run on it",
        highlight=False,
        soft_wrap=True,
    )


def demo(console: Console, data: str | None) -> None:
    """Runs everything once in `FOLDER`, which is emptied first.

    Raises:
        StackError: A step failed; the message says which.
    """
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    registry = Registry(FOLDER / "registry")
    asked_for = data
    data = make_available(console, data, FOLDER / "data")
    for model, label in LABELS.items():
        run_trainer(
            console, "train", "--data", data, "--registry", str(registry.path), "--model", model, "--label", label
        )
    checkpoints = [load(registry.path_of(registry.labels()[label])) for label in LABELS.values()]
    stack = LocalStack.on_free_ports(FOLDER, registry.path)
    # Row 0 stands for the unknown.
    user_id = checkpoints[0].model.vocabularies()["users"][1]
    movie_id = checkpoints[0].model.vocabularies()["movies"][1]
    with stack.feature_service():
        # Both models were trained on the same rows, so one publication serves both.
        run_trainer(
            console,
            *("publish", "--registry", str(registry.path), "--checkpoint", checkpoints[0].version),
            *("--data", data, "--feature-service", stack.feature_address),
        )
        for label in LABELS.values():
            with stack.model_service(label=label):
                asked = ("--model-service", stack.model_address, "--user", user_id)
                run_trainer(console, "predict", *asked, "--movie", movie_id)
                run_trainer(console, "topk", *asked, "-k", "10")
    show_metrics(console, checkpoints)
    show_next_steps(console, asked_for, data)


def main() -> int:
    """Parses the command line, runs the demo and says how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a folder, a zip or the name of a MovieLens set; synthetic data if absent")
    arguments = parser.parse_args()
    console = Console()
    # SIGTERM ends this process as Ctrl-C does: through the contexts that stop the services.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start_s = time.monotonic()
    try:
        demo(console, arguments.data)
    except StackError as error:
        console.print(f"[red]{error}[/]", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    console.print(f"\n[dim]The demo took {time.monotonic() - start_s:.0f} s.[/]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
