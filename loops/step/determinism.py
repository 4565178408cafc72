"""TensorFlow's deterministic operations, without what they would do to the loading of images."""

import contextlib

import tensorflow as tf
from tensorflow.python.framework import config


@contextlib.contextmanager
def left_to_us():
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
