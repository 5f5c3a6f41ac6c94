"""What an operator can tell feature_service to do instead of serving. Knows options, words and exit statuses.

python -m feature_service backup FOLDER | restore FOLDER | new-epoch | rewrite [--check] [--per-second N]
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from feature_service.backup import BackupError, restore_backup, take_backup
from feature_service.redis_link import RedisLink
from feature_service.state_rewriting import Rewritten, rewrite_states
from feature_service.store import StoreMarks
from feature_service.store_content import Summary
from service_runtime.errors import ServiceError
from service_runtime.reader_gone import quiet_when_reader_is_gone
from service_runtime.server import StartError

COMMANDS = ("backup", "restore", "new-epoch", "rewrite")
_TELL_EVERY_S = 5.0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Reads a command line that begins with one of `COMMANDS`; a wrong one ends the process with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m feature_service", description="The Redis is the one that the FEATURE_REDIS_… variables name."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    backup = commands.add_parser("backup", help="write a backup of the store, while it serves")
    backup.add_argument("folder", type=Path, help="a new folder")
    restore = commands.add_parser("restore", help="put a backup into an empty Redis and give it a new epoch")
    restore.add_argument("folder", type=Path, help="of the backup")
    commands.add_parser(
        "new-epoch",
        help="tell that this Redis holds older data than before: run it after every "
        "restore that was not made by `restore`",
    )
    rewrite = commands.add_parser("rewrite", help="write all users in the newest format")
    rewrite.add_argument("--check", action="store_true", help="count users by format and change nothing")
    rewrite.add_argument("--per-second", type=_rate, default=5000.0, metavar="N", help="users a second at most")
    with quiet_when_reader_is_gone():
        return parser.parse_args(arguments)


async def execute(options: argparse.Namespace, link: RedisLink) -> int:
    """Does what was asked for; returns the exit status, 1 with a message if it cannot be done."""
    try:
        await link.probe()
        if options.command == "backup":
            await _backup(link, options.folder)
        elif options.command == "restore":
            await _restore(link, options.folder)
        elif options.command == "new-epoch":
            print(f"store_epoch is {await StoreMarks(link).renew_epoch()} now")
        else:
            return await _rewrite(link, check=options.check, per_second=options.per_second)
    except (BackupError, ServiceError, StartError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


async def _backup(link: RedisLink, folder: Path) -> None:
    manifest = await take_backup(link, folder, datetime.now(UTC).isoformat(timespec="seconds"))
    size_bytes = sum(file.size_bytes for file in manifest.files)
    print(f"{folder}: {_counted(manifest.counts)}; {size_bytes:,} bytes of {len(manifest.files)} servers, read back")


async def _restore(link: RedisLink, folder: Path) -> None:
    told_at = time.monotonic()

    def tell(restored: Summary) -> None:
        nonlocal told_at
        if time.monotonic() - told_at > _TELL_EVERY_S:
            told_at = time.monotonic()
            print(f"restored so far: {_counted(restored.counts)}", file=sys.stderr)

    manifest, restored, epoch = await restore_backup(link, folder, tell)
    print(f"restored the backup of {manifest.made_at} and compared it: {_counted(restored.counts)}")
    expired = sum(manifest.counts.values()) - sum(restored.counts.values())
    if expired:
        print(f"{expired} values have expired since")
    elif f"{restored.digest:064x}" == manifest.digest:
        print(f"digest {manifest.digest} is that of the backup")
    print(f"store_epoch is {epoch} now; it was {manifest.store_epoch}")


async def _rewrite(link: RedisLink, *, check: bool, per_second: float) -> int:
    told_at = time.monotonic()

    def tell(found: Rewritten) -> None:
        nonlocal told_at
        if time.monotonic() - told_at > _TELL_EVERY_S:
            told_at = time.monotonic()
            print(f"{found.by_format.total()} users so far", file=sys.stderr)

    found = await rewrite_states(link, write=not check, per_second=per_second, clock=time.monotonic, progress=tell)
    if found.resumed:
        print("went on where an earlier run was stopped; these are the users since")
    for form, count in sorted(found.by_format.items()):
        print(f"format {form}: {count} users" if form else f"gone meanwhile: {count} users")
    if found.num_newer:
        print("error: a newer build wrote users that this one cannot read; they are as they were", file=sys.stderr)
        return 1
    return 0


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items())) or "nothing"


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return rate
