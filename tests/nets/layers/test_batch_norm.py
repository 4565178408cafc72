"""BatchNorm against Keras's batch norm in float32: outputs, gradients and moving statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nets import registry
from nets.layers import batch_norm
from nets.layers.batch_norm import BatchNorm

CHANNELS = 6


@pytest.fixture
def inputs():
    """Three batches [4, 5, 7, C] whose channels have different means and deviations."""
    rng = np.random.default_rng(0)
    spread, mean = rng.uniform(0.2, 3.0, CHANNELS), rng.uniform(-5.0, 5.0, CHANNELS)
    return (rng.normal(size=(3, 4, 5, 7, CHANNELS)) * spread + mean).astype(np.float32)


def build_scaled(layer):
    """Builds a layer and sets scales and offsets other than the initial ones; returns it."""
    layer.build((None, None, None, CHANNELS))
    layer.gamma.assign(np.linspace(0.5, 2.0, CHANNELS))
    layer.beta.assign(np.linspace(-1.0, 1.0, CHANNELS))
    return layer


@pytest.fixture
def pair():
    """Our layer and Keras's, with the same constants and weights."""
    reference = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    return build_scaled(BatchNorm()), build_scaled(reference)


def test_variables_match_keras(pair):
    ours, reference = pair
    assert [(v.name, v.shape, v.trainable) for v in ours.variables] == [
        (v.name, v.shape, v.trainable) for v in reference.variables
    ]


def test_outputs_and_gradients_match_keras(pair, inputs):
    x = tf.constant(inputs[0])
    weights = tf.constant(np.random.default_rng(1).normal(size=x.shape).astype(np.float32))
    results = []
    for layer in pair:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True)
            # Not a plain sum, because its gradient with respect to the input is always zero.
            loss = tf.reduce_sum(weights * outputs * outputs)
        results.append([outputs, *tape.gradient(loss, [x, *layer.trainable_variables])])
    for result, expected in zip(*results, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=2e-4)
        assert np.abs(expected).max() > 0.1


def test_moving_statistics_and_inference_match_keras_after_three_steps(pair, inputs):
    for layer in pair:
        for batch in inputs:
            layer(batch, training=True)
    ours, reference = pair
    for name in ("moving_mean", "moving_variance"):
        result, expected = getattr(ours, name), getattr(reference, name)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    # One channel computed by hand: the biased variance, and 0.9 of the old statistics.
    mean, variance = 0.0, 1.0
    for batch in inputs.astype(np.float64)[..., 2]:
        mean, variance = 0.9 * mean + 0.1 * batch.mean(), 0.9 * variance + 0.1 * batch.var()
    assert ours.moving_mean.numpy()[2] == pytest.approx(mean, rel=1e-5)
    assert ours.moving_variance.numpy()[2] == pytest.approx(variance, rel=1e-5)

    outputs = [layer(inputs[0] + 1.0, training=False) for layer in pair]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)


def test_inference_does_not_change_the_statistics(inputs):
    layer = build_scaled(BatchNorm())
    before = [v.numpy() for v in layer.variables]
    layer(inputs[0], training=False)
    layer(inputs[0])
    for variable, old in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)


