"""A process that does nothing but save, to be killed.

`python -m tests.loops.checkpointing.saving_forever RUN`.

It goes on from the newest intact step of RUN, says so, and then says each step whose save has
begun: the one before it is on the disk.
"""

import itertools
import pathlib
import sys

import tensorflow as tf

from loops.checkpointing import checkpoint
from loops.checkpointing.async_saver import Saver
from loops.config.training import RunConfig


def main(run_dir):
    """Saves until the end of the process."""
    weights = tf.Variable(tf.zeros([1_000_000]))
    left = [path.name for path in run_dir.iterdir() if checkpoint.parse_step(path) is None]
    checkpoint.remove_unfinished(run_dir)
    newest = checkpoint.find_newest_intact(run_dir)
    resumed = None
    if newest:
        resumed = checkpoint.parse_step(newest)
        checkpoint.restore(newest, {"weights": weights})
        assert (weights.numpy() == resumed).all()
    junk = [path.name for path in run_dir.iterdir() if checkpoint.parse_step(path) is None]
    print("resumed", resumed or 0, len(left), len(junk), flush=True)
    with Saver(run_dir, RunConfig(keep=2), {"weights": weights}, 10.0, resumed) as saver:
        for step in itertools.count((resumed or 0) + 1):
            weights.assign(tf.fill(weights.shape, float(step)))
            saver.save(step)
            print("begun", step, flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
