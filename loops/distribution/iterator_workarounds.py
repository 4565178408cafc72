"""Iterators that deal batches to devices, without tf.data's tuner.

They wrap the dataset in one of their own for each device, which does not take over its options: so
each has a tuner after all, and an iterator that is let go may wait for it to wake (see
`input_pipeline/threads.py`): 20 to 60 s at the end of one evaluation in three. TensorFlow has no
public way to reach those datasets; where its private one is gone, the waits are back and nothing
else changes (`tests/canaries/test_input.py` tells).
"""

import contextlib

import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops
from tensorflow.python.framework import config

from input_pipeline import threads

_MAKER = "_create_device_dataset"


def disable_device_autotuning():
    """Switches the tuner off for every iterator over devices that is made from now on."""
    make = getattr(multi_device_iterator_ops, _MAKER, None)
    if make is None or hasattr(make, "untuned"):
        return

    def untuned(*arguments, **options):
        return make(*arguments, **options).with_options(threads.make_dataset_options())

    untuned.untuned = True
    setattr(multi_device_iterator_ops, _MAKER, untuned)


@contextlib.contextmanager
def suspend_op_determinism():
    """Iterators over data sets that are made in here run as they are written.

    Where operations are to be deterministic TensorFlow rewrites a data set when its iterator is
    made: functions with state, as ours that look for an image that decodes, then load one image
    after the other and never ahead of the step, and a data set that watches another waits for it.
    The order of our images is arithmetic, on any number of threads.
    """
    was_on = config.is_op_determinism_enabled()
    if was_on:
        config.disable_op_determinism()  # TensorFlow has no public way back
    try:
        yield
    finally:
        if was_on:
            tf.config.experimental.enable_op_determinism()
