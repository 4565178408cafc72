"""Training steps on random images, for several test files."""

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
    """StepSettings; changes that OptimizationConfig knows go there."""
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
    """Deals the images [steps * BATCH, S, S, 3] to the replicas as the pipeline does."""
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
    """Trains over the images in one call; returns the state and the results."""
    flags_of_changes = [f"--{k}={v}" for k, v in changes.items() if k in ("optimizer", "ema")]
    state = make_state(strategy, *arguments, *flags_of_changes)
    meet = "--sync_batch_norm" in arguments and strategy.num_replicas_in_sync > 1
    step = TrainStep(state, settings(replicas_synchronize=meet, **changes))
    steps = tf.constant(len(images) // BATCH, tf.int64)
    results = step(batches(strategy, images, labels), steps)
    return state, {name: float(value) for name, value in results.items()}


def weights(state):
    return {v.path: v.numpy() for v in state.model.trainable_variables}


def assert_replicas_equal(state):
    for variable in [*state.model.trainable_variables, *state.optimizer.variables]:
        local = state.strategy.experimental_local_results(variable.value)
        for value in local[1:]:
            np.testing.assert_array_equal(value.numpy(), local[0].numpy(), variable.path)
