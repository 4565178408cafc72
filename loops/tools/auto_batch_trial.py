"""Runs two training steps on random images and reports their memory, for `--auto_batch`.

Reads a config and the user's code as JSON from stdin and writes one line of JSON to stdout.
"""

import json
import sys

import tensorflow as tf

from input_pipeline import synthetic, user_code
from loops.config import config_json, flag_parsers
from loops.config.config import Config
from loops.distribution import strategies
from loops.runtime import peak_memory
from loops.train_setup import TrainSetup


def measure(config: Config, size: int) -> dict:
    """Measures a step of two micro-batches.

    Args:
      config: resolved Config.
      size: images of one micro-batch of one replica.

    Returns:
      dict: peak_bytes, replicas, gpu.
    """
    strategy = strategies.make_strategy(config.distribution)
    replicas = strategy.num_replicas_in_sync
    config = config.replace(accumulate=2, batch_size=2 * size * replicas)
    setup = TrainSetup(config, with_val=False, strategy=strategy)
    setup.build()
    data = config.data
    schedule = flag_parsers.parse_image_size_schedule(data.image_size_schedule, 1.0)
    largest = max([data.image_size, *(image_size for _, image_size in schedule)])
    num_classes = len(setup.train_split.class_names)
    iterator = iter(
        strategies.distribute(
            strategy, lambda: synthetic.make_random_batches(largest, num_classes, 2 * size)
        )
    )
    setup.step(iterator, tf.constant(2, tf.int64))
    return {
        "peak_bytes": peak_memory.peak_bytes(),
        "replicas": replicas,
        "gpu": bool(tf.config.list_logical_devices("GPU")),
    }


if __name__ == "__main__":
    given = json.loads(sys.stdin.read())
    user_code.from_json(given["code"])
    config = config_json.from_json(Config, given["config"], "--auto_batch")
    sys.stdout.write(json.dumps(measure(config, int(sys.argv[1]))) + "\n")
