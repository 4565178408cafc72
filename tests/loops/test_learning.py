"""Convergence test: ten seeds must reach the accuracies of a stored reference.

Each seed is compared with itself. Other rounding moves the accuracy of a seed by 1.5 points, other
seeds by 3. A mean that is too good fails as well. Explain a difference before you write a new
reference with `python -m tests.loops.test_learning`.
"""

import json
import pathlib
import tempfile

import numpy as np
import pytest

import flags
from loops import train
from tests.loops import tiny_nets

REFERENCE = pathlib.Path(__file__).with_name("learning_reference.json")
SEEDS = range(10)
# Of the mean over the seeds: four times its standard deviation from rounding. Welch's t-test of ten
# seeds against twenty others, at alpha 0.05, would allow 0.028.
MAX_DIFFERENCE = 0.02
FLAGS = [
    *("--dataset=shapes", "--model=resnetv2_18", "--image_size=32", "--batch_size=32", "--crops=1"),
    *("--steps=120", "--eval_every=1000", "--save_every=1000", "--strategy=one"),
    *("--learning_rate=0.8", "--warmup_epochs=0.5", "--eval_batch_size=100", "--log_every=1000"),
]


def accuracies(seeds, root, *words):
    """Returns the top-1 accuracy on `shapes` after a short training of a tiny net, per seed."""
    top1 = []
    with tiny_nets.two_convolutions():
        for seed in seeds:
            argv = ["main.py", *FLAGS, f"--seed={seed}", f"--run_name={seed}", *words]
            results = train.run(flags.parse([*argv, f"--checkpoint_dir={root}"]))
            top1.append(results["top1"])
    return top1


def difference(top1):
    """Returns by how much the mean accuracy is above the reference."""
    reference = json.loads(REFERENCE.read_text())
    assert reference["flags"] == FLAGS
    return np.mean(top1) - np.mean(reference["top1"])


@pytest.mark.faults
def test_convergence_equals_reference(tmp_path):
    top1 = accuracies(SEEDS, tmp_path)
    assert abs(difference(top1)) < MAX_DIFFERENCE, top1


@pytest.mark.faults
@pytest.mark.parametrize("word", ["--learning_rate=0.4", "--momentum=0.5"])
def test_convergence_test_detects_changes(tmp_path, word):
    assert abs(difference(accuracies(SEEDS, tmp_path, word))) > MAX_DIFFERENCE


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        top1 = accuracies(SEEDS, folder)
    REFERENCE.write_text(json.dumps({"flags": FLAGS, "top1": top1}, indent=1) + "\n")
