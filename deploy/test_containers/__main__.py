"""Runs a command where containers run and reach packages, and says where they do not. Knows no test.

An engine that is started here lives as long as the command. Whatever the command exits with is what this exits with.
Where this machine cannot run containers, the command is not run: the last line says so and why, and this exits with 0.
"""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from deploy.test_containers.compose import compose_program
from deploy.test_containers.engine import MachineError, running_engine
from deploy.test_containers.reach import reach_index
from deploy.test_containers.stand_ins import base_images


def main(command: Sequence[str]) -> int:
    """Runs a command with an engine in its environment; returns its exit status, or 0 where it could not be run."""
    with ExitStack() as lifetimes:
        try:
            engine = lifetimes.enter_context(running_engine())
            compose_program(engine)
            reach_index(engine, base_images(engine).python_image)
        except MachineError as error:
            reason, _, details = str(error).partition("\n")
            sys.stdout.flush()
            print(
                f"{details.rstrip()}\nThe container tests were NOT run: {reason.rstrip(':')}".lstrip(), file=sys.stderr
            )
            return 0
        return subprocess.run(command, env=dict(engine.environment), check=False).returncode


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("python -m deploy.test_containers COMMAND...: which command?")
    sys.exit(main(sys.argv[1:]))
