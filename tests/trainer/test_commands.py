"""The command line: what a person types, what he reads, and the exit status."""

import csv
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.trainer.command_runs import run
from tests.trainer.recording_services import recording_features, served, three_star_model
from trainer.commands.app import make_app
from trainer.synthesis.dataset_synthesis import SynthesisPlan
from trainer.synthesis.folder_writer import write_synthetic
from two_tower.registry import Registry


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small synthetic data set."""
    folder = tmp_path_factory.mktemp("data")
    write_synthetic(SynthesisPlan(num_users=60, num_movies=80, num_ratings=1500), folder)
    return folder


@dataclass(frozen=True)
class Trained:
    """What came of the first training."""

    data: Path
    registry: Path
    version: str
    out: str

    def at(self, *arguments: object) -> tuple[object, ...]:
        return (*arguments, "--data", self.data, "--registry", self.registry)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A registry with one checkpoint."""
    registry = tmp_path_factory.mktemp("registry")
    ran = run(
        *("train", "--data", data, "--registry", registry, "--model", "two-tower-history"),
        *("--holdout", "random:0.1", "--seed", 3, "--set", "epochs=2"),
    )
    assert ran.status == 0, ran.err
    (version,) = Registry(registry).versions()
    return Trained(data, registry, version, ran.out)


def test_help_lists_every_command() -> None:
    """One look shows what there is."""
    ran = run("--help")

    assert ran.status == 0
    for command in (
        *("download", "synthesize", "inspect", "train", "evaluate", "publish"),
        *("predict", "topk", "promote", "inspect-checkpoint", "inspect-model"),
    ):
        assert re.search(rf"^\W*{command} ", ran.out, re.MULTILINE), command


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "publish", "predict", "topk", "promote", "inspect-checkpoint", "inspect-model"]
)
def test_every_command_has_help(command: str) -> None:
    """Each says what it does and what its options mean."""
    ran = run(command, "--help")

    assert ran.status == 0
    assert "Usage" in ran.out


