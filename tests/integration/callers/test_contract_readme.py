"""The examples in protos/README.md and README.md run as they stand, and its table names every RPC."""

import asyncio
import re
import shlex
import sys
from pathlib import Path
from typing import Protocol

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass
from marquee.v1 import feature_service_pb2, model_admin_pb2, model_service_pb2

ROOT = Path(__file__).parents[3]
README = (ROOT / "protos" / "README.md").read_text(encoding="utf-8")
FRONT_PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
# buf curl exits with eight times the code of gRPC.
_INVALID_ARGUMENT = 8 * 3
PAGES = pytest.mark.parametrize("page", [README, FRONT_PAGE], ids=["protos/README.md", "README.md"])


class Serving(Protocol):
    """A ModelService that is up."""

    address: str


def block(language: str, page: str = README, *, without: str = "SyncModelClient") -> str:
    """Returns the one example of a language that has nothing to do with `without`."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    (one,) = [example for example in found if without not in example]
    return str(one)


def buf_curls(page: str) -> list[list[str]]:
    """Returns the words that follow `buf` in each line of a shell that asks by it."""
    return [
        shlex.split(line)[1:] for line in re.findall(r"^buf curl .*$", page.replace("\\\n", " "), flags=re.MULTILINE)
    ]


async def run(program: str | Path, *arguments: str | Path, folder: Path) -> tuple[int | None, str]:
    """Runs a program in a folder and returns its exit status and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        program, *arguments, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), timeout=60)
    return process.returncode, output.decode()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A caller's project: a folder that has the contract in it."""
    (tmp_path / "protos").symlink_to(ROOT / "protos")
    return tmp_path


@PAGES
async def test_the_python_example_prints_a_rating_and_recommendations(
    page: str, project: Path, three_movies: Serving
) -> None:
    """What a reader pastes works."""
    script = project / "ask.py"
    script.write_text(block("python", page).replace("localhost:50052", three_movies.address), encoding="utf-8")

    code, output = await run(sys.executable, script, folder=project)

    assert (code, output.splitlines()) == (0, ["2.00 stars", "3 3.0", "2 2.0", "1 1.0"])


@PAGES
async def test_the_example_of_the_client_prints_a_rating_and_titles(
    page: str, project: Path, three_movies: Serving
) -> None:
    """The client stands beside the stubs, and is as short as they are."""
    script = project / "ask.py"
    example = block("python", page, without="ModelServiceStub").replace("localhost:50052", three_movies.address)
    script.write_text(example, encoding="utf-8")

    code, output = await run(sys.executable, script, folder=project)

    assert code == 0
    assert output.startswith("Prediction(rating=2.0,")
    assert output.splitlines()[1:] == ["  3.00  Clueless", "  2.00  Heat", "  1.00  Toy Story"]


async def test_the_python_example_prints_what_an_error_carries(project: Path, three_movies: Serving) -> None:
    """The branch for errors is run too."""
    example = block("python").replace("localhost:50052", three_movies.address)
    script = project / "ask.py"
    script.write_text(example.replace("k=3", "k=501"), encoding="utf-8")

    code, output = await run(sys.executable, script, folder=project)

    assert code == 0
    assert output.splitlines()[1:] == [
        "INVALID_ARGUMENT INVALID_REQUEST k: must be 1 to 500, is 501",
        "k must be 1 to 500, is 501",
    ]


@pytest.mark.parametrize(
    ("movie_id", "begins"), [("2", "2.00 stars"), ("99", "NOT_FOUND no movie '99'")], ids=["answer", "error"]
)
async def test_the_node_example_runs(
    project: Path, node_example: Path, three_movies: Serving, movie_id: str, begins: str
) -> None:
    """What a reader pastes works, for an answer and for an error."""
    (project / "node_modules").symlink_to(node_example / "node_modules")
    script = project / "ask.mjs"
    example = block("javascript").replace("localhost:50052", three_movies.address)
    script.write_text(example.replace("movieId: '2'", f"movieId: '{movie_id}'"), encoding="utf-8")

    code, output = await run("node", script, folder=project)

    assert code == 0
    assert output.startswith(begins)


@pytest.mark.parametrize(
    ("page", "answers"),
    [
        (README, [(0, '"rating": 2'), (_INVALID_ARGUMENT, "k: must be 1 to 500, is 501"), (0, '"status": "SERVING"')]),
        (FRONT_PAGE, [(0, '"title": "Heat"')]),
    ],
    ids=["protos/README.md", "README.md"],
)
async def test_the_lines_of_a_shell_run(
    page: str, answers: list[tuple[int, str]], buf: Path, project: Path, three_movies: Serving
) -> None:
    """What a reader pastes works, by reflection alone: an answer, a refusal that says what is wrong, health."""
    lines = [[word.replace("localhost:50052", three_movies.address) for word in line] for line in buf_curls(page)]

    printed = [await run(buf, *line, folder=project) for line in lines]

    assert len(printed) == len(answers)
    for (code, output), (expected, part) in zip(printed, answers, strict=True):
        assert code == expected, output
        assert part in output


def test_every_line_of_a_shell_names_an_rpc_and_its_fields() -> None:
    """Also where nothing that answers it is up in these tests: each message is one of the RPC that it is sent to."""
    pages = README + FRONT_PAGE + (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    lines = [line for line in buf_curls(pages) if "/marquee.v1." in line[-1]]

    for line in lines:
        service, method = line[-1].split("/")[-2:]
        asked = Default().FindServiceByName(service).methods_by_name[method].input_type
        json_format.Parse(line[line.index("-d") + 1], GetMessageClass(asked)())

    assert len(lines) >= 4


def test_the_table_names_every_rpc() -> None:
    """An RPC that is added to the contract is added to the table."""
    files = (feature_service_pb2.DESCRIPTOR, model_service_pb2.DESCRIPTOR, model_admin_pb2.DESCRIPTOR)
    methods = {
        method for file in files for service in file.services_by_name.values() for method in service.methods_by_name
    }

    table = README.partition("\n## Errors\n")[0]

    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == methods
