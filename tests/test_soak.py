"""Tests of the soak test: its criteria, its measurements, and a short run."""

import json
import random

import pytest
import tensorflow as tf

from loops.checkpointing import checkpoint
from tests.soak import __main__ as soak
from tests.soak import disturbed, undisturbed

MEGABYTE = 1e6
PASSING_REPORT = {
    "manual_actions": 0,
    "most_steps_lost": 200,
    "save_every": 200,
    "memory_growth": 0.049,
    "descriptors_growth": 0,
    "final_weights_equal": True,
    "replay": "bitwise",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("manual_actions", 1),
        ("most_steps_lost", 201),
        ("memory_growth", 0.051),
        ("memory_growth", None),
        ("descriptors_growth", 1),
        ("final_weights_equal", False),
        ("replay", "rounding"),
    ],
)
def test_each_criterion_fails_the_soak(name, value):
    assert soak.is_passed(PASSING_REPORT)
    assert not soak.is_passed({**PASSING_REPORT, name: value})


def test_growth_of_memory_and_descriptors():
    warm_up = [(n * MEGABYTE, n) for n in range(10)]
    flat = [(100 * MEGABYTE, 20 + n % 3) for n in range(30)]
    growth = undisturbed.compute_growth(warm_up + flat)
    assert (growth["memory_growth"], growth["descriptors_growth"]) == (0.0, 0)
    leak = [((100 + n) * MEGABYTE, 20 + n // 10) for n in range(40)]
    growth = undisturbed.compute_growth(leak)
    assert growth["memory_growth"] == pytest.approx(134.5 / 114.5 - 1)
    assert growth["descriptors_growth"] == 2
    assert undisturbed.compute_growth(flat[:3])["memory_growth"] is None


def test_samples_exclude_start_and_end_of_the_process(monkeypatch):
    """At its start a process has few open files, and at its end it closes leaked ones."""
    steps, open_files = [0, 0, 200, 200, 400, 600], [3, 9, 20, 21, 22, 3]
    num_samples = len(steps)

    class FakeProcess:
        pid = returncode = 0

        def poll(self):
            return None if steps else 0

        def wait(self, timeout):
            return 0

    class FakeTraining:
        def start(self, *words):
            assert words == ("train", "--steps=600")
            return FakeProcess()

        def find_step(self):
            return steps.pop(0)

    monkeypatch.setattr(undisturbed.time, "sleep", lambda _: None)
    monkeypatch.setattr(undisturbed, "get_resident_bytes", lambda pid: MEGABYTE)
    monkeypatch.setattr(
        undisturbed, "count_open_files", lambda pid: open_files[num_samples - len(steps)]
    )
    sampled = []
    monkeypatch.setattr(
        undisturbed, "compute_growth", lambda samples: sampled.extend(samples) or {}
    )
    report = undisturbed.run(FakeTraining(), 600)
    assert report == {"undisturbed_exit_code": 0, "samples": 3}
    assert [count for _, count in sampled] == [20, 21, 22]


def test_all_kinds_of_damage_are_detected(tmp_path):
    """Thirty draws cover all six kinds, and the only remaining checkpoint is never damaged."""
    rng, report = random.Random(0), {"damage": {}}
    disturbed.damage_newest_checkpoint(tmp_path, rng, report)
    checkpoint.save(tmp_path, 1, {"c": {"x": tf.Variable([1.0] * 50)}})
    disturbed.damage_newest_checkpoint(tmp_path, rng, report)
    assert report["damage"] == {}
    for step in range(2, 32):
        newest = checkpoint.save(tmp_path, step, {"c": {"x": tf.Variable([1.0] * 50)}})
        disturbed.damage_newest_checkpoint(tmp_path, rng, report)
        with pytest.raises(checkpoint.CorruptCheckpointError):
            checkpoint.verify(newest)
        # As after a start that saved nothing.
        disturbed.damage_newest_checkpoint(tmp_path, rng, report)
        assert sum(report["damage"].values()) == step - 1
    assert len(report["damage"]) == 6


@pytest.mark.faults
def test_short_soak_passes(tmp_path):
    report = soak.soak(tmp_path, minutes=2.0, seed=1)
    assert report["passed"], json.dumps(report, indent=1)
