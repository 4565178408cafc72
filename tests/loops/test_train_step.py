"""The training step: one replica against two, poisoned batches, L2, and the steps of one call."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.augmentation import batch_augment
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


def test_replicas_stay_equal_without_synchronised_batch_norm(mirrored):
    state, _ = run_steps(mirrored, random_images(2))
    assert_replicas_equal(state)


def test_one_call_of_three_steps_equals_three_calls(one_device):
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


def test_first_step_is_plain_sgd_on_smoothed_loss_with_l2(one_device):
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
    # Nesterov's first step: momentum * v + v with v = -lr * g, that is 1.9 lr g.
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


@pytest.fixture
def poisoned(monkeypatch):
    """Images that are white all over become infinities in front of the net, black ones NaN."""
    normal = batch_augment.normalize

    def normalize(images, mean, std):
        white = tf.reduce_all(images == 255, axis=[1, 2, 3], keepdims=True)
        black = tf.reduce_all(images == 0, axis=[1, 2, 3], keepdims=True)
        finite = normal(images, mean, std)
        return tf.where(black, np.nan, tf.where(white, np.inf, finite))

    monkeypatch.setattr(batch_augment, "normalize", normalize)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(
    ("replicas", "pixel"), [((), 0), *((r, p) for r in ((0,), (1,), (0, 1)) for p in (255, 0))]
)
def test_overflow_is_skipped_alike_on_all_replicas(mirrored, replicas, pixel):
    images = random_images(2)
    for replica in replicas:
        images[replica * BATCH // 2] = pixel
    half = ("--mixed_precision", "--half_dtype=float16", "--initial_loss_scale=8")
    state = make_state(mirrored, *half)
    before = weights(state)
    step = TrainStep(state, settings())
    iterator = batches(mirrored, images)
    first = step(iterator, tf.constant(1, tf.int64))
    changed = any((value != before[path]).any() for path, value in weights(state).items())
    assert changed is (not replicas)
    assert float(state.loss_scale.scale) == (4.0 if replicas else 8.0)
    assert int(state.loss_scale.skipped_steps) == bool(replicas)
    assert float(first["applied"]) == (0.0 if replicas else 1.0)
    assert np.isfinite(float(first["loss"]))
    second = step(iterator, tf.constant(1, tf.int64))  # a clean batch: training goes on
    assert float(second["applied"]) == 1.0
    assert int(state.step) == 2
    assert int(state.loss_scale.skips_in_a_row) == 0
    state.average_batch_norm()
    for variable in state.model.variables:
        for value in mirrored.experimental_local_results(variable.value):
            assert np.isfinite(value.numpy()).all(), variable.path
    assert_replicas_equal(state)


@pytest.mark.usefixtures("poisoned")
def test_float32_stops_at_the_first_bad_step_with_its_weights_kept(one_device):
    images = random_images(4)
    images[BATCH] = 255  # in step 1
    clean, _ = run_steps(one_device, images[:BATCH])
    state, results = run_steps(one_device, images)
    assert int(state.step) == 2  # the rest of the call was not run
    assert results["steps"] == 2.0
    assert results["applied"] == 1.0
    assert bool(state.loss_scale.should_stop())
    expected = weights(clean)
    for path, value in weights(state).items():
        np.testing.assert_array_equal(value, expected[path], path)


def test_average_batch_norm_gives_replicas_the_mean(mirrored):
    state, _ = run_steps(mirrored, random_images(1))
    variable = next(v for v in state.model.non_trainable_variables if "moving_mean" in v.path)
    local = [v.numpy() for v in mirrored.experimental_local_results(variable.value)]
    assert np.abs(local[0] - local[1]).max() > 0
    state.average_batch_norm()
    for value in mirrored.experimental_local_results(variable.value):
        np.testing.assert_allclose(value.numpy(), (local[0] + local[1]) / 2, rtol=1e-6)


def test_statistics_that_no_step_moves_are_not_averaged(mirrored):
    moving = strategies.moving_statistics(make_state(mirrored).model)
    assert {v.path.split("/")[-1] for v in moving} == {"moving_mean", "moving_variance"}
    frozen = make_state(mirrored, "--freeze=backbone", "--init_from=somewhere", "--ema=0.9")
    assert strategies.moving_statistics(frozen.model) == []
    assert frozen.average_batch_norm() is None


def test_data_wait_is_seen(one_device):
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


def test_computing_does_not_count_as_waiting_where_one_thread_does_everything():
    """A thread of its own may read the second clock in time; a single one computed first."""
    code = """if True:
        import time
        import tensorflow as tf
        from loops import train_step

        @tf.function
        def step(iterator):
            batch, waited = train_step.timed_next(iterator)
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
