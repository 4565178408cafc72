"""The benchmarks that run a net: the training step, an evaluation's forward pass, the loop."""

import contextlib
import dataclasses
import itertools
import pathlib
import tempfile
import time

import tensorflow as tf

from input_pipeline import datasets
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import UsageError
from input_pipeline.sources import source
from loops import evaluator as evaluators
from loops.checkpointing import restore
from loops.config import dataset_flags
from loops.distribution import strategies, workers
from loops.monitoring import metric_writer
from loops.optimization import mixed_precision
from loops.optimization.train_schedule import Length
from loops.runtime.stop_signals import NoSignals
from loops.tools.benchmark import benchmark_setup, throughput
from loops.train import make_step
from loops.train_input import TrainFeed
from loops.train_loop import TrainingLoop

_WARM_UP_CALLS = 3


def step(config, given):
    """Times the training step on images that are made up and held in memory.

    Returns:
      (figures, resolved Config, title, rows).
    """
    config = benchmark_setup.synthetic(config, given)
    strategy = benchmark_setup.make_strategy(config)
    num_classes = benchmark_setup.num_classes_of(config.data)
    state, config = benchmark_setup.make_state(strategy, config, given, num_classes)
    of_replica = strategies.per_replica_batch(config.data.batch_size, strategy)
    batch_augment.require_pairs(config.data, of_replica // config.optimization.accumulate)
    examples = datasets.get(config.data.dataset).split_sizes.get("train", benchmark_setup.ENDLESS)
    train_step = make_step(config, state, Length(config, examples).learning_rate)
    data = config.data
    iterator = iter(
        strategies.distribute(
            strategy, lambda: benchmark_setup.training_images(data, num_classes, of_replica)
        )
    )
    call = _Counted(train_step)
    timings = throughput.timed(lambda steps: call(iterator, tf.constant(steps, tf.int64)))
    return _of_training("training step on made-up images", timings, call, state, config)


def training(config, given):
    """Times the training loop with its input pipeline; evaluations and saves are left out.

    Returns:
      (figures, resolved Config, title, rows).
    """
    config = dataclasses.replace(config, data=dataset_flags.with_dataset(config.data, given))
    dataset_flags.require_named_set(config.data, given)
    config = benchmark_setup.resolved(config, given)
    strategy = benchmark_setup.make_strategy(config)
    train_split = source.open_split(config.data, "train")
    val_split = source.open_split(config.data, "val", train_split.class_names)
    state, config = benchmark_setup.make_state(
        strategy, config, given, len(train_split.class_names)
    )
    length = Length(config, train_split.num_examples)
    parts = config.optimization.accumulate
    seed = config.length.seed
    feed = TrainFeed(strategy, train_split, config.data, seed, (), parts)
    call = _Counted(make_step(config, state, length.learning_rate), throughput.CALLS)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = pathlib.Path(folder)
        with metric_writer.Measurements(run_dir, 0) as sink:
            loop = TrainingLoop(
                config, run_dir, state, feed, call, val_split, sink, length, NoSignals(),
                workers.Workers(strategy),
            )  # fmt: skip
            with contextlib.suppress(_Enough):
                loop.run()
    title = f"training loop on {config.data.dataset}, {config.data.augment}"
    return _of_training(title, call.timings(), call, state, config)


def evaluation(config, given):
    """Times the forward pass of an evaluation on views that are made up and held in memory.

    Returns:
      (figures, resolved Config, title, rows).
    """
    config = benchmark_setup.synthetic(config, given)
    strategy = benchmark_setup.make_strategy(config)
    replicas = strategy.num_replicas_in_sync
    dtype = mixed_precision.compute_dtype(config.precision)
    net = restore.build(strategy, config.net, benchmark_setup.num_classes_of(config.data), dtype)
    data, crops = config.data, config.evaluation.crops
    most = evaluators.views_per_batch(replicas)
    wanted = config.evaluation.eval_batch_size or max(1, most // crops)
    of_replica = -(-wanted // replicas)
    logits = evaluators.logits_fn(net, data.mean, data.std)
    forward = tf.function(
        lambda batch: strategy.run(lambda b: {"views": logits(b["views"])}, args=(batch,)),
        autograph=False,
    )
    iterator = iter(
        strategies.distribute(strategy, lambda: benchmark_setup.views(data, crops, of_replica))
    )

    def call(steps):
        for _ in range(steps):
            workers.gathered(strategy, forward(next(iterator)))

    timings = throughput.timed(call)
    images, operations = of_replica * replicas, benchmark_setup.OF_FORWARD * crops
    results = throughput.figures(timings, images, operations, net, config, dtype, replicas)
    results |= {"crops": crops, "views_per_second": crops * results["images_per_second"]}
    rows = throughput.rows(results)
    rows.insert(3, ("views", f"{crops} an image, {results['views_per_second']:.1f} views/s"))
    return results, config, "forward pass of an evaluation on made-up images", rows


class _Enough(Exception):
    """All calls have been timed."""


class _Counted:
    """The training step, which also takes note of its calls.

    Args:
      train_step: see `make_train_step`.
      most: calls to time before `_Enough` is raised, the first ones left out; 0 for any number.
    """

    def __init__(self, train_step, most=0):
        self._train_step = train_step
        self._most = most
        self._started = []
        self._steps = []
        self._waited = []
        self.skipped = 0

    def __call__(self, iterator, num_steps):
        self._started.append(time.perf_counter())
        if self._most and len(self._steps) == self._most + _WARM_UP_CALLS:
            raise _Enough
        sums = self._train_step(iterator, num_steps)
        steps, done = int(num_steps), int(sums["steps"])
        if done != steps:
            raise UsageError("the gradients are not finite: try a lower --learning_rate")
        self.skipped += done - int(sums["applied"])
        self._steps.append(steps)
        self._waited.append(float(sums["data_wait"]))
        return sums

    def timings(self):
        """Timings from the start of a call to that of the next: the loop's own work counts."""
        seconds = [b - a for a, b in itertools.pairwise(self._started)]
        kept = slice(_WARM_UP_CALLS, None)
        return throughput.Timings(seconds[0], seconds[kept], self._steps[kept])

    def share_waiting(self, timings):
        """Which part of the timed seconds went by in waiting for data."""
        return min(1.0, sum(self._waited[-len(timings.seconds) :]) / sum(timings.seconds))


def _of_training(title, timings, call, state, config):
    """Figures of training steps, as `step` and `training` return them."""
    dtype = mixed_precision.compute_dtype(config.precision)
    replicas, images = state.strategy.num_replicas_in_sync, config.data.batch_size
    operations = benchmark_setup.OF_TRAINING
    results = throughput.figures(timings, images, operations, state.model, config, dtype, replicas)
    results |= {"data_wait": call.share_waiting(timings), "skipped_steps": call.skipped}
    rows = throughput.rows(results)
    rows.append(("waiting for data", f"{results['data_wait']:.1%} of the time"))
    if call.skipped:
        rows.append(("skipped steps", f"{call.skipped}, gradients not finite: a little faster"))
    return results, config, title, rows
