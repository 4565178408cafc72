"""Notices that a worker of the data service is gone; TensorFlow would wait for it for an hour."""

import contextlib
import socket
import time

import grpc
import tensorflow as tf

from input_pipeline import threads
from input_pipeline.errors import UserError

# So long a worker may be silent; it is asked every few seconds, and answers at once.
_TIMEOUT_SECONDS = 20.0
_POLL_SECONDS = 2.0
_CONNECT_TIMEOUT_SECONDS = 5.0
_GET_WORKERS = "/tensorflow.data.DispatcherService/GetWorkers"
# By these an error of the pipeline is known for one of the service.
UNRESPONSIVE = "of the data service does not answer"
RESTARTED = "a worker of the data service was restarted"


class ServiceLost(UserError):
    """The batches that a worker of the data service has taken with it will not come."""

    exit_code = 1


def to_service_lost(error):
    """The ServiceLost that a tf.errors.OpError of the pipeline stands for, or None."""
    text = " ".join(error.message.split())
    mend = "start its processes, and name the run again to resume it"
    if UNRESPONSIVE in text:
        worker = text.partition(f" {UNRESPONSIVE}")[0].rpartition(" ")[2]
        return ServiceLost(f"worker {worker} {UNRESPONSIVE}; {mend}")
    if RESTARTED in text:
        return ServiceLost(f"{RESTARTED}, and its batches begin anew; name the run again")
    return None


def list_workers(dispatcher):
    """HOST:PORT of the workers that have reported to a dispatcher, sorted.

    TensorFlow has no function for it, but the dispatcher answers the question.

    Raises:
      grpc.RpcError: nobody answers.
    """
    with grpc.insecure_channel(dispatcher) as channel:
        ask = channel.unary_unary(_GET_WORKERS, lambda request: request, lambda reply: reply)
        reply = ask(b"", timeout=_CONNECT_TIMEOUT_SECONDS)
    return sorted(
        {field.decode() for message in _parse_strings(reply) for field in _parse_strings(message)}
    )


def _parse_strings(message):
    """The values of field 1 of a protocol buffer that has strings or messages there, no other."""
    found, at = [], 0
    while at < len(message):
        if message[at] != 0x0A:  # field 1, with a length
            raise ValueError("the dispatcher's list of workers has another form")
        length, shift, at = 0, 0, at + 1
        while True:
            byte = message[at]
            length, shift, at = length | (byte & 0x7F) << shift, shift + 7, at + 1
            if byte < 0x80:
                break
        found.append(message[at : at + length])
        at += length
    return found


def watch(batches, dispatcher):
    """The same data set, which fails once a worker is silent for too long.

    Args:
      batches: tf.data.Dataset without end, of what the workers load.
      dispatcher: HOST:PORT.

    Returns:
      tf.data.Dataset; the error is one that `to_service_lost` knows.
    """
    ask = _WorkerPoller(dispatcher)

    def beat(_):
        tf.numpy_function(ask, [], [])
        return tf.nest.map_structure(
            lambda spec: tf.zeros(spec.shape, spec.dtype), batches.element_spec
        )

    # It yields nothing and, in the end, an error. Whichever of the two has something comes first.
    heart = tf.data.Dataset.counter().map(beat).filter(lambda *_: False)
    both = [tf.data.Dataset.from_tensors(one) for one in (batches, heart)]
    # Who asks sleeps in between, in a thread that the batches would have on a single core.
    one_more = threads.make_dataset_options(threads.num_parallel_calls(0) + 1)
    return (
        both[0]
        .concatenate(both[1])
        .interleave(lambda one: one, cycle_length=2, num_parallel_calls=2, deterministic=False)
        .with_options(one_more)
    )


class _WorkerPoller:
    """Calls the roll of the workers, now and then."""

    def __init__(self, dispatcher):
        self._dispatcher = dispatcher
        self._last_answer = {}
        self._update_workers()

    def _look_up(self):
        with contextlib.suppress(grpc.RpcError):  # the workers do without a dispatcher
            for name in list_workers(self._dispatcher):
                self._last_answer.setdefault(name, time.monotonic())

    def __call__(self):
        time.sleep(_POLL_SECONDS)
        self._update_workers()
        now = time.monotonic()
        for name, last in self._last_answer.items():
            if _is_reachable(name):
                self._last_answer[name] = time.monotonic()
            elif now - last > _TIMEOUT_SECONDS:
                raise RuntimeError(f"{name} {UNRESPONSIVE}")


def _is_reachable(name):
    host, _, port = name.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True
