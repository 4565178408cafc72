"""Measures forward and step times of several architectures, to find one that is unusually slow.

  python -m benchmarks.net_speeds --json=speeds.json
  python -m benchmarks.net_speeds --models=alexnet,resnet_18 --dtype=float32 --batch_size=16

Each network runs in a new process. A step is a forward pass, a backward pass and an update by
plain gradient descent. The column `G/s` is three times the multiply-adds of a forward pass divided
by the step time.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks import harness

_MODULE = "benchmarks.net_speeds"
_IMAGE_SIZE = 224
_DEFAULT_MODELS = "resnetv2_50,resnetse_50,alexnet,alexnet_bn,zfnet"


def main() -> None:
    """Measures each network in a child process and prints a table."""
    parser = harness.BenchmarkParser(__doc__)
    parser.add_flag("--models", _DEFAULT_MODELS)
    parser.add_flag("--dtype", harness.default_dtypes()[0], "float32, float16 or bfloat16")
    parser.add_flag("--batch_size", 32, "images per step")
    parser.add_flag("--steps", 5, "timed steps; the median counts")
    parser.add_flag("--recompute", False, "recompute activations in the backward pass")
    parser.add_hidden("--child")
    args = parser.parse_args()
    if args.child:
        harness.emit(_measure(args))
        return

    words = parser.format_flags(args)
    report = harness.start_report(_MODULE, words)
    report["results"] = harness.run_cases(_MODULE, args.models.split(","), words)
    header = ["net", "forward ms", "step ms", "images/s", "G/s", "peak MB", "above start MB"]
    rows = [[model, *result.values()] for model, result in report["results"].items()]
    harness.echo(harness.format_table(header, rows))
    harness.save_report(args.json, report)


def _measure(args: argparse.Namespace) -> dict[str, float]:
    """Measures one network, with the allocator settings of training."""
    import tensorflow as tf

    from loops.runtime import malloc
    from nets import registry
    from nets.layers import random_layers
    from nets.macs import count_multiply_adds

    malloc.keep_freed_memory()
    batch_size = args.batch_size
    model = registry.build_model(
        registry.NetConfig(
            model=args.child,
            num_classes=1000,
            compute_dtype=args.dtype,
            recompute=args.recompute,
            input_size=_IMAGE_SIZE if registry.has_fixed_input_size(args.child) else 0,
        )
    )
    images = tf.random.stateless_normal([batch_size, _IMAGE_SIZE, _IMAGE_SIZE, 3], (1, 2))
    labels = tf.range(batch_size)
    weights = [v.value for v in model.trainable_variables]

    @tf.function
    def forward():
        return tf.reduce_sum(model(images, training=False))

    @tf.function
    def step():
        random_layers.assign_samples(model, 0, tf.constant(0, tf.int64))
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(1e-6 * gradient)
        return tf.reduce_sum(loss)

    before = harness.peak_memory_mb()
    step_seconds = _median_seconds(step, args.steps)
    peak = harness.peak_memory_mb()
    operations = 3 * batch_size * count_multiply_adds(model, _IMAGE_SIZE)
    return {
        "forward_ms": 1e3 * _median_seconds(forward, args.steps),
        "step_ms": 1e3 * step_seconds,
        "images_per_second": batch_size / step_seconds,
        "gigaops": operations / step_seconds / 1e9,
        "peak_mb": peak,
        "above_start_mb": peak - before,
    }


def _median_seconds(function: Callable[[], Any], count: int) -> float:
    """Returns the median time of `count` calls, after a first call that traces."""
    function()
    seconds = []
    for _ in range(count):
        started = time.monotonic()
        function().numpy()
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