def test_frozen_layer_uses_inference_in_training(inputs):
    layer = build_scaled(BatchNorm())
    layer.trainable = False
    trained, inferred = layer(inputs[0], training=True), layer(inputs[0], training=False)
    np.testing.assert_array_equal(trained, inferred)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(CHANNELS))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_non_finite_batch_does_not_change_the_statistics(inputs, bad):
    """This holds for all channels, because a skipped step must not change finite ones either."""
    layer = build_scaled(BatchNorm())
    layer(inputs[0], training=True)
    before = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    batch = inputs[1].copy()
    batch[0, 0, 0, 3] = bad
    batch[1, 0, 0, 3] = -bad
    outputs = layer(batch, training=True)
    np.testing.assert_array_equal(layer.moving_mean, before[0])
    np.testing.assert_array_equal(layer.moving_variance, before[1])
    assert not np.isfinite(outputs[..., 3]).all() or bad == 3e38
    layer(inputs[2], training=True)
    assert not np.array_equal(layer.moving_mean, before[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_float32_statistics(inputs, dtype):
    half = build_scaled(BatchNorm(dtype=f"mixed_{dtype}"))
    exact = build_scaled(BatchNorm())
    outputs = half(inputs[0], training=True)
    assert outputs.dtype == dtype
    assert {v.dtype for v in half.variables} == {"float32"}
    rounded = np.asarray(tf.cast(tf.cast(inputs[0], dtype), tf.float32))
    expected = exact(rounded, training=True)
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(getattr(half, name), getattr(exact, name), rtol=1e-4, atol=1e-5)
    tolerance = 4 * (2.0**-8 if dtype == "bfloat16" else 2.0**-11)
    np.testing.assert_allclose(
        np.asarray(outputs, np.float32), expected, rtol=tolerance, atol=tolerance
    )


def run_synchronized(mirrored, batches):
    """Trains two replicas, each on one half of every batch.

    Returns:
      ([outputs, input gradients] of each batch, the layer, the weights of the loss).
    """
    with mirrored.scope():
        layer = build_scaled(BatchNorm(synchronized=True))
    weights = np.random.default_rng(1).normal(size=batches[0].shape).astype(np.float32)

    @tf.function
    def step(x, w):
        def replica(x, w):
            with tf.GradientTape() as tape:
                tape.watch(x)
                outputs = layer(x, training=True)
                loss = tf.reduce_sum(w * outputs * outputs)
            return outputs, tape.gradient(loss, x)

        return mirrored.run(replica, args=(x, w))

    def split(whole):
        halves = np.split(whole, 2)
        return mirrored.experimental_distribute_values_from_function(
            lambda context: tf.constant(halves[context.replica_id_in_sync_group])
        )

    results = [step(split(batch), split(weights)) for batch in batches]
    local = mirrored.experimental_local_results
    joined = [[np.concatenate([t.numpy() for t in local(v)]) for v in pair] for pair in results]
    return joined, layer, weights


def normalize(batch, layer):
    """Normalizes in float64: the fused kernel itself is off by up to 2.3e-5, on one thread."""
    x = batch.astype(np.float64)
    x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + layer.epsilon)
    return x * layer.gamma.numpy() + layer.beta.numpy()


def test_synchronized_replicas_equal_one_device(mirrored, inputs):
    # With a mean far from zero, a variance from the mean square would lose precision.
    batches = inputs + np.float32(50.0)
    # The replicas get different images, so their moments differ without the all-reduce.
    batches[:, :2] += np.float32(2.0)
    results, layer, weights = run_synchronized(mirrored, batches)
    whole = build_scaled(BatchNorm())
    for batch, (outputs, gradient) in zip(batches, results, strict=True):
        x = tf.constant(batch)
        with tf.GradientTape() as tape:
            tape.watch(x)
            expected = whole(x, training=True)
            loss = tf.reduce_sum(weights * expected * expected)
        np.testing.assert_allclose(outputs, normalize(batch, whole), rtol=0, atol=2e-5)
        np.testing.assert_allclose(gradient, tape.gradient(loss, x), rtol=1e-4, atol=2e-4)
    for name in ("moving_mean", "moving_variance"):
        copies = mirrored.experimental_local_results(getattr(layer, name).value)
        assert len(copies) == 2
        for copy in copies:
            np.testing.assert_allclose(copy, getattr(whole, name), rtol=1e-6, atol=1e-6)


def test_synchronized_replicas_equal_one_device_to_six_digits_near_zero(mirrored):
    batches = np.random.default_rng(2).normal(size=(3, 8, 4, 4, CHANNELS)).astype(np.float32)
    batches[:, :4] *= np.float32(1.5)
    results, layer, _ = run_synchronized(mirrored, batches)
    whole = build_scaled(BatchNorm())
    for batch, (outputs, _) in zip(batches, results, strict=True):
        np.testing.assert_allclose(outputs, whole(batch, training=True), rtol=1e-6, atol=1e-6)
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(getattr(layer, name), getattr(whole, name), atol=1e-6)


def test_unsynchronized_replicas_differ_from_one_device(mirrored, inputs):
    """Shows that the comparison above can fail: the same replicas without the all-reduce."""
    batch = inputs[0].copy()
    batch[:2] += 2.0
    whole = build_scaled(BatchNorm())(batch, training=True)
    halves = [build_scaled(BatchNorm())(half, training=True) for half in np.split(batch, 2)]
    assert np.abs(np.concatenate(halves) - whole).max() > 0.1


def test_batch_norm_values_are_those_of_the_smallest_map():
    net = registry.NetConfig(model="alexnet_bn", input_size=64, num_classes=2)
    # 64 px: 15, pooled to 7 before the second batch norm, which is the last.
    assert batch_norm.count_values_per_image(registry.build_model(net), 64) == 49
    net = registry.NetConfig(model="alexnet", input_size=64, num_classes=2)
    assert batch_norm.count_values_per_image(registry.build_model(net), 64) is None
