"""Fuzzes every RPC of running services: `python -m tests.fuzz.rpcs --minutes 10`. Exits 1 if something was found."""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.rpc_rounds import Verdict, fuzz
from tests.fuzz.trained_stack import QUICK, everything

SMOKE_MODELS = ("two-tower-history", "content-fc")
"""Those that fit in a second."""


def main(arguments: list[str]) -> int:
    """Runs; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long requests are sent")
    parser.add_argument("--seed", type=int, default=None, help="of the requests; a new one each time without it")
    parser.add_argument("--smoke", action="store_true", help="leave out the models that take a while to train")
    given = parser.parse_args(arguments)
    chosen = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    print(f"seed {chosen}", flush=True)
    models = SMOKE_MODELS if given.smoke else tuple(QUICK)
    with tempfile.TemporaryDirectory(prefix="marquee-fuzz-") as folder, everything(Path(folder), models) as stack:
        verdict = fuzz(stack, time.monotonic() + 60 * given.minutes, random.Random(chosen), print)
    print("\n".join(table(verdict)))
    return 1 if verdict.findings else 0


def table(verdict: Verdict) -> list[str]:
    """Returns what was sent and what came back, an RPC a line."""
    lines = [f"{'RPC':<42}{'sent':>8}{'sound':>8}{'OK':>8}  others"]
    for name, counts in verdict.counts.items():
        others = ", ".join(f"{status} {number}" for status, number in sorted(counts.statuses.items()) if status != "OK")
        short = name.removeprefix("marquee.v1.")
        lines.append(
            f"{short:<42}{counts.sent:>8}{counts.sound / counts.sent:>8.0%}{counts.statuses['OK']:>8}  {others}"
        )
    sent = verdict.total()
    sound = sum(counts.sound for counts in verdict.counts.values())
    lines.append(
        f"inputs tried: {sent:,}, of which {sound / max(1, sent):.0%} passed validation; "
        f"INTERNAL answers: {verdict.total('INTERNAL')}; UNKNOWN: {verdict.total('UNKNOWN')}; "
        f"hangs: {verdict.total('DEADLINE_EXCEEDED')}; findings: {len(verdict.findings)}"
    )
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
