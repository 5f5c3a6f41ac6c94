"""The fuzzers that look at which code an input reaches find what is planted, and start from inputs that are sound."""

import pytest

from tests.fuzz.coverage_guided import run
from tests.fuzz.targets.data_readers import DataReaders
from tests.fuzz.targets.value_codec import ValueCodec

pytest.importorskip("atheris", reason="it has wheels for Linux on x86-64 only")


def test_a_planted_bug_is_found(tmp_path):
    """Four bytes have to be right at once, which is found because each is new code; the input is kept."""
    found = run("planted_reader", 60.0, tmp_path, seed=1, stop_at_finding=True)

    (finding,) = found.findings
    assert "IndexError" in finding
    assert found.inputs > 1
    (artifact,) = tmp_path.glob("planted_reader-crash-*")
    assert artifact.read_bytes()[:3] == b"MQ2"


@pytest.mark.parametrize("target_type", [ValueCodec, DataReaders])
def test_sound_inputs_and_what_is_left_of_them_are_survived(target_type, tmp_path, monkeypatch):
    """Each seed, whole, cut in half and turned around: no error but the documented one comes out."""
    monkeypatch.setenv("MARQUEE_CACHE", str(tmp_path))
    target = target_type(tmp_path)
    seeds = target.seeds()

    for seed in seeds:
        for spoilt in (seed, seed[: len(seed) // 2], seed[:1] + seed[:0:-1]):
            target.attack(spoilt)

    assert len(seeds) > 5