def test_train_shows_metrics_version_and_label(trained: Trained) -> None:
    """The first checkpoint of a registry is served under stable."""
    assert "rmse" in trained.out
    assert "ndcg_at_10" in trained.out
    assert f"checkpoint: {trained.version}" in trained.out
    assert "stable names it now." in trained.out
    assert Registry(trained.registry).label("stable") == trained.version


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "oracle"], "there is no model 'oracle'; the models are bias, "),
        (["--model", "two-tower-history", "--set", "epochs=0"], "epochs: '0' is not a whole number from 1 to"),
        (["--model", "two-tower-history", "--set", "x=1"], "there is no option 'x'"),
        (["--model", "two-tower-history", "--holdout", "sometimes"], "--holdout sometimes"),
        (["--model", "two-tower-history", "--label", "../x"], "cannot be the name of a label"),
        (["--seed", "-1"], "--seed"),
        (["--judge-on", "mars"], "mars"),
        (["--colour"], "No such option"),
    ],
)
def test_bad_usage_ends_with_status_2_and_says_what_would_be_right(
    data: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    """No traceback, no checkpoint."""
    ran = run("train", "--data", data, "--registry", tmp_path / "r", *arguments)

    assert ran.status == 2
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert Registry(tmp_path / "r").versions() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--label", "../x"], "'../x' cannot be the name of a label: 1 to 64 letters"),
        (["train", "--holdout", "sometimes"], "--holdout sometimes: neither a file nor one of random:F"),
        (["train", "--holdout", "random:2"], "--holdout random:2: F must lie between 0 and 1"),
        (["train", "--holdout", "u1.tset"], "--holdout u1.tset: neither a file nor"),
        (["train", "--judge-on", "validation"], "without --holdout there are no validation rows to judge on"),
        (["train", "--judge-on", "validation", "--holdout", "every:5"], "--holdout leave-last has"),
        (["compare", "--out", "t.md", "--holdout", "sometimes"], "--holdout sometimes: neither a file nor"),
        (["compare", "--out", "t.md", "--holdout", "none"], "--holdout none: there is no row to be judged on"),
        (["compare", "--out", "t.md", "--holdout", "new-users:7"], "new-users:7"),
        (["compare", "--out", "t.md", "--reference", "marq"], "--reference marq: not among what is compared"),
        (["compare", "--out", "t.md", "--protocol", "notebook", "--holdout", "every:5"], "each notebook's own split"),
        (["coldstart", "--out", "t.md", "--reference", "marq"], "--reference marq: not among what is compared"),
        (["tune", "marquee", "--holdout", "sometimes"], "--holdout sometimes: neither a file nor"),
        (["tune", "marquee", "--holdout", "none"], "--holdout none: nothing would be left for a test"),
        (["rebuild", "--label", "../x"], "'../x' cannot be the name of a label"),
        (["promote", "v1", "--label", "../x"], "'../x' cannot be the name of a label"),
    ],
)
def test_what_no_data_could_mean_is_refused_before_any_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """The data cannot be read at all, and nobody gets as far as to find that out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r" / "v1").mkdir(parents=True)
    (tmp_path / "ratings.csv").write_text("no columns of ours\n")
    registry = ["--registry", tmp_path / "r"] if arguments[0] in ("train", "rebuild", "promote") else []

    ran = run(*arguments, "--data", tmp_path, *registry)

    assert ran.status == 2
    assert message in ran.err
    assert "ratings.csv" not in ran.err


def test_a_holdout_file_beside_the_data_is_found_before_and_while_reading(data: Path, tmp_path: Path) -> None:
    """By its name alone."""
    folder = shutil.copytree(data, tmp_path / "data")
    rows = (folder / "ratings.csv").read_text().splitlines()
    (folder / "kept.test").write_text("\n".join([rows[0], *rows[1::20]]) + "\n")

    ran = run("tune", "bias", "--data", folder, "--holdout", "kept.test", "--trials", 1)

    assert ran.status == 0, ran.err
    assert "--holdout kept.test" in ran.out


@pytest.mark.parametrize("registry", ["file", "file/below"])
def test_a_registry_that_cannot_be_is_refused_before_training(data: Path, tmp_path: Path, registry: str) -> None:
    """A file where a folder belongs is named, with what is wrong with it."""
    (tmp_path / "file").touch()

    ran = run("train", "--data", data, "--registry", tmp_path / registry)

    assert ran.status == 2
    assert f"the registry {tmp_path / registry} cannot be made" in ran.err


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """What the machine refuses is said in one line, without a traceback."""
    (tmp_path / "file").touch()

    ran = run("synthesize", tmp_path / "file" / "data", "--users", 60, "--movies", 80, "--ratings", 1500)

    assert ran.status == 2
    assert ran.err.splitlines()[-1].startswith(f"error: {tmp_path / 'file' / 'data'}: ")


def test_a_disk_that_takes_no_more_is_one_message() -> None:
    """The system tells it of a file that is open already, without a name; nobody sees a traceback for it."""
    app = make_app()

    @app.command("fill")
    def fill() -> None:
        Path("/dev/full").write_text("more than there is room for")

    ran = CliRunner().invoke(app, ["fill"])

    assert ran.exit_code == 2
    assert ran.stderr == "error: No space left on device\n"


def test_missing_data_ends_with_status_2(tmp_path: Path) -> None:
    """A folder that is not there is named."""
    ran = run("train", "--data", tmp_path / "nowhere", "--registry", tmp_path / "r")

    assert ran.status == 2
    assert "nowhere" in ran.err


def test_evaluate_finds_the_same_metrics_and_writes_predictions(trained: Trained, tmp_path: Path) -> None:
    """Both columns of the table are equal, and the file has a row for each held-out rating."""
    ran = run(*trained.at("evaluate", "--predictions", tmp_path / "p.csv", "--lists", tmp_path / "l.parquet"))

    assert ran.status == 0, ran.err
    cells = re.findall(r"(rmse|mae|ndcg_at_10|recall_at_10)\W+([\d.]+)\W+([\d.]+)", ran.out)
    assert len(cells) == 4
    assert all(then == again for _, then, again in cells)
    with (tmp_path / "p.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 150
    assert (tmp_path / "l.parquet").stat().st_size > 0


def test_evaluate_refuses_other_data(trained: Trained, tmp_path: Path) -> None:
    """A checkpoint is judged on its own data only."""
    write_synthetic(SynthesisPlan(num_users=50, num_movies=80, num_ratings=1500), tmp_path / "other")

    ran = run("evaluate", "--data", tmp_path / "other", "--registry", trained.registry)

    assert ran.status == 2
    assert "does not hold the data that checkpoint" in ran.err


def test_an_unknown_checkpoint_lists_those_that_exist(trained: Trained) -> None:
    """Versions and labels alike."""
    ran = run(*trained.at("evaluate", "--checkpoint", "best"))

    assert ran.status == 2
    assert f"has no version or label 'best'; it has stable, {trained.version}" in ran.err


def test_publish_sends_the_training_rows_and_all_sends_all(trained: Trained) -> None:
    """1,350 of 1,500 rows, and with --all the held-out ones too, which marks the store."""
    service = recording_features()
    with served(features=service) as address:
        ran = run(*trained.at("publish", "--checkpoint", trained.version, "--feature-service", address))
        published = sum(len(history) for history in service.histories.values())
        marked = service.not_for_evaluation
        ran_all = run(*trained.at("publish", "--all", "--feature-service", address))

    assert (ran.status, ran_all.status) == (0, 0), ran.err + ran_all.err
    assert (published, marked) == (1350, False)
    assert sum(len(history) for history in service.histories.values()) == 1500
    assert service.not_for_evaluation
    assert "1,350 entries (1,350 kept anew)" in ran.out
    assert "(150 kept anew; 1,350 were there already, or histories are full of newer ones)" in ran_all.out
    assert "not for evaluation" in ran_all.out


def test_publish_says_when_nobody_listens(trained: Trained) -> None:
    """One message, no traceback."""
    ran = run(*trained.at("publish", "--feature-service", "127.0.0.1:1"))

    assert ran.status == 2
    assert "feature_service: UNAVAILABLE" in ran.err


def test_promote_moves_a_label_to_another_checkpoint(trained: Trained) -> None:
    """A second training leaves the label and says how to move it; a forced move is recorded with its reason."""
    registry = Registry(trained.registry)
    ran = run(*trained.at("train", "--model", "two-tower-history", "--no-calibrate", "--no-report"))
    (second,) = set(registry.versions()) - {trained.version}

    moved = run("promote", second, "--force", "a drill", "--registry", trained.registry)
    back = run("promote", trained.version, "--force", "the drill is over", "--registry", trained.registry)

    assert f"python -m trainer promote {second} --label stable --data" in ran.out
    assert f"stable: {trained.version} -> {second}" in moved.out
    assert back.status == 0
    assert registry.label("stable") == trained.version
    assert [change.reason for change in registry.label_history("stable")[1:]] == [
        "forced: a drill",
        "forced: the drill is over",
    ]


def test_promote_compares_on_later_rows_and_labels_the_refitted_winner(data: Path, tmp_path: Path) -> None:
    """Biases take the place of a network that has hardly learnt, and the history says on which rows and by how much."""
    registry = Registry(tmp_path)
    for model in ("random", "bias"):
        run(
            "train",
            *("--data", data, "--registry", tmp_path, "--model", model, "--holdout", "newest:0.2"),
            "--no-report",
        )
    loser, winner = registry.versions()

    without_data = run("promote", winner, "--registry", tmp_path)
    ran = run("promote", winner, "--registry", tmp_path, "--data", data)
    back = run("promote", loser, "--registry", tmp_path, "--data", data)

    assert without_data.status == 2
    assert "--data is needed to compare the two on" in without_data.err
    assert ran.status == 0, ran.err
    refitted = registry.label("stable")
    assert refitted not in (loser, winner, None)
    reason = registry.label_history("stable")[-1].reason
    assert reason.startswith(f"promoted over {loser} on 300 rows after 20")
    assert reason.endswith(f"refitted on all rows with the settings of {winner}")
    assert back.status == 2
    assert "nothing to compare on: 0 rows" in back.err


def test_promote_refuses_a_checkpoint_that_cannot_be_served(trained: Trained, tmp_path: Path) -> None:
    """A damaged checkpoint is found out before a service meets it, also when it is forced."""
    folder = tmp_path / trained.version
    folder.mkdir()
    for file in (trained.registry / trained.version).iterdir():
        (folder / file.name).write_bytes(file.read_bytes()[:-1])

    ran = run("promote", trained.version, "--force", "now", "--registry", tmp_path)

    assert ran.status == 2
    assert "error: manifest.json" in ran.err
    assert Registry(tmp_path).label("stable") is None


def test_inspect_model_shows_what_the_model_has_learnt(trained: Trained) -> None:
    """The report's lists, read from beside the checkpoint or asked anew: the same ones."""
    read = run("inspect-model", "--registry", trained.registry)
    anew = run(*trained.at("inspect-model", trained.version))

    assert read.status == 0, read.err
    for title in ("Strangers", "Movies by bias, highest", "Genres by bias", "Genres most alike", "Nearest movies"):
        assert title in read.out
    assert anew.out == read.out


