"""Learning as it was: ten seeds against a stored reference, and neither worse nor better.

As in MLPerf's reference convergence points, the reference is twice as many runs, the test is a
t-test, and a mean that is too good fails as well: what made it so wants an explanation first, and
then `python -m tests.loops.test_learning` writes the reference anew.
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
SEEDS_OF_REFERENCE = range(100, 120)
ALPHA = 0.05
FLAGS = [
    *("--dataset=shapes", "--model=resnetv2_18", "--image_size=32", "--batch_size=32", "--crops=1"),
    *("--steps=120", "--eval_every=1000", "--save_every=1000", "--strategy=one"),
    *("--learning_rate=0.8", "--warmup_epochs=0.5", "--eval_batch_size=100", "--log_every=1000"),
]


def accuracies(seeds, root, *words):
    """Top-1 on `shapes` after a short training of a tiny net, for each seed."""
    found = []
    with tiny_nets.two_convolutions():
        for seed in seeds:
            argv = ["main.py", *FLAGS, f"--seed={seed}", f"--run_name={seed}", *words]
            results = train.run(flags.parse([*argv, f"--checkpoint_dir={root}"]))
            found.append(results["top1"])
    return found


def p_value(found):
    """Of Welch's t-test, two-sided, against the reference."""
    reference = json.loads(REFERENCE.read_text())
    assert reference["flags"] == FLAGS
    return stats.ttest_ind(found, reference["top1"], equal_var=False).pvalue


@pytest.mark.faults
def test_ten_seeds_learn_as_the_reference_did(tmp_path):
    found = accuracies(SEEDS, tmp_path)
    assert p_value(found) > ALPHA, found


@pytest.mark.faults
@pytest.mark.parametrize("words", [["--learning_rate=0.4"], ["--augment=none"]])
def test_other_learning_is_noticed(tmp_path, words):
    """Slower, with half the rate; or other than it was, without augmentation."""
    found = accuracies(SEEDS, tmp_path, *words)
    assert p_value(found) < ALPHA, found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        top1 = accuracies(SEEDS_OF_REFERENCE, folder)
    REFERENCE.write_text(json.dumps({"flags": FLAGS, "top1": top1}, indent=1) + "\n")
