"""Dropout and stochastic depth: random numbers depend only on seed, layer and sample."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nets.layers import random_layers
from nets.layers.kit import Kit


def draw(first, batch, seed=3, stream=5, units=7, number=0):
    samples = tf.constant([seed, first, number], tf.int64)
    return random_layers.uniform(samples, stream, batch, units).numpy()


@pytest.mark.parametrize("units", [1, 4, 7, 64])
def test_random_numbers_do_not_depend_on_how_the_batch_is_split(units):
    whole = draw(1000, 12, units=units)
    for sizes in ((5, 7), (1, 11), (4, 4, 4), (1,) * 12):
        first, parts = 1000, []
        for size in sizes:
            parts.append(draw(first, size, units=units))
            first += size
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_random_numbers_in_graphs_and_with_xla():
    """XLA's Philox generates other numbers, but these depend only on the sample too."""

    def draw_in_graph(first, batch, **options):
        function = tf.function(lambda s: random_layers.uniform(s, 5, batch, 7), **options)
        return function(tf.constant([3, first, 0], tf.int64)).numpy()

    np.testing.assert_array_equal(draw_in_graph(2**40, 9), draw(2**40, 9))
    whole = draw_in_graph(2**40, 9, jit_compile=True)
    np.testing.assert_array_equal(draw_in_graph(2**40 + 4, 5, jit_compile=True), whole[4:])
    assert len(np.unique(whole)) == whole.size


def test_random_numbers_depend_on_seed_stream_and_sample():
    base = draw(0, 64)
    for other in (draw(64, 64), draw(0, 64, seed=4), draw(0, 64, stream=6)):
        assert not np.any(np.all(base == other, axis=1))
    assert len(np.unique(base)) > 0.99 * base.size


def test_random_numbers_are_uniform_and_uncorrelated():
    x = draw(2**33, 20_000, units=5)
    assert x.min() >= 0 and x.max() < 1
    counts = np.histogram(x, 20, (0, 1))[0]
    expected = x.size / 20
    # Chi-square test with 19 degrees of freedom, p = 0.001.
    assert ((counts - expected) ** 2 / expected).sum() < 43.8
    assert np.abs(np.corrcoef(x.T) - np.eye(5)).max() < 0.04
    assert abs(np.corrcoef(x[:-1, 0], x[1:, 0])[0, 1]) < 0.03


def build_net(kit):
    image = kit.image()
    x = kit.begin_residual_blocks(kit.conv(image, 8, 3, "conv"), 2)
    for i in (1, 2):
        x = kit.add(kit.conv(x, 8, 3, f"conv{i}"), x, f"block{i}")
    x = kit.dropout(kit.global_average_pool(x, "pool"), "dropout")
    return kit.build_model(image, kit.logits(x, 3))


@pytest.fixture
def net():
    keras.utils.set_random_seed(0)
    return build_net(Kit(dropout=0.3, stochastic_depth=0.6))


IMAGES = np.random.default_rng(0).normal(size=(12, 6, 6, 3)).astype(np.float32)


def test_micro_batches_drop_the_same_as_the_whole_batch(net):
    random_layers.assign_samples(net, 2**32 - 1, 480)
    whole = net(IMAGES, training=True).numpy()
    parts = []
    for start in range(0, 12, 4):
        random_layers.assign_samples(net, 2**32 - 1, tf.constant(480 + start, tf.int64))
        parts.append(net(IMAGES[start : start + 4], training=True).numpy())
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-5, atol=1e-7)
    assert not np.allclose(whole, net(IMAGES, training=False), atol=1e-3)
    random_layers.assign_samples(net, 2**32 - 1, 492)
    assert not np.allclose(net(IMAGES, training=True), whole, atol=1e-3)


def test_each_pass_drops_something_else(net):
    def run(number):
        random_layers.start_pass(net, number)
        return net(IMAGES, training=True).numpy()

    random_layers.assign_samples(net, 7, 100, 1)
    random_layers.assign_samples(net, 7, 100)
    first = net(IMAGES, training=True).numpy()
    second = run(1)
    assert not np.allclose(first, second, atol=1e-3)
    np.testing.assert_array_equal(run(0), first)
    np.testing.assert_array_equal(run(1), second)
    random_layers.start_pass(build_net(Kit()), 1)  # no effect, but no error
    # No number of one pass is one of another pass or seed.
    numbers = [draw(0, 50, seed=seed, number=k) for k in (0, 1, 2) for seed in (3, 4)]
    assert len(np.unique(numbers)) > 0.99 * np.size(numbers)


def test_replicas_drop_the_same_as_one_device(mirrored):
    keras.utils.set_random_seed(0)
    with mirrored.scope():
        net = build_net(Kit(dropout=0.3, stochastic_depth=0.6))
    keras.utils.set_random_seed(0)
    single = build_net(Kit(dropout=0.3, stochastic_depth=0.6))
    random_layers.assign_samples(single, 7, 100)
    expected = single(IMAGES, training=True)

    @tf.function
    def step(images, first):
        def replica(images, first):
            random_layers.assign_samples(net, 7, first)
            return net(images, training=True)

        return mirrored.run(replica, args=(images, first))

    def distribute(values):
        return mirrored.experimental_distribute_values_from_function(
            lambda context: tf.constant(values[context.replica_id_in_sync_group])
        )

    first_samples = [np.int64(100), np.int64(106)]
    outputs = step(distribute(np.split(IMAGES, 2)), distribute(first_samples))
    joined = np.concatenate([x.numpy() for x in mirrored.experimental_local_results(outputs)])
    np.testing.assert_allclose(joined, expected, rtol=1e-5, atol=1e-7)


def test_sample_variable_is_not_a_weight(net):
    assert all("samples" not in v.path for v in net.variables)
    assert len(net.variables) == 5
    plain = build_net(Kit())
    assert not any(isinstance(x, random_layers.RandomLayer) for x in plain.layers)
    random_layers.assign_samples(plain, 1, 2)  # no effect, but no error


def test_dropout_drops_at_its_rate_and_preserves_the_mean():
    samples = random_layers.make_sample_variable()
    layer = random_layers.Dropout(0.25, samples, name="d")
    x = np.full((400, 50), 2.0, np.float32)
    y = layer(x, training=True).numpy()
    np.testing.assert_allclose(np.unique(y), [0.0, 2 / 0.75], rtol=1e-6)
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.015)  # five standard deviations
    np.testing.assert_array_equal(layer(x), x)


def test_stochastic_depth_drops_whole_branches_at_linear_rates(net):
    rates = {x.name: x.rate for x in net.layers if isinstance(x, random_layers.RandomLayer)}
    assert rates == {"block1_drop": 0.3, "block2_drop": 0.6, "dropout": 0.3}
    layer = random_layers.StochasticDepth(0.4, random_layers.make_sample_variable(), name="d")
    x = np.ones((2000, 2, 2, 3), np.float32)
    y = layer(x, training=True).numpy().reshape(2000, -1)
    assert np.all(y == y[:, :1])
    assert (y[:, 0] == 0).mean() == pytest.approx(0.4, abs=0.055)
    assert y.max() == pytest.approx(1 / 0.6)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_dropout_in_half_precision(dtype):
    layer = random_layers.Dropout(0.5, random_layers.make_sample_variable(), name="d", dtype=dtype)
    y = layer(np.ones((4, 8), np.float32), training=True)
    assert y.dtype == dtype.removeprefix("mixed_")
    assert set(np.unique(tf.cast(y, tf.float32))) == {0.0, 2.0}
