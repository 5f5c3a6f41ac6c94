"""The command: what it prints, how it ends, and what it says of itself."""

import signal

from typer.testing import CliRunner

from tests.integration.rebuild.looped import Looped
from trainer.commands.app import make_app


def run(*words: str) -> tuple[int, str]:
    """Runs a trainer command; returns its exit status and what it printed."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        done = CliRunner().invoke(make_app(), list(words), env={"COLUMNS": "200"})
    finally:
        signal.signal(signal.SIGTERM, before)
    return done.exit_code, done.output


def test_a_rebuild_says_what_it_came_to(looped: Looped, store_address: str) -> None:
    """Figures and reason; status 3 where the gate held, 0 where the label moved; `--status` remembers both."""
    before = looped.begin()
    looped.feed(looped.new)
    words = ("rebuild", "--registry", str(looped.registry.path), "--feature-service", store_address, "--no-report")
    assert "nothing is under way" in run(*words, "--status")[1]

    refused, said = run(*words, "--model", "random")
    assert (refused, looped.label()) == (3, before)
    assert "refused: it is worse: rmse" in said
    assert f"stable names {before}" in said

    promoted, said = run(*words, "--model", "bias", "--set", "movie_damping=5")
    assert promoted == 0
    assert "snapshot" in said
    assert "2,250 rows, 0 users forgotten" in said
    assert f"promoted: rebuilt over {before}" in said

    status, said = run(*words, "--status", "--every", "6h")
    assert status == 0
    assert "refused: it is worse" in said
    assert f"promoted: rebuilt over {before}" in said
    assert "2,250 rows, 450 events read" in said


def test_what_is_wrong_is_said_before_anything_is_done(looped: Looped) -> None:
    """Options that do not go together, a duration that is none, a store that is away."""
    words = ("rebuild", "--registry", str(looped.registry.path), "--feature-service", "127.0.0.1:1")

    for wrong, message in (
        (("--every", "soon"), "write 90s, 30m, 6h or 1d"),
        (("--set", "seed=1"), "--set needs --model"),
        (("--every", "6h", "--force", "because"), "are for once"),
        (("--model", "oracle"), "there is no model 'oracle'"),
    ):
        status, said = run(*words, *wrong)
        assert status == 2, said
        assert message in said
    assert looped.registry.versions() == []


def test_the_first_snapshot_may_be_made_of_data(looped: Looped, store_address: str, tmp_path) -> None:
    """Of a registry to which nothing was published; what has no label gets the first checkpoint of it."""
    run("synthesize", str(tmp_path / "data"), "--users", "60", "--movies", "40", "--ratings", "900")
    words = ("rebuild", "--registry", str(looped.registry.path), "--feature-service", store_address, "--no-report")
    looped.begin()
    looped.snapshots.remove(looped.snapshots.newest() or "")

    status, said = run(*words, "--data", str(tmp_path / "data"), "--model", "popular", "--label", "other")

    assert status == 0, said
    assert "the first checkpoint under this label" in said
    assert looped.registry.label("other") is not None
    assert looped.newest_data().name == "data"
