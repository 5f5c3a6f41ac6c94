"""Writes the tables and the plot of docs/performance.md from benchmarks/results: what an answer costs, beside others.

python benchmarks/performance_page.py
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.prepared import MODELS
from benchmarks.record import RESULTS
from benchmarks.result_page import head, row, source, written

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
PLOT = PAGE.with_suffix(".svg")
_MEASURED = {
    "cpu_us": "CPU µs",
    "per_s": "a second",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
}
_STEADY = {"steady_p50_ms": "p50 at 200/s", "steady_p99_ms": "p99", "steady_p999_ms": "p99.9"}
_SHOWN = "PredictRating"
_NOT_SERVICES = ("interactive and bulk", "rounds")


def paths_table(result: dict[str, Any]) -> Iterator[str]:
    """Yields the table of what answers cost by their way."""
    figures = result["figures"]
    names = {"cpu_us": "CPU µs", "times_empty": "x empty", **_MEASURED, "p999_ms": "p99.9 ms", **_STEADY}
    yield from head(["", *names.values()])
    for case, measured in figures["cases"].items():
        yield row([case, *_cells(measured, names)])
    memory = ", ".join(f"{name} {mib} MiB" for name, mib in figures["pss_mib"].items())
    yield source(
        result,
        f"{figures['users']:,} users, {figures['movies']:,} movies, {figures['rounds']} rounds. Pss: {memory}.",
    )


def cost_table(result: dict[str, Any]) -> Iterator[str]:
    """Yields the table of what answers about 100,000 users cost, with the share of them found near."""
    names = {
        "cpu_us": "CPU µs",
        "times_empty": "x empty",
        "answers_per_s": "a second",
        "p50_ms": "p50 ms",
        "p99_ms": "p99 ms",
        "hit_rate": "found near",
    }
    yield from head(["", *names.values()])
    for case, measured in result["figures"].items():
        yield row([case, *_cells(measured, names)])
    yield source(result, "Asked by a Python caller.")


def peers_table(result: dict[str, Any]) -> Iterator[str]:
    """Yields the table of servers side by side, and what was aimed at."""
    figures = result["figures"]
    names = {**_MEASURED, **_STEADY}
    yield from head(["", "", *names.values(), "Pss MiB", "idle, CPU ms/s"])
    for server, told in figures["servers"].items():
        for kind in told:
            if isinstance(told[kind], dict):
                memory = [_cell(told["pss_mib"]), _cell(told["idle_cpu_ms_per_s"])]
                yield row([server, kind, *_cells(told[kind], names), *memory])
    for server, reason in figures["not_run"].items():
        first = reason.splitlines()[0]
        yield f"\n{server} was not run: {first}\n"
    yield "\n"
    yield from head(["aim", "", "found", ""])
    for goal in figures["goals"]:
        bound = f"at least {goal['at_least']:g}" if "at_least" in goal else f"at most {goal['at_most']:g}"
        met = goal.get("at_least", goal["found"]) <= goal["found"] <= goal.get("at_most", goal["found"])
        yield row([goal["what"], bound, f"{goal['found']:g}", "met" if met else "missed"])
    yield source(result, "Configured: " + "; ".join(f"{name}: {how}" for name, how in _configured(figures)) + ".")


def overload_table(result: dict[str, Any]) -> Iterator[str]:
    """Yields the table of a service that is asked for more than it can answer, as it is and without our bounds."""
    figures = result["figures"]
    services = {name: told for name, told in figures.items() if isinstance(told, dict) and name not in _NOT_SERVICES}
    names = list(dict.fromkeys(key for told in services.values() for key in told))
    yield from head(["", *services])
    for name in names:
        yield row([name, *(_cell(told.get(name)) for told in services.values())])
    yield source(result, f"Asked for {figures['times_capacity']:g} times of what it can do.")


def profile_table(result: dict[str, Any]) -> Iterator[str]:
    """Yields the table of what the layers of a server take of an answer."""
    figures = result["figures"]
    yield from head(["µs", *figures])
    for layer in next(iter(figures.values())):
        yield row([layer, *(_cell(told[layer]) for told in figures.values())])
    yield row(["together", *(_cell(sum(told.values())) for told in figures.values())])
    yield source(result, "Ours: the time in which the loop was at it, by py-spy. What else the loop costs is gRPC's.")


def soak_table(result: dict[str, Any]) -> Iterator[str]:
    """Yields the table of how memory went while a service was asked for half an hour, and what was not answered."""
    figures = result["figures"]
    yield from head(["MiB", "first minute", "half way", "last minute", "an hour, in the second half", "± at 95%"])
    for name, minutes in figures["pss_mib"].items():
        grown = figures["mib_an_hour_in_second_half"][name]
        times = [minutes[0], minutes[len(minutes) // 2], minutes[-1]]
        yield row([name, *(f"{each:.1f}" for each in times), f"{grown['slope']:.1f}", f"{grown['half_width_95']:.1f}"])
    asked = " and ".join(f"{rate:,} {kind}" for kind, rate in figures["asked_per_s"].items())
    failed = len(figures["turns_with_errors"])
    yield source(
        result,
        f"{figures['answers']:,} answers in {figures['minutes']:g} minutes, {failed} turns with an error; asked for "
        f"{asked} a second, 99th percentile {figures['p99_ms']:g} ms.",
    )


def lists_table(result: dict[str, Any]) -> Iterator[str]:
    """Yields the table of what lists cost by the size of the catalogue."""
    names = {
        "exact_ms_a_user": "exact, ms",
        "index_ms_a_user": "index, ms",
        "times_less_than_exact": "times less",
        "times_less_than_exact_fp32": "than in float32",
        "recall": "recall",
        "exact_to_bare_fp32": "exact, x a bare float32 product",
        "exact_to_bare_bf16": "x a bare bfloat16 one",
    }
    yield from head(["", *names.values()])
    figures = result["figures"]
    for name, told in figures.items():
        if name.endswith(" users"):
            asked, _, users = name.rpartition(", ")
            measured = {**told, "recall": figures[f"{asked}, recall"]["recall"]}
            yield row([f"{asked}, {users}", *_cells(measured, names)])
    yield source(result, "Processor time for a user, who has seen 100 movies; one thread.")


def _configured(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for server, told in figures["servers"].items():
        if told["configured"]:
            yield server, told["configured"]


TABLES = {
    **{f"beside_peers_{MODELS[0]}{spared}": peers_table for spared in ("", "_embedded")},
    **{f"serving_cost_{model}": cost_table for model in MODELS},
    **{f"serving_paths_{model}": paths_table for model in MODELS},
    **{f"overload_{model}": overload_table for model in MODELS},
    f"answer_profile_{MODELS[0]}": profile_table,
    f"soak_{MODELS[0]}": soak_table,
    "topk_scaling": lists_table,
}


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Draws what an answer of PredictRating costs by whom, as an SVG."""
    cpu_us = {server: told[_SHOWN]["cpu_us"] for server, told in figures["servers"].items() if _SHOWN in told}
    figure = Figure(figsize=(8, 0.4 * len(cpu_us) + 1.2), layout="constrained")
    axes = figure.subplots()
    colours = ["#2c7a4b" if "Marquee" in server else "#777777" for server in cpu_us]
    bars = axes.barh(list(cpu_us), list(cpu_us.values()), color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel(f"processor time of all processes of a server, µs an answer of {_SHOWN}")
    axes.spines[["top", "right"]].set_visible(False)
    # Else each run would give its parts other names.
    with rc_context({"svg.hashsalt": path.name}):
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})  # type: ignore[no-untyped-call]


def _cells(measured: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    return [_cell(measured.get(key)) for key in names]


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Writes the page and its plot again."""
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), TABLES), encoding="utf-8")
    peers = RESULTS / f"beside_peers_{MODELS[0]}.json"
    if peers.exists():
        draw(json.loads(peers.read_text())["figures"], PLOT)


if __name__ == "__main__":
    main()
