"""Iterators that deal batches to devices, without tf.data's tuner.

They wrap the dataset in one of their own for each device, which does not take over its options: so
each has a tuner after all, and an iterator that is let go may wait for it to wake (see
`input_pipeline/threads.py`): 20 to 60 s at the end of one evaluation in three. TensorFlow has no
public way to reach those datasets; where its private one is gone, the waits are back and nothing
else changes (`tests/canaries/test_input.py` tells).
"""

from tensorflow.python.data.ops import multi_device_iterator_ops

from input_pipeline import threads

_MAKER = "_create_device_dataset"


def leave_untuned():
    """Switches the tuner off for every iterator over devices that is made from now on."""
    make = getattr(multi_device_iterator_ops, _MAKER, None)
    if make is None or hasattr(make, "untuned"):
        return

    def untuned(*arguments, **options):
        return make(*arguments, **options).with_options(threads.options())

    untuned.untuned = True
    setattr(multi_device_iterator_ops, _MAKER, untuned)
