"""Training steps on random images, shared by several test files."""

import dataclasses

import numpy as np
import tensorflow as tf

import flags
from input_pipeline.augmentation import batch_augment
from input_pipeline.config import DataConfig
from loops.config import resolve
from loops.config.training import OptimizationConfig
from loops.distribution import strategies
from loops.train_state import TrainState
from loops.train_step import StepSettings, TrainStep

BATCH, SIZE, CLASSES = 8, 16, 3


def settings(**changes):
    """Makes StepSettings. `changes` are fields of StepSettings or of OptimizationConfig."""
    optimization = {"label_smoothing": 0.1, "weight_decay": 1e-2}
    known = {f.name for f in dataclasses.fields(OptimizationConfig)} - {"learning_rate"}
    optimization |= {name: changes.pop(name) for name in known & set(changes)}
    values = {
        "global_batch_size": BATCH,
        "preprocess": batch_augment.make_preprocess_fn(
            DataConfig(mean=(127.5,) * 3, std=(64.0,) * 3)
        ),
        "optimization": OptimizationConfig(**optimization),
        "learning_rate": lambda step: 0.05 / (1.0 + tf.cast(step, tf.float32)),
    }
    return StepSettings(**{**values, **changes})


def make_state(strategy, *arguments):
    words = ["test", "--model=resnetv2_18", "--seed=3", *arguments]
    config = resolve.resolve(flags.parse(words))
    return TrainState(strategy, config, CLASSES)


def batches(strategy, images, labels=None):
    """Distributes images [steps * BATCH, S, S, 3] over the replicas as the input pipeline does."""
    labels = np.arange(len(images)) % CLASSES if labels is None else labels
    per_replica = BATCH // strategy.num_replicas_in_sync
    data = {
        "image": images,
        "label": labels.astype(np.int32),
        "sample": np.arange(len(images)),
        "replaced": np.zeros(len(images), np.int64),
    }
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(per_replica, drop_remainder=True)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return iter(strategies.distribute(strategy, lambda: dataset.with_options(options)))


def random_images(steps, seed=0):
    shape = (steps * BATCH, SIZE, SIZE, 3)
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


def run_steps(strategy, images, *arguments, labels=None, **changes):
    """Trains on the images in one call of the step; returns (TrainState, dict of results).

    Args:
      strategy: the distribution strategy.
      images: uint8 [steps * BATCH, S, S, 3].
      *arguments: flags, as on the command line.
      labels: classes of the images, or None for 0, 1, 2, 0, ...
      **changes: see `settings`.
    """
    flags_of_changes = [f"--{k}={v}" for k, v in changes.items() if k in ("optimizer", "ema")]
    state = make_state(strategy, *arguments, *flags_of_changes)
    synchronized = "--sync_batch_norm" in arguments and strategy.num_replicas_in_sync > 1
    step = TrainStep(state, settings(replicas_synchronize=synchronized, **changes))
    steps = tf.constant(len(images) // BATCH, tf.int64)
    results = step(batches(strategy, images, labels), steps)
    return state, {name: float(value) for name, value in results.items()}


def weights(state):
    """Returns the values of the trainable variables by their paths."""
    return {v.path: v.numpy() for v in state.model.trainable_variables}


def assert_replicas_equal(state):
    """Asserts that all replicas have the same weights and optimizer variables."""
    for variable in [*state.model.trainable_variables, *state.optimizer.variables]:
        local = state.strategy.experimental_local_results(variable.value)
        for value in local[1:]:
            np.testing.assert_array_equal(value.numpy(), local[0].numpy(), variable.path)
