"""The one message about a device that runs out of memory."""

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf

from input_pipeline.errors import UsageError
from input_pipeline.text import tf_error_message


@contextlib.contextmanager
def convert_out_of_memory(flag: str, get_advice: Callable[[], str]) -> Iterator[None]:
    """Turns TensorFlow's out-of-memory error into a UsageError of one line.

    Args:
      flag: what needs the memory, as `--batch_size=256`.
      get_advice: returns what to do about it; called when it happens.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        detail = tf_error_message(error)[:100]
        raise UsageError(f"{flag}: out of memory; {get_advice()} ({detail})") from None
