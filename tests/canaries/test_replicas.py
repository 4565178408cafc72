"""What Keras and TensorFlow do wrong on two replicas. When one of these fails, something upstream
was mended: read the test's docstring, and see whether the work-around can go."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.canaries.hanging_worker import HANGS
from tests.loops.distribution.test_workers import ROOT, free_ports


def line(strategy, make_optimizer, initializer="zeros"):
    """y = w x without a bias: (the net, its optimizer)."""
    with strategy.scope():
        dense = keras.layers.Dense(1, use_bias=False, kernel_initializer=initializer)
        net = keras.Sequential([keras.Input((1,)), dense])
        optimizer = make_optimizer()
        optimizer.build(net.trainable_variables)
    return net, optimizer


def step(strategy, net, optimizer, gradients, scope=tf.function):
    """Applies each replica's own gradient in one step."""
    variable = net.trainable_variables[0]

    def of_replica():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradient = tf.gather(tf.constant(gradients), tf.cast(replica, tf.int32))
        optimizer.apply_gradients([(tf.reshape(gradient, [1, 1]), variable)])

    scope(lambda: strategy.run(of_replica))()
    return float(variable.numpy().item())


@pytest.mark.parametrize("poisoned", [0, 1])
def test_loss_scale_optimizer_asks_the_first_replica_alone(mirrored, poisoned):
    """Keras decides by replica 0's gradients, before they are summed: an overflow on replica 1
    goes into the weights and the scale stays. Hence `loops/optimization/loss_scale.py`."""

    def make():
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=8.0)

    net, optimizer = line(mirrored, make, "ones")
    gradients = [8.0, 8.0]
    gradients[poisoned] = float("inf")
    weight = step(mirrored, net, optimizer, gradients)
    scale = float(keras.ops.convert_to_numpy(optimizer.dynamic_scale))
    if poisoned == 0:
        assert (weight, scale) == (1.0, 4.0)
    else:
        assert not np.isfinite(weight) and scale == 8.0


def test_the_loss_scale_has_no_floor(one_device):
    """After enough bad steps the scale is zero, and the next good one divides by it. Hence
    `LOWEST` and `MOST_SKIPS_IN_A_ROW` of `loops/optimization/loss_scale.py`."""

    def make():
        smallest = float(np.finfo(np.float32).tiny)
        inner = keras.optimizers.SGD(0.1)
        return keras.optimizers.LossScaleOptimizer(inner, initial_scale=smallest)

    net, optimizer = line(one_device, make)
    apply = tf.function(lambda g: optimizer.apply_gradients([(g, net.trainable_variables[0])]))
    for _ in range(2):
        apply(tf.constant([[np.inf]]))
    scale = float(keras.ops.convert_to_numpy(optimizer.dynamic_scale))
    assert scale < np.finfo(np.float32).tiny


def test_iterations_stand_still_in_a_skipped_step(one_device):
    """Schedules and data would fall behind: `TrainState.step` counts instead."""

    def make():
        return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=8.0)

    net, optimizer = line(one_device, make)
    step(one_device, net, optimizer, [float("inf")])
    assert int(optimizer.inner_optimizer.iterations.numpy()) == 0


def test_gradients_are_clipped_before_they_are_summed(mirrored):
    """10 and -9.5, clipped to 1: their sum 0.5 should pass.

    Hence `loops/optimization/gradient_clipping.py`."""
    net, optimizer = line(mirrored, lambda: keras.optimizers.SGD(1.0, global_clipnorm=1.0))
    assert step(mirrored, net, optimizer, [10.0, -9.5]) == 0.0


def test_keras_accumulation_fails_on_replicas(mirrored):
    """Keras merges replicas inside of a condition. Hence `_accumulated` of
    `loops/train_step.py`."""
    net, optimizer = line(
        mirrored, lambda: keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)
    )
    with pytest.raises(RuntimeError, match="merge_call"):
        step(mirrored, net, optimizer, [1.0, 2.0])


def test_overwriting_by_keras_average_fails_on_replicas(mirrored):
    """Hence `loops/optimization/ema.py`."""

    def make():
        return keras.optimizers.SGD(1.0, use_ema=True, ema_overwrite_frequency=1)

    net, optimizer = line(mirrored, make)
    with pytest.raises(RuntimeError, match="merge_call"):
        step(mirrored, net, optimizer, [1.0, 1.0])


