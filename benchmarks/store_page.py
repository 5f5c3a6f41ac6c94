"""Writes the tables of docs/feature-store.md from benchmarks/results: what the store takes, beside others.

python benchmarks/store_page.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.result_page import head, row, source, written

PAGE = Path(__file__).parents[1] / "docs" / "feature-store.md"


def memory_table(result: dict[str, Any]) -> Iterator[str]:
    """Yields the table of bytes a user."""
    layouts = list(next(iter(result["figures"]["watched"].values())))
    yield from head(["movies watched", *layouts, *(f"{layout}, expiring" for layout in layouts)])
    for watched, found in result["figures"]["watched"].items():
        plain = [f"{found[layout]['bytes_per_user']:,}" for layout in layouts]
        yield row([f"{int(watched):,}", *plain, *(f"{found[layout]['with_ttl']:,}" for layout in layouts)])
    yield source(result, f"Redis {result['figures']['redis']}; {result['figures']['users']:,} users.")


def reads_table(result: dict[str, Any]) -> Iterator[str]:
    """Yields the table of times and processor times of reads."""
    by_size = result["figures"]["users_per_request"]
    names = list(next(iter(by_size.values())))
    yield from head(["users in a request", "", *names])
    for size, found in by_size.items():
        for title, key in (("CPU µs a user", "cpu_us_per_user_in_all"), ("p50 ms", "p50_ms"), ("p99 ms", "p99_ms")):
            yield row([size, title, *(f"{found[name][key]:,g}" for name in names)])
    figures = result["figures"]
    yield source(
        result, f"{figures['users']:,} users of {figures['entries_per_user']} events, {figures['rounds']} rounds."
    )


def load_table(result: dict[str, Any]) -> Iterator[str]:
    """Yields the table of a bulk load."""
    figures, whole = result["figures"], result["figures"]["whole"]
    yield from head(["", "loader", "feature_service", "Redis", "wall clock", "users a second"])
    for name, phase in whole["phases"].items():
        cpu = phase["cpu_us_per_user"]
        each = [f"{cpu[part]:g} µs" for part in ("loader", "feature_service", "redis")]
        yield row([f"{name}, CPU a user", *each, f"{phase['wall_s']:,g} s", f"{phase['users_per_s']:,}"])
    peak = whole["peak_memory_mib"]
    memory = [f"{peak[part]:,} MiB" for part in ("loader", "feature_service", "redis")]
    yield row(["memory at most", *memory, f"{whole['wall_s']:,g} s in all", ""])
    yield source(
        result,
        f"{figures['users']:,} users of {figures['entries_per_user']} events, {figures['calls_in_flight']} calls under "
        f"way; Redis {whole['redis']}, {whole['redis_bytes_per_user']:,} bytes a user, and an append-only file of "
        f"{whole['append_only_file_mib']:,} MiB. {whole['users_read_back_and_equal']:,} users read back are as sent.",
    )
    stopped = figures["interrupted"]
    yield (
        f"\nA loader of {stopped['users']:,} users that was killed when {stopped['users_acknowledged_when_killed']:,} "
        f"were acknowledged, and started again: {stopped['entries_skipped']:,} entries were there, "
        f"{stopped['entries_applied']:,} were written, and {stopped['users_read_back_and_equal']:,} users read back "
        "are as sent.\n"
    )


TABLES = {"redis_memory": memory_table, "feature_reads": reads_table, "bulk_load": load_table}


def main() -> None:
    """Writes the page again."""
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), TABLES), encoding="utf-8")


if __name__ == "__main__":
    main()