def test_inspect_checkpoint_shows_what_it_is(trained: Trained) -> None:
    """Model, labels, rows, options, and that it can be served."""
    ran = run("inspect-checkpoint", "--registry", trained.registry)

    assert ran.status == 0, ran.err
    for fact in ("two-tower-history", "stable", "1,350 rows: all but random:0.1, seed 3", "epochs=2", "golden users"):
        assert fact in ran.out


def test_predict_shows_ratings_with_titles() -> None:
    """Each movie in the order asked for, with its title, and where the answer came from."""
    with served(model=three_star_model()) as address:
        ran = run("predict", "--user", "u1", "--movie", "2", "--movie", "1", "--model-service", address)

    assert ran.status == 0, ran.err
    assert ran.out.index("Movie 2") < ran.out.index("Movie 1")
    assert "3.250" in ran.out
    assert re.findall(r" (0\.75|\?) ", ran.out) == ["?", "0.75"]
    assert "PERSONAL answer of model v7" in ran.out


def test_topk_shows_a_list_with_titles() -> None:
    """As many as asked for, with genres."""
    with served(model=three_star_model()) as address:
        ran = run("topk", "--user", "u1", "-k", 3, "--genre", "Drama", "--model-service", address)

    assert ran.status == 0, ran.err
    assert re.findall(r"Movie (\d)", ran.out) == ["1", "2", "3"]
    assert ran.out.count("Drama") == 3
    assert "FOLDED_IN answer of model v7" in ran.out


def test_topk_varies_and_explains_when_asked() -> None:
    """What the service is asked for is what was typed; reasons stand behind their movie."""
    with served(model=three_star_model()) as address:
        ran = run("topk", "--user", "u1", "-k", 2, "--explain", 1, "--diversity", 0.5, "--model-service", address)
        refused = run("topk", "--user", "u1", "--diversity", 1, "--model-service", address)

    assert ran.out.count("77 25%") == 2
    assert "that is too much of it" in refused.err


def test_asking_for_an_unknown_movie_says_so() -> None:
    """The service's sentence, status 2."""
    with served(model=three_star_model()) as address:
        ran = run("predict", "--user", "u1", "--movie", "none", "--model-service", address)

    assert ran.status == 2
    assert "model_service: NOT_FOUND: there is no movie 'none'" in ran.err