def test_keras_average_leaves_out_the_statistics():
    """An averaged net would judge with statistics that are not averages. Hence
    `loops/optimization/ema.py`."""
    net = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization()])
    optimizer = keras.optimizers.SGD(1.0, use_ema=True)
    optimizer.build(net.trainable_variables)
    assert len(net.variables) == 4
    assert len(optimizer._model_variables_moving_average) == 2


@pytest.mark.parametrize("synchronized", [False, True])
def test_statistics_of_replicas_drift_apart(mirrored, synchronized):
    """Each moves towards its own batches, and a checkpoint holds the first one's. Hence
    `make_average_batch_norm` of `loops/distribution/strategies.py`."""
    with mirrored.scope():
        norm = keras.layers.BatchNormalization(synchronized=synchronized, momentum=0.0)
        norm.build((None, 1))

    def of_replica():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        norm(tf.ones([4, 1]) * (tf.cast(replica, tf.float32) + 1.0), training=True)

    tf.function(lambda: mirrored.run(of_replica))()
    means = mirrored.experimental_local_results(norm.moving_mean.value)
    equal = means[0].numpy() == means[1].numpy()
    assert equal == synchronized


def test_a_replica_without_images_fails(mirrored):
    """The last batch of a set must be padded and masked. Hence `eval_dataset` of
    `input_pipeline/pipeline.py`."""
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
def test_an_optimizer_that_was_not_built_costs_a_second_trace(built, traces):
    """Variables may be made in the first trace only. Hence `optimizer.build` in
    `loops/optimization/optimizers.py`."""
    variable = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    if built:
        optimizer.build([variable])
    seen = []

    def apply(gradient):
        seen.append(gradient)
        optimizer.apply([gradient], [variable])

    tf.function(apply, autograph=False)(tf.constant([1.0]))
    assert len(seen) == traces


def test_compiling_around_replicas_fails(mirrored):
    """Hence only the two passes of a replica are compiled, in `loops/train_step.py`."""

    def of_replica():
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.constant([1.0]))

    compiled = tf.function(lambda: mirrored.run(of_replica), jit_compile=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="device"):
        compiled()


@pytest.mark.faults
def test_loss_scale_optimizer_hangs_workers_that_differ():
    """One of two workers waits for a reduction that the other one skips. Hence
    `loops/optimization/loss_scale.py`."""
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = []
    for number in range(2):
        task = {"type": "worker", "index": number}
        told = json.dumps({"cluster": {"worker": hosts}, "task": task})
        command = [sys.executable, "-m", "tests.canaries.hanging_worker", str(number)]
        environment = {**os.environ, "TF_CONFIG": told}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment))
    try:
        codes = [process.wait(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert HANGS in codes


def test_replicas_cannot_meet_in_a_loop_of_the_graph(mirrored):
    """Hence micro-batches of synchronised batch norm follow each other without a loop, in
    `_accumulated` of `loops/train_step.py`."""

    def of_replica():
        context = tf.distribute.get_replica_context()
        add = lambda n, x: (n + 1, context.all_reduce("SUM", x))  # noqa: E731
        return tf.while_loop(lambda n, _: n < 2, add, (tf.constant(0), tf.constant(1.0)))

    with pytest.raises(RuntimeError, match="merge_call"):
        tf.function(lambda: mirrored.run(of_replica), autograph=False)()


def test_collectives_know_no_maximum():
    """Hence `_largest` of `loops/distribution/workers.py` gathers first."""
    assert {op.name for op in tf.distribute.ReduceOp} == {"SUM", "MEAN"}


def test_slurm_cannot_do_without_nvidia_smi(monkeypatch):
    """Nor number the nodes as Slurm does: hence `resolver` of `loops/distribution/slurm.py` tells
    of GPUs that nobody sets, and lists the workers itself."""
    told = {"PROCID": "0", "NTASKS": "2", "STEP_NUM_TASKS": "2", "STEP_NODELIST": "n[2,10]"}
    told |= {"STEP_TASKS_PER_NODE": "1(x2)", "LOCALID": "0"}
    for name, value in told.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="nvidia-smi"):
        tf.distribute.cluster_resolver.SlurmClusterResolver()
    told = tf.distribute.cluster_resolver.SlurmClusterResolver(
        gpus_per_node=1, gpus_per_task=1, auto_set_gpu=False
    )
    assert told.cluster_spec().as_dict() == {"worker": ["n10:8888", "n2:8888"]}
    assert list(told._task_configuration) == ["n2", "n10"]
