"""Forward and step times of architectures side by side, so that no net is unusually slow.

  python -m benchmarks.net_speeds --json=speeds.json
  python -m benchmarks.net_speeds --models=alexnet,resnet_18 --dtype=float32 --batch_size=16

Each net runs in a process of its own, in turn. A step is forward, backward and plain gradient
descent; the column `G/s` is multiply-adds of a forward pass times three over the step's time.
"""

import argparse
import statistics
import time

from benchmarks import harness

_MODULE = "benchmarks.net_speeds"
_SIZE = 224
_DEFAULT_MODELS = "resnetv2_50,resnetse_50,alexnet,alexnet_bn,zfnet"


def main():
    """Measures every net in a child of its own and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=_DEFAULT_MODELS)
    parser.add_argument(
        "--dtype", default=harness.default_dtypes()[0], help="float32, float16 or bfloat16"
    )
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5, help="timed ones; the median counts")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        harness.emit(_measure(arguments))
        return
    words = [f"--dtype={arguments.dtype}", f"--batch_size={arguments.batch_size}"]
    words += [f"--steps={arguments.steps}"] + ["--recompute"] * arguments.recompute
    results = {
        model: harness.run_child(_MODULE, [*words, f"--child={model}"])
        for model in arguments.models.split(",")
    }
    header = ["net", "forward ms", "step ms", "images/s", "G/s", "peak MB", "above start MB"]
    rows = [[model, *figures.values()] for model, figures in results.items()]
    harness.echo(harness.format_table(header, rows))
    if arguments.json:
        words = [f"--models={arguments.models}", *words]
        facts = harness.collect_metadata(_MODULE, words, ("tensorflow-cpu", "tensorflow", "keras"))
        harness.write_json(arguments.json, {"results": results, **facts})


def _measure(arguments):
    """Times of one net, with the allocator that training uses."""
    import tensorflow as tf

    from loops.runtime import malloc
    from nets import registry
    from nets.layers import random_layers
    from nets.macs import count_multiply_adds

    malloc.keep_freed_memory()
    batch_size = arguments.batch_size
    net = registry.build_model(
        registry.NetConfig(
            model=arguments.child,
            num_classes=1000,
            compute_dtype=arguments.dtype,
            recompute=arguments.recompute,
            input_size=_SIZE if registry.has_fixed_input_size(arguments.child) else 0,
        )
    )
    images = tf.random.stateless_normal([batch_size, _SIZE, _SIZE, 3], (1, 2))
    labels = tf.range(batch_size)
    values = [v.value for v in net.trainable_variables]

    @tf.function
    def forward():
        return tf.reduce_sum(net(images, training=False))

    @tf.function
    def step():
        random_layers.assign_samples(net, 0, tf.constant(0, tf.int64))
        with tf.GradientTape() as tape:
            logits = net(images, training=True)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        for value, gradient in zip(values, tape.gradient(loss, values), strict=True):
            value.assign_sub(1e-6 * gradient)
        return tf.reduce_sum(loss)

    before = harness.peak_memory_mb()
    step_seconds = _median_seconds(step, arguments.steps)
    peak = harness.peak_memory_mb()
    operations = 3 * batch_size * count_multiply_adds(net, _SIZE)
    return {
        "forward_ms": 1e3 * _median_seconds(forward, arguments.steps),
        "step_ms": 1e3 * step_seconds,
        "images_per_second": batch_size / step_seconds,
        "gigaops": operations / step_seconds / 1e9,
        "peak_mb": peak,
        "above_start_mb": peak - before,
    }


def _median_seconds(function, times):
    function()
    taken = []
    for _ in range(times):
        started = time.monotonic()
        function().numpy()
        taken.append(time.monotonic() - started)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
