"""Convergence test: ten seeds must reach the accuracy of a stored reference.

As in MLPerf's reference convergence points, the reference has twice as many runs and the test is a
t-test. A mean that is too good fails as well. Explain a difference before you write a new
reference with `python -m tests.loops.test_learning`.
"""

import json
import pathlib
import tempfile

import pytest
from scipy import stats

import flags
from loops import train
from tests.loops import tiny_nets

REFERENCE = pathlib.Path(__file__).with_name("learning_reference.json")
SEEDS = range(10)
REFERENCE_SEEDS = range(100, 120)
ALPHA = 0.05
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


def p_value(top1):
    """Returns the p-value of Welch's two-sided t-test against the reference."""
    reference = json.loads(REFERENCE.read_text())
    assert reference["flags"] == FLAGS
    return stats.ttest_ind(top1, reference["top1"], equal_var=False).pvalue


@pytest.mark.faults
def test_convergence_equals_reference(tmp_path):
    top1 = accuracies(SEEDS, tmp_path)
    assert p_value(top1) > ALPHA, top1


@pytest.mark.faults
@pytest.mark.parametrize("words", [["--learning_rate=0.4"], ["--augment=none"]])
def test_convergence_test_detects_changes(tmp_path, words):
    """Half the learning rate and missing augmentation are both detected."""
    top1 = accuracies(SEEDS, tmp_path, *words)
    assert p_value(top1) < ALPHA, top1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        top1 = accuracies(REFERENCE_SEEDS, folder)
    REFERENCE.write_text(json.dumps({"flags": FLAGS, "top1": top1}, indent=1) + "\n")
