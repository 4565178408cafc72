"""The two sides of `benchmarks.step_vs_keras`: our training step and plain Keras, same recipe."""

import statistics
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

import flags
from benchmarks.workloads import keras_resnetv2
from benchmarks.workloads.bare_step import make_random_batches
from input_pipeline.augmentation import batch_augment
from loops.config import resolve
from loops.config.config import Config
from loops.distribution import strategies
from loops.optimization import lr_schedules
from loops.train_state import TrainState
from loops.train_step import StepSettings, TrainStep

_MODEL = "resnetv2_50"
_NUM_CLASSES = 1000
_WEIGHT_DECAY = 1e-4
_MOMENTUM = 0.9

# (model, function that runs a number of steps and returns their mean cross-entropy).
Side = tuple[keras.Model, Callable[[int], float]]


def build_ours(size: int, batch_size: int, dtype: str, model: str = _MODEL) -> Side:
    """Builds our network and training step.

    Args:
      size: image size in pixels.
      batch_size: images per step.
      dtype: "float32" or "bfloat16".
      model: architecture, a name of the registry.
    """
    config, settings = _make_recipe(size, batch_size, dtype, model)
    strategy = strategies.make_strategy(config.distribution)
    state = TrainState(strategy, config, _NUM_CLASSES)
    train_step = TrainStep(state, settings)
    dataset = make_random_batches(size, batch_size, _NUM_CLASSES)
    iterator = iter(strategies.distribute(strategy, lambda: dataset))

    def run(num_steps: int) -> float:
        sums = train_step(iterator, tf.constant(num_steps, tf.int64))
        if int(sums["applied"]) != num_steps:
            raise FloatingPointError("gradients are not finite: a skipped step is faster")
        _require_one_trace(train_step.function)
        return float(sums["loss"]) / (num_steps * batch_size)

    return state.model, run


def _make_recipe(size: int, batch_size: int, dtype: str, model: str) -> tuple[Config, StepSettings]:
    half = [] if dtype == "float32" else ["--mixed_precision", f"--half_dtype={dtype}"]
    argv = ["benchmark", f"--model={model}", "--dataset=ilsvrc2012", "--strategy=one"]
    argv += [f"--image_size={size}", f"--batch_size={batch_size}", *half]
    argv += ["--schedule=constant", f"--weight_decay={_WEIGHT_DECAY}", f"--momentum={_MOMENTUM}"]
    config = resolve.resolve(flags.parse(argv))
    optimization = config.optimization
    peak = lr_schedules.scale_by_batch_size(optimization.learning_rate, optimization, batch_size)
    settings = StepSettings(
        global_batch_size=batch_size,
        preprocess=batch_augment.make_preprocess_fn(config.data),
        learning_rate=lambda step: lr_schedules.learning_rate(optimization, step, 1, 0, peak),
        optimization=optimization,
    )
    return config, settings


def build_keras(
    size: int, batch_size: int, dtype: str, depths: Sequence[int] = (3, 4, 6, 3)
) -> Side:
    """Builds the same network and training step in plain Keras; see `build_ours`."""
    config, settings = _make_recipe(size, batch_size, dtype, _MODEL)
    mean, std = (tf.constant(m, tf.float32) for m in (config.data.mean, config.data.std))
    learning_rate = float(settings.learning_rate(tf.constant(0, tf.int64)))

    keras.utils.set_random_seed(0)
    model = keras_resnetv2.build_model(_NUM_CLASSES, depths, dtype, size)
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    optimizer = keras.optimizers.SGD(learning_rate, momentum=_MOMENTUM, nesterov=True)
    optimizer.build(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def train_step(images, labels):
        images = (tf.cast(images, tf.float32) - mean) / std
        with tf.GradientTape() as tape:
            loss = cross_entropy(labels, model(images, training=True))
            penalty = _WEIGHT_DECAY * tf.add_n([tf.nn.l2_loss(kernel.value) for kernel in kernels])
            total = loss + penalty
        gradients = tape.gradient(total, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    iterator = iter(make_random_batches(size, batch_size, _NUM_CLASSES))

    def run(num_steps: int) -> float:
        losses = []
        for _ in range(num_steps):
            batch = next(iterator)
            losses.append(train_step(batch["image"], batch["label"]))
        _require_one_trace(train_step)
        return statistics.mean(float(loss) for loss in losses)

    return model, run


def _require_one_trace(function: tf.types.experimental.PolymorphicFunction) -> None:
    traces = function.experimental_get_tracing_count()
    if traces != 1:
        raise RuntimeError(f"the step was traced {traces} times: a timed step included tracing")
