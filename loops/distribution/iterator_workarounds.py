"""Works around slow iterators of tf.data: autotuning on devices and deterministic ops.

A distributed iterator wraps the dataset in one dataset per device, without the dataset's options.
Those datasets are therefore autotuned, and destroying the iterator may wait until the autotuner
wakes up, see `input_pipeline/threads.py`. This took 20 to 60 s at the end of one evaluation in
three. TensorFlow has no public way to set the options of those datasets. If its private function
disappears, the waits return and nothing else changes; `tests/canaries/test_input.py` detects this.
"""

import contextlib
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops
from tensorflow.python.framework import config

from input_pipeline import threads

_MAKER = "_create_device_dataset"


def disable_device_autotuning() -> None:
    """Disables autotuning for all distributed iterators created from now on."""
    make = getattr(multi_device_iterator_ops, _MAKER, None)
    if make is None or hasattr(make, "untuned"):
        return

    def untuned(*args, **kwargs) -> tf.data.Dataset:
        return make(*args, **kwargs).with_options(threads.make_dataset_options())

    untuned.untuned = True  # type: ignore[attr-defined]  # marks the patched function
    setattr(multi_device_iterator_ops, _MAKER, untuned)


@contextlib.contextmanager
def suspend_op_determinism() -> Iterator[None]:
    """Disables op determinism inside the context, for the creation of dataset iterators.

    With op determinism, TensorFlow rewrites a dataset when its iterator is created. Stateful
    functions, such as our search for an image that decodes, then load one image at a time and
    never ahead of the step. A dataset that watches another one would also wait for it. Our sample
    order does not need op determinism, because it is computed from the seed.
    """
    was_enabled = config.is_op_determinism_enabled()
    if was_enabled:
        config.disable_op_determinism()  # TensorFlow has no public function for this
    try:
        yield
    finally:
        if was_enabled:
            tf.config.experimental.enable_op_determinism()
