"""The benchmarks that run a net: the training step, an evaluation's forward pass, the loop."""

import contextlib
import itertools
import pathlib
import tempfile
import time
from collections.abc import Iterator

import tensorflow as tf

from input_pipeline import datasets, synthetic
from input_pipeline.arithmetic import ceil_div
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import UsageError
from input_pipeline.user_code import display_name
from loops import evaluator, train_setup
from loops.checkpointing import restore
from loops.checkpointing.loss_trace import NullLossTrace
from loops.config import dataset_flags
from loops.config.config import Config
from loops.distribution import strategies, workers
from loops.monitoring import metric_writer
from loops.optimization import mixed_precision
from loops.optimization.train_schedule import TrainSchedule
from loops.runtime.stop_signals import StopSignals
from loops.tools.benchmark import benchmark_setup, throughput
from loops.train_loop import RunOutputs, TrainLoop
from loops.train_state import TrainState
from loops.train_step import TrainStep

# Results, the config that ran, title and rows of the table.
Measurement = tuple[dict, Config, str, list[tuple[str, str]]]

_WARM_UP_CALLS = 3


def measure_step(config: Config) -> Measurement:
    """Times the training step on random images in memory."""
    config = benchmark_setup.resolve_synthetic(config)
    strategy = benchmark_setup.make_strategy(config)
    num_classes = benchmark_setup.count_classes(config.data)
    state, config = benchmark_setup.make_state(strategy, config, num_classes)
    per_replica = strategies.per_replica_batch_size(config.data.batch_size, strategy)
    batch_augment.require_even_batch(config.data, per_replica // config.optimization.accumulate)
    spec = datasets.get(config.data.dataset)
    num_examples = spec.split_sizes.get("train", benchmark_setup.ENDLESS)
    schedule = TrainSchedule(config, num_examples)
    iterator = iter(
        strategies.distribute(
            strategy,
            lambda: synthetic.make_random_batches(config.data.image_size, num_classes, per_replica),
        )
    )
    step = _TimedStep(train_setup.make_step(config, state, schedule.learning_rate))
    timings = throughput.time_calls(lambda steps: step(iterator, tf.constant(steps, tf.int64)))
    return _make_training_results("training step on random images", timings, step, state, config)


def measure_training(config: Config) -> Measurement:
    """Times the training loop with its input pipeline, without evaluations and saves."""
    config = dataset_flags.resolve_dataset(config)
    dataset_flags.require_named_dataset(config)
    config = benchmark_setup.resolve_benchmark(config)
    strategy = benchmark_setup.make_strategy(config)
    num_classes = benchmark_setup.count_classes(config.data)
    state, config = benchmark_setup.make_state(strategy, config, num_classes)
    setup = train_setup.TrainSetup(config, strategy=strategy)
    setup.state = state
    step = _TimedStep(
        train_setup.make_step(config, state, setup.schedule.learning_rate),
        max_calls=throughput.TIMED_CALLS,
    )
    setup.step = step
    with tempfile.TemporaryDirectory() as folder:
        run_dir = pathlib.Path(folder)
        with metric_writer.MetricWriter(run_dir, 0) as writer:
            outputs = RunOutputs(run_dir, writer, NullLossTrace())
            with contextlib.suppress(_AllCallsTimed):
                TrainLoop(setup, outputs, StopSignals()).run()
    title = f"training loop on {config.data.dataset}, {display_name(config.data.augment)}"
    return _make_training_results(title, step.timings(), step, state, config)


def measure_evaluation(config: Config) -> Measurement:
    """Times the forward pass of an evaluation on random views in memory."""
    config = benchmark_setup.resolve_synthetic(config)
    strategy = benchmark_setup.make_strategy(config)
    replicas = strategy.num_replicas_in_sync
    dtype = mixed_precision.resolve_compute_dtype(config.precision)
    num_classes = benchmark_setup.count_classes(config.data)
    model = restore.build_model(strategy, config.net, num_classes, dtype)
    data, crops = config.data, config.evaluation.crops
    default = max(1, evaluator.choose_views_per_batch(replicas) // crops)
    per_replica = ceil_div(config.evaluation.eval_batch_size or default, replicas)
    compute_logits = evaluator.make_logits_fn(model, data.mean, data.std)
    forward = tf.function(
        lambda batch: strategy.run(lambda b: {"views": compute_logits(b["views"])}, args=(batch,)),
        autograph=False,
    )
    iterator = iter(
        strategies.distribute(
            strategy, lambda: synthetic.make_random_views(data.image_size, crops, per_replica)
        )
    )

    def call(steps):
        for _ in range(steps):
            workers.gather(strategy, forward(next(iterator)))

    timings = throughput.time_calls(call)
    images, operations = per_replica * replicas, benchmark_setup.FORWARD_FLOPS_PER_MAC * crops
    results = throughput.compute_results(
        timings, images, operations, model, config, dtype, replicas
    )
    results |= {"crops": crops, "views_per_second": crops * results["images_per_second"]}
    rows = throughput.format_rows(results)
    rows.insert(3, ("views", f"{crops} per image, {results['views_per_second']:.1f} views/s"))
    return results, config, "forward pass of an evaluation on random images", rows


class _AllCallsTimed(Exception):
    """Ends the training loop."""


class _TimedStep:
    """The training step with a clock.

    Args:
      step: the training step.
      max_calls: timed calls before `_AllCallsTimed` is raised; 0 for any number.
    """

    def __init__(self, step: TrainStep, max_calls: int = 0):
        self._step = step
        self._max_calls = max_calls
        self._started = []
        self._steps = []
        self._waited = []
        self.skipped = 0

    def __call__(self, iterator: Iterator, num_steps: tf.Tensor) -> dict[str, tf.Tensor]:
        self._started.append(time.perf_counter())
        if self._max_calls and len(self._steps) == self._max_calls + _WARM_UP_CALLS:
            raise _AllCallsTimed
        sums = self._step(iterator, num_steps)
        requested, steps = int(num_steps), int(sums["steps"])
        if steps != requested:
            raise UsageError("the gradients are not finite: try a lower --learning_rate")
        self.skipped += steps - int(sums["applied"])
        self._steps.append(steps)
        self._waited.append(float(sums["data_wait"]))
        return sums

    def timings(self) -> throughput.Timings:
        """Returns the times from the start of a call to the start of the next one.

        They include the work of the loop between two calls.
        """
        seconds = [b - a for a, b in itertools.pairwise(self._started)]
        timed = slice(_WARM_UP_CALLS, None)
        return throughput.Timings(seconds[0], seconds[timed], self._steps[timed])

    def compute_data_wait_share(self, timings: throughput.Timings) -> float:
        """Returns the fraction of the timed seconds spent waiting for data."""
        return min(1.0, sum(self._waited[-len(timings.seconds) :]) / sum(timings.seconds))


def _make_training_results(
    title: str,
    timings: throughput.Timings,
    step: _TimedStep,
    state: TrainState,
    config: Config,
) -> Measurement:
    """Computes the results of timed training steps."""
    dtype = mixed_precision.resolve_compute_dtype(config.precision)
    replicas, images = state.strategy.num_replicas_in_sync, config.data.batch_size
    operations = benchmark_setup.TRAINING_FLOPS_PER_MAC
    results = throughput.compute_results(
        timings, images, operations, state.model, config, dtype, replicas
    )
    results |= {"data_wait": step.compute_data_wait_share(timings), "skipped_steps": step.skipped}
    rows = throughput.format_rows(results)
    rows.append(("waiting for data", f"{results['data_wait']:.1%} of the time"))
    if step.skipped:
        rows.append(("skipped steps", f"{step.skipped}, gradients not finite: slightly faster"))
    return results, config, title, rows
