"""Keeps Redis and both services running until Ctrl-C; first trains, unless something is trained or the demo did it."""

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from deploy.local import demo
from deploy.local.processes import StackError
from deploy.local.stack import LocalStack
from deploy.local.trainer_commands import make_available, run_trainer
from two_tower.checkpoint import load
from two_tower.registry import STABLE, Registry

FOLDER = Path(".run/up")
FEATURE_ADDRESS = "127.0.0.1:50051"
MODEL_ADDRESS = "127.0.0.1:50052"
OTHER_PORTS = {
    "FEATURE_METRICS_LISTEN": "127.0.0.1:51051",
    "MODEL_METRICS_LISTEN": "127.0.0.1:51052",
    "MODEL_ADMIN_LISTEN": "127.0.0.1:50053",
}
"""Those that pages name; the environment goes before them."""


def take_over_demo(console: Console, data: Path, registry: Registry) -> None:
    """Copies made-up data and what a demo trained on them, so that nobody waits for the same training twice.

    Nothing is copied if there is no such demo, or if there is anything in the two places already. What the demo
    published stays with it: that was another store.
    """
    made, trained = demo.FOLDER / "data", Registry(demo.FOLDER / "registry")
    version = trained.label(STABLE)
    if version not in trained.versions() or not made.exists() or data.exists() or registry.versions():
        return
    for source, target in ((made, data), (trained.path / version, registry.path / version)):
        aside = target.with_name(f".{target.name}.partial-{os.getpid()}")
        shutil.copytree(source, aside)
        aside.rename(target)
    registry.set_label(STABLE, version, reason="trained by make demo")
    console.print(f"Taken over from {demo.FOLDER}: what make demo made up and trained", highlight=False)


def prepare(console: Console, registry: Registry, data: str | None) -> tuple[str, str]:
    """Makes sure that there are data and a checkpoint; returns the data and the version that `stable` names."""
    if data is None:
        take_over_demo(console, FOLDER / "data", registry)
    data = make_available(console, data, FOLDER / "data")
    if registry.label(STABLE) is None:
        run_trainer(console, "train", "--data", data, "--registry", str(registry.path))
    version = registry.label(STABLE)
    if version is None:
        raise StackError(f"training left no label {STABLE!r} in {registry.path}")
    return data, version


def serve(console: Console, data: str | None) -> None:
    """Runs the stack until it is interrupted.

    Raises:
        StackError: A step failed or a service ended; the message says which.
        KeyboardInterrupt: Somebody asked to stop; everything is stopped.
    """
    folder = FOLDER if data is None else FOLDER.with_name(f"{FOLDER.name}-{Path(data).resolve().name}")
    registry = Registry(folder / "registry")
    stack = LocalStack(folder, registry.path, FEATURE_ADDRESS, MODEL_ADDRESS, OTHER_PORTS)
    data, version = prepare(console, registry, data)
    # Row 0 stands for the unknown.
    user_id = load(registry.path_of(version)).model.vocabularies()["users"][1]
    with stack.feature_service() as feature_service:
        run_trainer(
            console,
            *("publish", "--registry", str(registry.path), "--checkpoint", version),
            *("--data", data, "--feature-service", stack.feature_address),
        )
        with stack.model_service() as model_service:
            console.print(
                f"\nfeature_service on [bold]{FEATURE_ADDRESS}[/], model_service on [bold]{MODEL_ADDRESS}[/], "
                f"logs in {folder / 'logs'}. Try, in another terminal:\n"
                f"  [bold].venv/bin/python -m trainer topk --user {user_id} -k 10[/]\n"
                "Ctrl-C stops everything.",
                highlight=False,
                soft_wrap=True,
            )
            while True:
                feature_service.raise_if_ended()
                model_service.raise_if_ended()
                time.sleep(1.0)


def main() -> int:
    """Parses the command line and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="a folder, a zip or the name of a MovieLens set; synthetic data if absent")
    arguments = parser.parse_args()
    console = Console()
    # SIGTERM ends this process as Ctrl-C does: through the contexts that stop the services.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        serve(console, arguments.data)
    except StackError as error:
        console.print(f"[red]{error}[/]", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
