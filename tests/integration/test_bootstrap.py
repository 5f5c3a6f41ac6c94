"""`trainer bootstrap` against a real feature_service: each step once, whatever was done before."""

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.local.processes import ServiceProcess, free_address
from trainer.commands.app import make_app
from trainer.rebuild.lock import only_one
from trainer.synthesis.dataset_synthesis import SynthesisPlan
from trainer.synthesis.folder_writer import write_synthetic
from two_tower.registry import STABLE, Registry


class Bootstrap:
    """A folder with a little data, and the command that is run on it."""

    def __init__(self, folder: Path, feature_service: ServiceProcess) -> None:
        self.registry = Registry(folder / "registry")
        self.data_dir = folder / "data"
        self._ratings = folder / "ratings"
        self._feature_service = feature_service
        write_synthetic(SynthesisPlan(num_users=80, num_movies=60, num_ratings=1600, seed=1), self._ratings)

    def run(self, *further: str, status: int = 0) -> str:
        """Runs it and returns what it printed."""
        command = ["bootstrap", "--data", str(self._ratings), "--registry", str(self.registry.path)]
        command += ["--data-dir", str(self.data_dir), "--feature-service", self._feature_service.address]
        before = signal.getsignal(signal.SIGTERM)
        try:
            done = CliRunner().invoke(make_app(), [*command, *further])
        finally:
            signal.signal(signal.SIGTERM, before)
        assert done.exit_code == status, done.output
        return done.output

    def forget_publication(self) -> None:
        """Makes it as if another store had been published to."""
        note = self.data_dir / "published.json"
        note.write_text(json.dumps({**json.loads(note.read_text()), "store_epoch": "another"}))

    def archive_ratings(self, name: str) -> None:
        """Leaves the data as the archive of a named data set."""
        shutil.make_archive(str(self.data_dir / name), "zip", self._ratings)

    def add_later_ratings(self, count: int) -> None:
        """Lets the same people rate on, as they did before, a year later."""
        [path] = self._ratings.glob("ratings.*")
        header, *lines = path.read_text().splitlines()
        columns = header.replace('"', "").split(",")
        time_column, movie_column = columns.index("timestamp"), columns.index("movieId")
        seen = {tuple(line.split(",")[:2]) for line in lines}
        newest = max(int(line.split(",")[time_column]) for line in lines)
        later: list[str] = []
        for line in lines:
            fields = line.split(",")
            fields[movie_column] = str(int(fields[movie_column]) % 60 + 1)
            fields[time_column] = str(newest + 31_536_000 + len(later))
            if tuple(fields[:2]) not in seen and len(later) < count:
                seen.add(tuple(fields[:2]))
                later.append(",".join(fields))
        path.write_text("\n".join([header, *lines, *later]) + "\n")

    def forget_ratings(self) -> None:
        """Takes the data away."""
        shutil.rmtree(self._ratings)


@pytest.fixture(scope="module")
def feature_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A feature_service with a Redis of its own."""
    folder = tmp_path_factory.mktemp("feature_service")
    address = free_address()
    settings = {
        "FEATURE_LISTEN": address,
        "FEATURE_REDIS_URL": "embedded",
        "FEATURE_DATA_DIR": str(folder / "redis"),
    }
    with ServiceProcess("feature_service", address, settings, folder / "log") as process:
        process.wait_until_serving(30)
        yield process


def test_each_step_is_done_once(tmp_path: Path, feature_service: ServiceProcess) -> None:
    """The first run trains and publishes; a second one needs not even the data; one for another store publishes."""
    bootstrap = Bootstrap(tmp_path, feature_service)

    first = bootstrap.run("--model", "bias")
    version = bootstrap.registry.label(STABLE)
    assert f"trained {version}" in first
    assert "published 60 movies and 80 histories" in first

    bootstrap.forget_publication()
    other_store = bootstrap.run()
    assert "nothing to train" in other_store
    assert "published 60 movies" in other_store

    bootstrap.forget_ratings()
    # Somebody who rebuilds at this moment is in nobody's way.
    with only_one(bootstrap.registry):
        again = bootstrap.run()
    assert "nothing to train" in again
    assert "nothing to publish" in again
    assert bootstrap.registry.versions() == [version]


def test_what_it_leaves_behind_is_served(tmp_path: Path, feature_service: ServiceProcess, node_example: Path) -> None:
    """A model_service on that registry answers a caller: here the Node example, with titles from the catalogue."""
    bootstrap = Bootstrap(tmp_path, feature_service)
    bootstrap.run()
    address = free_address()
    settings = {
        "MODEL_LISTEN": address,
        "MODEL_REGISTRY": str(bootstrap.registry.path),
        "MODEL_FEATURE_SERVICE": feature_service.address,
        "MODEL_DEVICE": "cpu",
    }

    with ServiceProcess("model_service", address, settings, tmp_path / "model.log") as model_service:
        model_service.wait_until_serving(60)
        ask = ["node", "main.js", "--address", address, "--k", "3", "--timeout-ms", "10000"]
        answer = subprocess.run(ask, cwd=node_example, capture_output=True, text=True, timeout=60, check=False)

    assert answer.stderr == ""
    rating, source, *movies = answer.stdout.splitlines()
    assert re.fullmatch(r"user 1 would give movie 1 \d\.\d\d stars", rating)
    assert source == f"model {bootstrap.registry.label(STABLE)}, answered from ANSWER_SOURCE_PERSONAL"
    assert [re.sub(r"^(\d)\. .+ \(\d{4}\), \d\.\d\d stars$", r"\1", movie) for movie in movies] == ["1", "2", "3"]


def test_a_named_data_set_is_taken_from_its_archive(tmp_path: Path, feature_service: ServiceProcess) -> None:
    """An archive that was fetched before is not fetched again, and its terms of use are shown."""
    bootstrap = Bootstrap(tmp_path, feature_service)
    bootstrap.archive_ratings("ml-latest-small")

    said = bootstrap.run("--data", "ml-latest-small")

    assert "terms of use" in said
    assert f"trained {bootstrap.registry.label(STABLE)} on ml-latest-small" in said
    assert "published 60 movies and 80 histories" in said


def test_training_again_goes_through_the_gate(tmp_path: Path, feature_service: ServiceProcess) -> None:
    """The label moves to what is no worse on later rows; where there are none, it stays."""
    bootstrap = Bootstrap(tmp_path, feature_service)
    bootstrap.run("--model", "bias")
    before = bootstrap.registry.label(STABLE)

    without = bootstrap.run("--retrain", "--model", "bias")
    assert "nothing_new" in without
    assert bootstrap.registry.label(STABLE) == before

    bootstrap.add_later_ratings(400)
    said = bootstrap.run("--retrain", "--model", "random")

    assert "refused: it is worse: rmse" in said
    assert bootstrap.registry.label(STABLE) == before
    said = bootstrap.run("--retrain", "--model", "bias")
    assert f"promoted: rebuilt over {before}" in said
    assert bootstrap.registry.label(STABLE) != before
    assert "nothing to publish" in bootstrap.run()


def test_nothing_is_trained_for_a_feature_service_that_is_absent(tmp_path: Path) -> None:
    """What can be known at once is not found out after a training."""
    bootstrap = Bootstrap(tmp_path, ServiceProcess("feature_service", free_address(), {}, tmp_path / "log"))

    said = bootstrap.run(status=2)

    assert "error: feature_service: UNAVAILABLE" in said
    assert bootstrap.registry.versions() == []
