"""The soak judges rightly; a short one passes."""

import json
import random

import pytest
import tensorflow as tf

from loops.checkpointing import checkpoint
from tests.soak import __main__ as soak
from tests.soak import disturbed, undisturbed

MEGABYTE = 1e6
GOOD = {
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
def test_what_fails_a_soak(name, value):
    assert soak.passed(GOOD)
    assert not soak.passed({**GOOD, name: value})


def test_growth():
    warm_up = [(n * MEGABYTE, n) for n in range(10)]
    flat = [(100 * MEGABYTE, 20 + n % 3) for n in range(30)]
    found = undisturbed.growth(warm_up + flat)
    assert (found["memory_growth"], found["descriptors_growth"]) == (0.0, 0)
    leak = [((100 + n) * MEGABYTE, 20 + n // 10) for n in range(40)]
    found = undisturbed.growth(leak)
    assert found["memory_growth"] == pytest.approx(134.5 / 114.5 - 1)
    assert found["descriptors_growth"] == 2
    assert undisturbed.growth(flat[:3])["memory_growth"] is None


def test_only_training_is_looked_at(monkeypatch):
    """A process that starts has few files open, and one that ends has closed what leaked."""
    steps, open_files = [0, 0, 200, 200, 400, 600], [3, 9, 20, 21, 22, 3]
    looks = len(steps)

    class Process:
        pid = returncode = 0

        def poll(self):
            return None if steps else 0

        def wait(self, timeout):
            return 0

    class Training:
        def start(self, *words):
            assert words == ("train", "--steps=600")
            return Process()

        def step(self):
            return steps.pop(0)

    monkeypatch.setattr(undisturbed.time, "sleep", lambda _: None)
    monkeypatch.setattr(undisturbed, "_resident", lambda pid: MEGABYTE)
    monkeypatch.setattr(undisturbed, "_descriptors", lambda pid: open_files[looks - len(steps)])
    seen = []
    monkeypatch.setattr(undisturbed, "growth", lambda samples: seen.extend(samples) or {})
    assert undisturbed.run(Training(), 600) == {"undisturbed_exit_code": 0, "samples": 3}
    assert [count for _, count in seen] == [20, 21, 22]


class Folder:
    def __init__(self, run_dir):
        self.run_dir = run_dir


def test_every_damage_is_seen(tmp_path):
    """Thirty draws meet all six kinds; the one checkpoint that would be left is never touched."""
    draw, facts = random.Random(0), {"damage": {}}
    disturbed._damage(Folder(tmp_path), draw, facts)
    checkpoint.save(tmp_path, 1, {"c": {"x": tf.Variable([1.0] * 50)}})
    disturbed._damage(Folder(tmp_path), draw, facts)
    assert facts["damage"] == {}
    for step in range(2, 32):
        newest = checkpoint.save(tmp_path, step, {"c": {"x": tf.Variable([1.0] * 50)}})
        disturbed._damage(Folder(tmp_path), draw, facts)
        with pytest.raises(checkpoint.CorruptCheckpointError):
            checkpoint.verify(newest)
        disturbed._damage(Folder(tmp_path), draw, facts)  # a start that saved nothing lay between
        assert sum(facts["damage"].values()) == step - 1
    assert len(facts["damage"]) == 6


@pytest.mark.faults
def test_a_short_soak(tmp_path):
    report = soak.soak(tmp_path, minutes=2.0, seed=1)
    assert report["passed"], json.dumps(report, indent=1)
