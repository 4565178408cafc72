"""Tests of the training step: replicas, overflow, weight decay, several steps per call, timing."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from loops.distribution import strategies
from loops.train_step import TrainStep
from tests.loops.small_steps import (
    BATCH,
    CLASSES,
    assert_replicas_equal,
    batches,
    make_state,
    random_images,
    run_steps,
    settings,
    weights,
)

pytestmark = pytest.mark.usefixtures("tiny_net")


def test_two_replicas_equal_one(one_device, mirrored):
    images = random_images(3)
    one, one_results = run_steps(one_device, images, "--sync_batch_norm")
    two, two_results = run_steps(mirrored, images, "--sync_batch_norm")
    assert two_results["loss"] == pytest.approx(one_results["loss"], rel=1e-6)
    assert one_results["steps"] == two_results["steps"] == 3
    expected = weights(one)
    for path, value in weights(two).items():
        np.testing.assert_allclose(value, expected[path], atol=1e-6, err_msg=path)
    assert_replicas_equal(two)


def test_replicas_have_equal_weights_without_sync_batch_norm(mirrored):
    state, _ = run_steps(mirrored, random_images(2))
    assert_replicas_equal(state)


def test_three_steps_per_call_equal_three_calls(one_device):
    images = random_images(3)
    together, _ = run_steps(one_device, images)
    state = make_state(one_device)
    step = TrainStep(state, settings())
    iterator = batches(one_device, images)
    for _ in range(3):
        step(iterator, tf.constant(1, tf.int64))
    assert int(state.step) == int(together.step) == 3
    expected = weights(together)
    for path, value in weights(state).items():
        np.testing.assert_array_equal(value, expected[path], path)
    assert step.function.experimental_get_tracing_count() == 1


def test_first_step_equals_sgd_with_label_smoothing_and_l2(one_device):
    images = random_images(1)
    state = make_state(one_device)
    before = weights(state)
    labels = np.arange(BATCH) % CLASSES
    targets = np.eye(CLASSES)[labels] * 0.9 + 0.1 / CLASSES
    decayed = [k.path for k in state.kernels]
    with tf.GradientTape() as tape:
        logits = state.model((images.astype(np.float32) - 127.5) / 64.0, training=True)
        cross_entropy = -tf.reduce_mean(tf.reduce_sum(targets * tf.nn.log_softmax(logits), 1))
        squares = [tf.reduce_sum(tf.square(k.value)) for k in state.kernels]
        loss = cross_entropy + 0.5 * 1e-2 * tf.add_n(squares)
    gradients = tape.gradient(loss, [v.value for v in state.model.trainable_variables])
    # Nesterov's first step is momentum * v + v with v = -lr * g, so it is -1.9 * lr * g.
    expected = {
        v.path: before[v.path] - 1.9 * 0.05 * g.numpy()
        for v, g in zip(state.model.trainable_variables, gradients, strict=True)
    }
    state = make_state(one_device)
    results = TrainStep(state, settings())(batches(one_device, images), tf.constant(1, tf.int64))
    assert float(results["loss"]) == pytest.approx(BATCH * float(cross_entropy), rel=1e-5)
    for path, value in weights(state).items():
        np.testing.assert_allclose(value, expected[path], atol=2e-5, err_msg=path)
    assert decayed


def preprocess_and_poison(batch):
    """Preprocesses a batch. White images become infinity and black images become NaN."""
    images, targets = settings().preprocess(batch)
    white = tf.reduce_all(batch["image"] == 255, axis=[1, 2, 3], keepdims=True)
    black = tf.reduce_all(batch["image"] == 0, axis=[1, 2, 3], keepdims=True)
    return tf.where(black, np.nan, tf.where(white, np.inf, images)), targets


def test_overflow_is_skipped_on_all_replicas(mirrored):
    """One step, because tracing it takes seconds: a batch of each case, and a finite one after."""
    cases = [((), 0), *((r, p) for r in ((0,), (1,), (0, 1)) for p in (255, 0))]
    images = random_images(2 * len(cases))
    for number, (replicas, pixel) in enumerate(cases):
        for replica in replicas:
            images[2 * number * BATCH + replica * BATCH // 2] = pixel
    state = make_state(mirrored, "--mixed_precision", "--half_dtype=float16")
    state.loss_scale.scale.assign(512.0)
    step = TrainStep(state, settings(preprocess=preprocess_and_poison))
    iterator = batches(mirrored, images)
    scale, skipped = 512.0, 0
    for case in cases:
        is_skipped = bool(case[0])
        before = weights(state)
        first = step(iterator, tf.constant(1, tf.int64))
        changed = any((value != before[path]).any() for path, value in weights(state).items())
        assert changed is (not is_skipped), case
        scale, skipped = scale / (1 + is_skipped), skipped + is_skipped
        assert float(state.loss_scale.scale) == scale, case
        assert int(state.loss_scale.skipped_steps) == skipped, case
        assert float(first["applied"]) == (not is_skipped), case
        assert np.isfinite(float(first["loss"])), case
        second = step(iterator, tf.constant(1, tf.int64))
        assert float(second["applied"]) == 1.0, case
        assert int(state.loss_scale.skips_in_a_row) == 0, case
    assert int(state.step) == len(images) // BATCH
    state.average_batch_norm()
    for variable in state.model.variables:
        for value in mirrored.experimental_local_results(variable.value):
            assert np.isfinite(value.numpy()).all(), variable.path
    assert_replicas_equal(state)


def test_float32_stops_at_first_non_finite_step_and_keeps_weights(one_device):
    images = random_images(4)
    images[BATCH] = 255  # in step 1
    first_step, _ = run_steps(one_device, images[:BATCH], preprocess=preprocess_and_poison)
    state, results = run_steps(one_device, images, preprocess=preprocess_and_poison)
    assert int(state.step) == 2  # the other steps of the call were not run
    assert results["steps"] == 2.0
    assert results["applied"] == 1.0
    assert bool(state.loss_scale.should_stop())
    expected = weights(first_step)
    for path, value in weights(state).items():
        np.testing.assert_array_equal(value, expected[path], path)


def test_average_batch_norm_gives_all_replicas_the_mean(mirrored):
    state, _ = run_steps(mirrored, random_images(1))
    variable = next(v for v in state.model.non_trainable_variables if "moving_mean" in v.path)
    local = [v.numpy() for v in mirrored.experimental_local_results(variable.value)]
    assert np.abs(local[0] - local[1]).max() > 0
    state.average_batch_norm()
    for value in mirrored.experimental_local_results(variable.value):
        np.testing.assert_allclose(value.numpy(), (local[0] + local[1]) / 2, rtol=1e-6)


def test_frozen_batch_norm_statistics_are_not_averaged(mirrored):
    moving = strategies.moving_statistics(make_state(mirrored).model)
    assert {v.path.split("/")[-1] for v in moving} == {"moving_mean", "moving_variance"}
    frozen = make_state(mirrored, "--freeze=backbone", "--init_from=somewhere", "--ema=0.9")
    assert strategies.moving_statistics(frozen.model) == []
    assert frozen.average_batch_norm() is None


def test_data_wait_is_measured(one_device):
    images = random_images(3)

    def slow(batch):
        tf.py_function(lambda: __import__("time").sleep(0.2), [], [])
        return batch

    state = make_state(one_device)
    step = TrainStep(state, settings())
    data = {"image": images, "label": np.zeros(len(images), np.int32)}
    data |= {"sample": np.arange(len(images)), "replaced": np.zeros(len(images), np.int64)}
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(BATCH).map(slow)
    iterator = iter(strategies.distribute(one_device, lambda: dataset))
    assert float(step(iterator, tf.constant(3, tf.int64))["data_wait"]) > 0.1


def test_data_wait_excludes_compute_time_with_one_thread():
    """With one thread for operations, the step could run before the clock is read again."""
    code = """if True:
        import time
        import tensorflow as tf
        from loops import train_step

        @tf.function
        def step(iterator):
            batch, waited = train_step.time_next_batch(iterator)
            product = batch["x"]
            for _ in range(40):
                product = tf.tanh(product @ product)
            return waited, tf.reduce_sum(product)

        iterator = iter(tf.data.Dataset.from_tensors({"x": tf.random.normal([400, 400])}).repeat())
        step(iterator)
        started = time.perf_counter()
        waited, _ = step(iterator)
        print(float(waited) / (time.perf_counter() - started))
    """
    one_thread = {**os.environ, "TF_NUM_INTEROP_THREADS": "1"}
    share = subprocess.run(
        [sys.executable, "-c", code], env=one_thread, stdout=subprocess.PIPE, check=True
    ).stdout
    assert float(share) < 0.5
