"""Bugs and limits of Keras and TensorFlow on two replicas that this project works around.

If a test fails after an upgrade, the bug is fixed upstream. Its docstring names the workaround
that may be removed.
"""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.canaries.hanging_worker import HANG_EXIT_CODE
from tests.loops.distribution.test_workers import ROOT, find_free_ports


def make_linear_model(strategy, make_optimizer, initializer="zeros"):
    """Returns (model, optimizer) of y = w x without a bias."""
    with strategy.scope():
        dense = keras.layers.Dense(1, use_bias=False, kernel_initializer=initializer)
        net = keras.Sequential([keras.Input((1,)), dense])
        optimizer = make_optimizer()
        optimizer.build(net.trainable_variables)
    return net, optimizer


def apply_gradients(strategy, net, optimizer, gradients, scope=tf.function):
    """Applies a different gradient on each replica; returns the new weight."""
    variable = net.trainable_variables[0]

    def on_replica():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradient = tf.gather(tf.constant(gradients), tf.cast(replica, tf.int32))
        optimizer.apply_gradients([(tf.reshape(gradient, [1, 1]), variable)])

    scope(lambda: strategy.run(on_replica))()
    return float(variable.numpy().item())


@pytest.mark.parametrize("overflowing", [0, 1])
def test_loss_scale_optimizer_checks_only_first_replica(mirrored, overflowing):
    """Keras checks the gradients of replica 0 before they are summed.

    An overflow on replica 1 enters the weights, and the scale does not change. Workaround:
    `loops/optimization/loss_scale.py`.
    """

    def make():
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=8.0)

    net, optimizer = make_linear_model(mirrored, make, "ones")
    gradients = [8.0, 8.0]
    gradients[overflowing] = float("inf")
    weight = apply_gradients(mirrored, net, optimizer, gradients)
    scale = float(keras.ops.convert_to_numpy(optimizer.dynamic_scale))
    if overflowing == 0:
        assert (weight, scale) == (1.0, 4.0)
    else:
        assert not np.isfinite(weight) and scale == 8.0


def test_loss_scale_has_no_minimum(one_device):
    """After enough overflows the scale is zero, and the next step divides by it.

    Workaround: `MIN_SCALE` and `MAX_CONSECUTIVE_SKIPS` of `loops/optimization/loss_scale.py`.
    """

    def make():
        smallest = float(np.finfo(np.float32).tiny)
        inner = keras.optimizers.SGD(0.1)
        return keras.optimizers.LossScaleOptimizer(inner, initial_scale=smallest)

    net, optimizer = make_linear_model(one_device, make)
    apply = tf.function(lambda g: optimizer.apply_gradients([(g, net.trainable_variables[0])]))
    for _ in range(2):
        apply(tf.constant([[np.inf]]))
    scale = float(keras.ops.convert_to_numpy(optimizer.dynamic_scale))
    assert scale < np.finfo(np.float32).tiny


def test_skipped_steps_do_not_count_as_iterations(one_device):
    """Schedules and data would fall behind. Workaround: `TrainState.step` counts all steps."""

    def make():
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=8.0)

    net, optimizer = make_linear_model(one_device, make)
    apply_gradients(one_device, net, optimizer, [float("inf")])
    assert int(optimizer.inner_optimizer.iterations.numpy()) == 0


def test_gradients_are_clipped_before_all_reduce(mirrored):
    """The sum of 10 and -9.5 is 0.5 and should not be clipped to 1.

    Workaround: `loops/optimization/gradient_clipping.py`.
    """
    net, optimizer = make_linear_model(
        mirrored, lambda: keras.optimizers.SGD(1.0, global_clipnorm=1.0)
    )
    assert apply_gradients(mirrored, net, optimizer, [10.0, -9.5]) == 0.0


def test_keras_gradient_accumulation_fails_on_replicas(mirrored):
    """Keras merges replicas inside a condition.

    Workaround: `_accumulate_gradients` of `loops/train_step.py`.
    """
    net, optimizer = make_linear_model(
        mirrored, lambda: keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)
    )
    with pytest.raises(RuntimeError, match="merge_call"):
        apply_gradients(mirrored, net, optimizer, [1.0, 2.0])


def test_keras_ema_overwrite_fails_on_replicas(mirrored):
    """Workaround: `loops/optimization/ema.py`."""

    def make():
        return keras.optimizers.SGD(1.0, use_ema=True, ema_overwrite_frequency=1)

    net, optimizer = make_linear_model(mirrored, make)
    with pytest.raises(RuntimeError, match="merge_call"):
        apply_gradients(mirrored, net, optimizer, [1.0, 1.0])


def test_keras_ema_omits_batch_norm_statistics():
    """A model with averaged weights needs averaged statistics.

    Workaround: `loops/optimization/ema.py`.
    """
    net = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization()])
    optimizer = keras.optimizers.SGD(1.0, use_ema=True)
    optimizer.build(net.trainable_variables)
    assert len(net.variables) == 4
    assert len(optimizer._model_variables_moving_average) == 2


