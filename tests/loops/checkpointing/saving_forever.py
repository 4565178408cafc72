"""A process that only saves checkpoints, to be killed by a test.

`python -m tests.loops.checkpointing.saving_forever RUN`.

It resumes from the newest intact step of RUN and prints that step. Then it prints each step whose
save has begun. The step before it is on the disk.
"""

import itertools
import pathlib
import sys

import tensorflow as tf

from loops.checkpointing import checkpoint
from loops.checkpointing.async_saver import Saver
from loops.config.training import RunConfig


def main(run_dir: pathlib.Path) -> None:
    """Saves until the process is killed."""
    weights = tf.Variable(tf.zeros([1_000_000]))
    before = [path.name for path in run_dir.iterdir() if checkpoint.parse_step(path) is None]
    checkpoint.remove_unfinished(run_dir)
    newest = checkpoint.find_newest_intact(run_dir)
    resumed = None
    if newest:
        resumed = checkpoint.parse_step(newest)
        checkpoint.restore(newest, {"weights": weights})
        assert (weights.numpy() == resumed).all()
    after = [path.name for path in run_dir.iterdir() if checkpoint.parse_step(path) is None]
    print("resumed", resumed or 0, len(before), len(after), flush=True)
    with Saver(run_dir, RunConfig(keep=2), {"weights": weights}, 10.0, resumed) as saver:
        for step in itertools.count((resumed or 0) + 1):
            weights.assign(tf.fill(weights.shape, float(step)))
            saver.save(step)
            print("begun", step, flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
