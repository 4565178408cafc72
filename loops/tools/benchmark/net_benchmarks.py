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
from loops.optimization.train_schedule import TrainSchedule
from loops.runtime.stop_signals import NoSignals
from loops.tools.benchmark import benchmark_setup, throughput
from loops.train import make_step
from loops.train_input import TrainInput
from loops.train_loop import TrainLoop

_WARM_UP_CALLS = 3


def measure_step(config, given):
    """Times the training step on images that are made up and held in memory.

    Returns:
      (figures, resolved Config, title, rows).
    """
    config = benchmark_setup.resolve_synthetic(config, given)
    strategy = benchmark_setup.make_strategy(config)
    num_classes = benchmark_setup.count_classes(config.data)
    state, config = benchmark_setup.make_state(strategy, config, given, num_classes)
    of_replica = strategies.per_replica_batch_size(config.data.batch_size, strategy)
    batch_augment.require_even_batch(config.data, of_replica // config.optimization.accumulate)
    examples = datasets.get(config.data.dataset).split_sizes.get("train", benchmark_setup.ENDLESS)
    train_step = make_step(config, state, TrainSchedule(config, examples).learning_rate)
    data = config.data
    iterator = iter(
        strategies.distribute(
            strategy, lambda: benchmark_setup.make_random_images(data, num_classes, of_replica)
        )
    )
    call = _TimedStep(train_step)
    timings = throughput.time_calls(lambda steps: call(iterator, tf.constant(steps, tf.int64)))
    return _make_training_results("training step on made-up images", timings, call, state, config)


def measure_training(config, given):
    """Times the training loop with its input pipeline; evaluations and saves are left out.

    Returns:
      (figures, resolved Config, title, rows).
    """
    config = dataclasses.replace(config, data=dataset_flags.resolve_dataset(config.data, given))
    dataset_flags.require_named_dataset(config.data, given)
    config = benchmark_setup.resolve(config, given)
    strategy = benchmark_setup.make_strategy(config)
    train_split = source.open_split(config.data, "train")
    val_split = source.open_split(config.data, "val", train_split.class_names)
    state, config = benchmark_setup.make_state(
        strategy, config, given, len(train_split.class_names)
    )
    length = TrainSchedule(config, train_split.num_examples)
    parts = config.optimization.accumulate
    seed = config.length.seed
    feed = TrainInput(strategy, train_split, config.data, seed, (), parts)
    call = _TimedStep(make_step(config, state, length.learning_rate), throughput.TIMED_CALLS)
    with tempfile.TemporaryDirectory() as folder:
        run_dir = pathlib.Path(folder)
        with metric_writer.MetricWriter(run_dir, 0) as sink:
            loop = TrainLoop(
                config, run_dir, state, feed, call, val_split, sink, length, NoSignals(),
                workers.Workers(strategy),
            )  # fmt: skip
            with contextlib.suppress(_AllCallsTimed):
                loop.run()
    title = f"training loop on {config.data.dataset}, {config.data.augment}"
    return _make_training_results(title, call.timings(), call, state, config)


def measure_evaluation(config, given):
    """Times the forward pass of an evaluation on views that are made up and held in memory.

    Returns:
      (figures, resolved Config, title, rows).
    """
    config = benchmark_setup.resolve_synthetic(config, given)
    strategy = benchmark_setup.make_strategy(config)
    replicas = strategy.num_replicas_in_sync
    dtype = mixed_precision.resolve_compute_dtype(config.precision)
    net = restore.build_model(
        strategy, config.net, benchmark_setup.count_classes(config.data), dtype
    )
    data, crops = config.data, config.evaluation.crops
    most = evaluators.choose_views_per_batch(replicas)
    wanted = config.evaluation.eval_batch_size or max(1, most // crops)
    of_replica = -(-wanted // replicas)
    logits = evaluators.make_logits_fn(net, data.mean, data.std)
    forward = tf.function(
        lambda batch: strategy.run(lambda b: {"views": logits(b["views"])}, args=(batch,)),
        autograph=False,
    )
    iterator = iter(
        strategies.distribute(
            strategy, lambda: benchmark_setup.make_random_views(data, crops, of_replica)
        )
    )

    def call(steps):
        for _ in range(steps):
            workers.gather(strategy, forward(next(iterator)))

    timings = throughput.time_calls(call)
    images, operations = of_replica * replicas, benchmark_setup.FORWARD_FLOPS_PER_MAC * crops
    results = throughput.compute_results(timings, images, operations, net, config, dtype, replicas)
    results |= {"crops": crops, "views_per_second": crops * results["images_per_second"]}
    rows = throughput.format_rows(results)
    rows.insert(3, ("views", f"{crops} an image, {results['views_per_second']:.1f} views/s"))
    return results, config, "forward pass of an evaluation on made-up images", rows


class _AllCallsTimed(Exception):
    """All calls have been timed."""


class _TimedStep:
    """The training step, which also takes note of its calls.

    Args:
      train_step: see `make_train_step`.
      most: calls to time before `_AllCallsTimed` is raised, warm-up excluded; 0 for any number.
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
            raise _AllCallsTimed
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


def _make_training_results(title, timings, call, state, config):
    """Figures of training steps, as `measure_step` and `measure_training` return them."""
    dtype = mixed_precision.resolve_compute_dtype(config.precision)
    replicas, images = state.strategy.num_replicas_in_sync, config.data.batch_size
    operations = benchmark_setup.TRAINING_FLOPS_PER_MAC
    results = throughput.compute_results(
        timings, images, operations, state.model, config, dtype, replicas
    )
    results |= {"data_wait": call.compute_data_wait_share(timings), "skipped_steps": call.skipped}
    rows = throughput.format_rows(results)
    rows.append(("waiting for data", f"{results['data_wait']:.1%} of the time"))
    if call.skipped:
        rows.append(("skipped steps", f"{call.skipped}, gradients not finite: a little faster"))
    return results, config, title, rows