@pytest.mark.parametrize("synchronized", [False, True])
def test_batch_norm_statistics_differ_between_replicas(mirrored, synchronized):
    """Each replica updates them from its own batches; a checkpoint has those of the first.

    Workaround: `make_batch_norm_averager` of `loops/distribution/strategies.py`.
    """
    with mirrored.scope():
        norm = keras.layers.BatchNormalization(synchronized=synchronized, momentum=0.0)
        norm.build((None, 1))

    def on_replica():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        norm(tf.ones([4, 1]) * (tf.cast(replica, tf.float32) + 1.0), training=True)

    tf.function(lambda: mirrored.run(on_replica))()
    means = mirrored.experimental_local_results(norm.moving_mean.value)
    equal = means[0].numpy() == means[1].numpy()
    assert equal == synchronized


def test_replica_without_images_fails(mirrored):
    """The last batch of a dataset must be padded and masked.

    Workaround: `eval_dataset` of `input_pipeline/pipeline.py`.
    """
    batches = tf.data.Dataset.from_tensor_slices(tf.ones([3, 4, 4, 1])).batch(2)
    batches = list(mirrored.experimental_distribute_dataset(batches))
    sizes = [int(v.shape[0]) for v in mirrored.experimental_local_results(batches[-1])]
    assert sizes == [1, 0]
    kernel = tf.ones([3, 3, 1, 1])

    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "SAME") ** 2)
        return tape.gradient(loss, images)

    def moments(images):
        return tf.nn.moments(images, [0, 1, 2])[0]

    results = mirrored.run(lambda images: (gradient(images), moments(images)), (batches[-1],))
    means = mirrored.experimental_local_results(results[1])
    assert np.isfinite(means[0].numpy()).all() and np.isnan(means[1].numpy()).all()


@pytest.mark.parametrize(("built", "traces"), [(True, 1), (False, 2)])
def test_optimizer_without_build_is_traced_twice(built, traces):
    """Variables may be created only in the first trace.

    Workaround: `optimizer.build` in `loops/optimization/optimizers.py`.
    """
    variable = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    if built:
        optimizer.build([variable])
    calls = []

    def apply(gradient):
        calls.append(gradient)
        optimizer.apply([gradient], [variable])

    tf.function(apply, autograph=False)(tf.constant([1.0]))
    assert len(calls) == traces


def test_xla_over_replicas_fails(mirrored):
    """Workaround: `loops/train_step.py` compiles only a replica's forward and backward pass."""

    def on_replica():
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.constant([1.0]))

    compiled = tf.function(lambda: mirrored.run(on_replica), jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="device"):
        compiled()


@pytest.mark.faults
def test_loss_scale_optimizer_hangs_if_workers_differ():
    """One of two workers waits for an all-reduce that the other one skips.

    Workaround: `loops/optimization/loss_scale.py`.
    """
    hosts = [f"127.0.0.1:{port}" for port in find_free_ports(2)]
    processes = []
    for number in range(2):
        task = {"type": "worker", "index": number}
        tf_config = json.dumps({"cluster": {"worker": hosts}, "task": task})
        command = [sys.executable, "-m", "tests.canaries.hanging_worker", str(number)]
        environment = {**os.environ, "TF_CONFIG": tf_config}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment))
    try:
        codes = [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert HANG_EXIT_CODE in codes


def test_all_reduce_in_graph_loop_fails(mirrored):
    """Synchronized batch norm cannot run inside a loop.

    Workaround: `_accumulate_gradients` of `loops/train_step.py` unrolls the micro-batches.
    """

    def on_replica():
        context = tf.distribute.get_replica_context()
        add = lambda n, x: (n + 1, context.all_reduce("SUM", x))  # noqa: E731
        return tf.while_loop(lambda n, _: n < 2, add, (tf.constant(0), tf.constant(1.0)))

    with pytest.raises(RuntimeError, match="merge_call"):
        tf.function(lambda: mirrored.run(on_replica), autograph=False)()


def test_collectives_have_no_maximum():
    """Workaround: `_all_reduce_max` of `loops/distribution/workers.py` gathers first."""
    assert {op.name for op in tf.distribute.ReduceOp} == {"SUM", "MEAN"}


@pytest.mark.faults
def test_python_stands_still_while_tensorflow_connects_workers():
    """No thread runs, so no signal is handled. Workaround: `distribution/blocking_connect.py`."""
    hosts = [f"127.0.0.1:{port}" for port in find_free_ports(2)]
    task = {"type": "worker", "index": 0}
    tf_config = json.dumps({"cluster": {"worker": hosts}, "task": task})
    code = (
        "import threading, time, tensorflow as tf\n"
        "connect = tf.distribute.MultiWorkerMirroredStrategy\n"
        "print('begin', flush=True)\n"
        "threading.Thread(target=connect, daemon=True).start()\n"
        "time.sleep(5)\n"
        "print('end', flush=True)\n"
    )
    with pytest.raises(subprocess.TimeoutExpired) as expired:
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "TF_CONFIG": tf_config},
            stdout=subprocess.PIPE,
            timeout=40,
        )
    assert expired.value.stdout == b"begin\n"
