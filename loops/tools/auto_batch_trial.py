"""Two training steps on random images, and the memory they took: what `--auto_batch` starts.

Reads a config as JSON from stdin and writes one line of JSON to stdout.
"""

import json
import sys

import numpy as np
import tensorflow as tf

from input_pipeline.sources import source
from loops import train
from loops.config import config_json
from loops.config.config import Config, replace
from loops.distribution import strategies
from loops.runtime import peak_memory
from loops.train_state import TrainState


def measure(config, size):
    """Measures a step of two micro-batches of `size` images per replica.

    Args:
      config: resolved Config.
      size: images of one micro-batch of one replica.

    Returns:
      dict: peak_bytes, replicas, gpu.
    """
    strategy = strategies.make_strategy(config.distribution)
    replicas = strategy.num_replicas_in_sync
    config = replace(config, {"accumulate": 2, "batch_size": 2 * size * replicas})
    classes = len(source.open_split(config.data, "train").class_names)
    state = TrainState(strategy, config, classes)
    iterator = iter(strategies.distribute(strategy, lambda: _make_random_dataset(config, 2 * size)))
    step = train.make_step(config, state, lambda step: tf.constant(0.0))
    step(iterator, tf.constant(2, tf.int64))
    return {
        "peak_bytes": peak_memory.peak_bytes(),
        "replicas": replicas,
        "gpu": bool(tf.config.list_logical_devices("GPU")),
    }


def _make_random_dataset(config, count):
    sizes = [config.data.image_size]
    sizes += [
        int(stage.split(":")[1]) for stage in config.data.image_size_schedule.split(",") if stage
    ]
    side = max(sizes)
    images = np.random.default_rng(0).integers(0, 255, (count, side, side, 3), np.uint8)
    batch = {
        "image": images,
        "label": np.zeros(count, np.int32),
        "sample": np.arange(count),
        "replaced": np.zeros(count, np.int64),
    }
    return tf.data.Dataset.from_tensors(batch).repeat()


if __name__ == "__main__":
    found = config_json.from_json(Config, json.loads(sys.stdin.read()), "--auto_batch")
    sys.stdout.write(json.dumps(measure(found, int(sys.argv[1]))) + "\n")
