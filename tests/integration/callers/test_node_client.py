"""The example client in Node speaks the contract: answers, deadlines, retries and what errors carry."""

import asyncio
import json
from pathlib import Path
from typing import Protocol


class Serving(Protocol):
    """A ModelService that is up, and how often it was asked for each user."""

    address: str
    attempts: dict[str, int]


def max_attempts() -> int:
    """Returns how often the contract's service configuration has a call of PredictRating made."""
    config = json.loads((Path(__file__).parents[3] / "protos" / "service_config.json").read_text(encoding="utf-8"))
    whole_service = {"service": "marquee.v1.ModelService"}
    (entry,) = [entry for entry in config["methodConfig"] if whole_service in entry["name"]]
    return int(entry["retryPolicy"]["maxAttempts"])


async def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Runs the example and returns its exit status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        "node", "main.js", *arguments, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await asyncio.wait_for(process.communicate(), timeout=60)
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


async def test_it_prints_a_rating_and_recommendations(node_example: Path, three_movies: Serving) -> None:
    """One rating, then the best movies with titles; a movie without a predicted rating prints none."""
    code, output, errors = await run(node_example, "--address", three_movies.address, "--movie", "2", "--k", "3")

    assert (code, errors) == (0, "")
    assert output.splitlines() == [
        "user 1 would give movie 2 2.00 stars",
        "model v1, answered from ANSWER_SOURCE_PERSONAL",
        "1. Clueless (1995), 3.00 stars",
        "2. Heat (1995), 2.00 stars",
        "3. Toy Story (1995)",
    ]


async def test_every_violation_of_a_refused_request_is_printed(node_example: Path, three_movies: Serving) -> None:
    """BadRequest and ErrorInfo are decoded from the trailer, not guessed from the message."""
    arguments = ("--address", three_movies.address, "--k", "501", "--genre", "Opera", "--genre", "Comedy")

    code, _, errors = await run(node_example, *arguments)

    assert code == 1
    assert errors.splitlines() == [
        "INVALID_ARGUMENT: filter.genres_any: 'Opera' is no genre of this catalogue; it has Comedy, Drama (and 1 more)",
        "  reason: INVALID_REQUEST (marquee)",
        "  filter.genres_any: 'Opera' is no genre of this catalogue; it has Comedy, Drama",
        "  k: must be 1 to 500, is 501",
    ]


async def test_a_movie_that_is_missing_is_named(node_example: Path, three_movies: Serving) -> None:
    """NOT_FOUND says which id."""
    code, _, errors = await run(node_example, "--address", three_movies.address, "--movie", "99")

    assert code == 1
    assert errors.splitlines() == [
        "NOT_FOUND: no movie '99'",
        "  reason: MOVIE_NOT_FOUND (marquee)",
        "  missing movie: 99",
    ]


async def test_a_call_that_finds_the_service_unready_is_made_again(node_example: Path, three_movies: Serving) -> None:
    """The service configuration of the contract retries UNAVAILABLE; the caller sees only the answer."""
    code, output, _ = await run(node_example, "--address", three_movies.address, "--user", "flaky", "--movie", "2")

    assert code == 0
    assert output.startswith("user flaky would give movie 2 2.00 stars")
    assert three_movies.attempts["flaky"] == 2


async def test_retries_end(node_example: Path, three_movies: Serving) -> None:
    """A service that stays unready is reported after the attempts of the service configuration."""
    code, _, errors = await run(node_example, "--address", three_movies.address, "--user", "down")

    assert code == 1
    assert errors.splitlines() == [
        "UNAVAILABLE: no checkpoint yet",
        "  reason: NOT_READY (marquee)",
        "  retry after: 0.25 s",
    ]
    assert three_movies.attempts["down"] == max_attempts()


async def test_a_call_ends_at_its_deadline(node_example: Path, three_movies: Serving) -> None:
    """A service that is too slow costs the caller his deadline and no more."""
    arguments = ("--address", three_movies.address, "--user", "sleeper", "--timeout-ms", "300")

    code, _, errors = await run(node_example, *arguments)

    assert code == 1
    assert errors.startswith("DEADLINE_EXCEEDED")
