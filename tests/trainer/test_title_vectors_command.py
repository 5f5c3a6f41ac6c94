"""`train --title-vectors` hands a file of word vectors to the models that look at titles."""

from pathlib import Path

from typer.testing import CliRunner

from trainer.commands.app import make_app
from trainer.synthesis.dataset_synthesis import SynthesisPlan
from trainer.synthesis.folder_writer import write_synthetic
from two_tower import checkpoint
from two_tower.registry import Registry

TRAIN = ("train", "--no-calibrate", "--no-report", "--holdout", "random:0.1")


def test_a_file_of_word_vectors_goes_into_the_checkpoint(tmp_path: Path) -> None:
    """A service needs the checkpoint and not the file."""
    write_synthetic(SynthesisPlan(num_users=40, num_movies=30, num_ratings=600), tmp_path / "data")
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("the 1 2 3\nof 4 5 6\n")
    places = ("--data", str(tmp_path / "data"), "--registry", str(tmp_path / "registry"))

    ran = CliRunner().invoke(
        make_app(), [*TRAIN, *places, "--model", "tfrs-titles", "--set", "epochs=1", "--title-vectors", str(vectors)]
    )

    assert ran.exit_code == 0, ran.output
    registry = Registry(tmp_path / "registry")
    (version,) = registry.versions()
    model = checkpoint.load(registry.path_of(version)).model
    assert model.vocabularies()["words"] == ["", "the", "of"]
    assert model.tensors()["word_table"].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]


def test_a_file_that_is_absent_or_that_no_tower_looks_at_is_refused_at_once(tmp_path: Path) -> None:
    """With the reason, before any data is read."""
    places = ("--data", str(tmp_path / "absent"), "--registry", str(tmp_path / "registry"))

    for model, message in (("tfrs-titles", "there is no file"), ("bias", "there is no option 'title_vectors'")):
        ran = CliRunner().invoke(make_app(), [*TRAIN, *places, "--model", model, "--title-vectors", "absent.txt"])

        assert ran.exit_code == 2
        assert message in ran.output
