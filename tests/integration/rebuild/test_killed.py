"""A rebuild that was killed at whatever step is gone on with, and what it made is neither lost nor made twice."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.integration.rebuild import killed
from tests.integration.rebuild.looped import PLAN, Looped, utc_now
from trainer.rebuild.journal import Journal
from trainer.rebuild.lock import BusyError, only_one
from two_tower import checkpoint as checkpoints

STEPS = (
    "snapshot",
    "journal of snapshot",
    "position",
    "candidate",
    "journal of candidate",
    "comparison",
    "refit",
    "journal of refit",
    "label",
)


def test_kill_9_at_each_step(looped: Looped, store_address: str) -> None:
    """SIGKILL, and again: the label moved once, to a checkpoint of all rows, and nothing lies about."""
    looped.begin()
    looped.feed(looped.new)

    done = subprocess.run(
        [sys.executable, "-m", killed.__name__, str(looped.registry.path), store_address, *STEPS],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GRPC_ENABLE_FORK_SUPPORT": "0"},
    )

    assert done.returncode == 0, done.stderr
    told: dict[str, dict[str, Any]] = dict(zip(STEPS, map(json.loads, done.stdout.splitlines()), strict=True))
    for step, each in told.items():
        # The snapshot before, this one; and once more where the journal did not know yet that it was there.
        num_snapshots = 3 if step == "snapshot" else 2
        assert each == {
            "statuses": [-9, 0],
            "under_way": False,
            "outcomes": ["promoted"],
            "label": True,
            "label_changes": 2,
            "snapshots": num_snapshots,
            "rows": 2250,
            "versions": 3,
            "partial": [],
        }, step


def test_what_was_interrupted_is_given_up_where_something_else_is_wanted(looped: Looped) -> None:
    """The journal says so, and what it had made goes."""

    def told(step: str) -> None:
        if step == "journal of candidate":
            raise KeyboardInterrupt

    before = looped.begin()
    looped.feed(looped.new)
    with pytest.raises(KeyboardInterrupt):
        looped.rebuild(told=told)
    given_up = set(looped.registry.versions()) - {before}

    result = looped.rebuild(replace(PLAN, model="popular"))

    outcomes = [each.outcome for each in Journal(looped.registry).read().results]
    assert outcomes == ["failed", result.outcome]
    assert len(given_up) == 1
    assert not given_up & set(looped.registry.versions())


def test_what_other_options_made_is_not_taken_for_what_is_wanted(looped: Looped) -> None:
    """Not even where the clock was set back in between, so that the checkpoint seems to be of this rebuild."""

    def told(step: str) -> None:
        if step == "refit":
            raise KeyboardInterrupt

    looped.begin()
    looped.feed(looped.new)
    with pytest.raises(KeyboardInterrupt):
        looped.rebuild(replace(PLAN, forced="once", options=("sweeps=3",)), told=told)

    result = looped.rebuild(
        replace(PLAN, forced="again", options=("sweeps=4",)), now=lambda: utc_now() - timedelta(hours=1)
    )

    assert result.version is not None
    manifest = checkpoints.read_manifest(looped.registry.path_of(result.version))
    assert manifest.options["sweeps"] == 4


def test_never_twice_at_once(looped: Looped) -> None:
    """A second one is refused while the first is under way, and not once that has ended, however it ended."""
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\n"
            "from filelock import FileLock\n"
            "lock = FileLock(sys.argv[1])\n"
            "lock.acquire()\n"
            "print('held', flush=True)\n"
            "time.sleep(600)\n",
            str(looped.registry.path / ".rebuild.lock"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match="being rebuilt by another process"), only_one(looped.registry):
            pass
    finally:
        holder.kill()
        holder.wait(30)
        assert holder.stdout is not None
        holder.stdout.close()

    with only_one(looped.registry):
        pass
