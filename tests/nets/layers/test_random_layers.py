"""Dropout and stochastic depth: what is drawn follows from seed, layer and sample alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nets.layers import random_layers
from nets.layers.kit import Kit


def drawn(first, batch, seed=3, stream=5, units=7):
    samples = tf.constant([seed, first], tf.int64)
    return random_layers.uniform(samples, stream, batch, units).numpy()


@pytest.mark.parametrize("units", [1, 4, 7, 64])
def test_rows_do_not_depend_on_how_the_batch_is_cut(units):
    whole = drawn(1000, 12, units=units)
    for sizes in ((5, 7), (1, 11), (4, 4, 4), (1,) * 12):
        at, parts = 1000, []
        for size in sizes:
            parts.append(drawn(at, size, units=units))
            at += size
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_graphs_draw_the_same_and_xla_by_the_same_rule():
    """XLA's Philox yields other numbers, of which each sample owns its own all the same."""

    def rows(first, batch, **options):
        function = tf.function(lambda s: random_layers.uniform(s, 5, batch, 7), **options)
        return function(tf.constant([3, first], tf.int64)).numpy()

    np.testing.assert_array_equal(rows(2**40, 9), drawn(2**40, 9))
    whole = rows(2**40, 9, jit_compile=True)
    np.testing.assert_array_equal(rows(2**40 + 4, 5, jit_compile=True), whole[4:])
    assert len(np.unique(whole)) == whole.size


def test_seed_stream_and_sample_all_matter():
    base = drawn(0, 64)
    for other in (drawn(64, 64), drawn(0, 64, seed=4), drawn(0, 64, stream=6)):
        assert not np.any(np.all(base == other, axis=1))
    assert len(np.unique(base)) > 0.99 * base.size


def test_uniform_and_without_correlation():
    x = drawn(2**33, 20_000, units=5)
    assert x.min() >= 0 and x.max() < 1
    counts = np.histogram(x, 20, (0, 1))[0]
    expected = x.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-square, 19 degrees, p = 0.001
    assert np.abs(np.corrcoef(x.T) - np.eye(5)).max() < 0.04
    assert abs(np.corrcoef(x[:-1, 0], x[1:, 0])[0, 1]) < 0.03


def net_of(kit):
    image = kit.image()
    x = kit.begin_residual_blocks(kit.conv(image, 8, 3, "conv"), 2)
    for i in (1, 2):
        x = kit.add(kit.conv(x, 8, 3, f"conv{i}"), x, f"block{i}")
    x = kit.dropout(kit.global_average_pool(x, "pool"), "dropout")
    return kit.net(image, kit.logits(x, 3))


@pytest.fixture
def net():
    keras.utils.set_random_seed(0)
    return net_of(Kit(dropout=0.3, stochastic_depth=0.6))


IMAGES = np.random.default_rng(0).normal(size=(12, 6, 6, 3)).astype(np.float32)


def test_micro_batches_see_what_the_batch_sees(net):
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


def test_replicas_draw_for_their_own_samples(mirrored):
    keras.utils.set_random_seed(0)
    with mirrored.scope():
        net = net_of(Kit(dropout=0.3, stochastic_depth=0.6))
    keras.utils.set_random_seed(0)
    alone = net_of(Kit(dropout=0.3, stochastic_depth=0.6))
    random_layers.assign_samples(alone, 7, 100)
    expected = alone(IMAGES, training=True)

    @tf.function
    def step(images, first):
        def replica(images, first):
            random_layers.assign_samples(net, 7, first)
            return net(images, training=True)

        return mirrored.run(replica, args=(images, first))

    def deal(values):
        return mirrored.experimental_distribute_values_from_function(
            lambda context: tf.constant(values[context.replica_id_in_sync_group])
        )

    outputs = step(deal(np.split(IMAGES, 2)), deal([np.int64(100), np.int64(106)]))
    joined = np.concatenate([x.numpy() for x in mirrored.experimental_local_results(outputs)])
    np.testing.assert_allclose(joined, expected, rtol=1e-5, atol=1e-7)


def test_the_variable_is_no_weight(net):
    assert all("samples" not in v.path for v in net.variables)
    assert len(net.variables) == 5
    plain = net_of(Kit())
    assert not any(isinstance(x, random_layers.RandomLayer) for x in plain.layers)
    random_layers.assign_samples(plain, 1, 2)  # nothing to tell


def test_dropout_drops_its_share_and_keeps_the_mean():
    samples = random_layers.make_sample_variable()
    layer = random_layers.Dropout(0.25, samples, name="d")
    x = np.full((400, 50), 2.0, np.float32)
    y = layer(x, training=True).numpy()
    np.testing.assert_allclose(np.unique(y), [0.0, 2 / 0.75], rtol=1e-6)
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.015)  # five deviations
    np.testing.assert_array_equal(layer(x), x)


def test_stochastic_depth_drops_whole_branches_by_linear_rates(net):
    rates = {x.name: x.rate for x in net.layers if isinstance(x, random_layers.RandomLayer)}
    assert rates == {"block1_drop": 0.3, "block2_drop": 0.6, "dropout": 0.3}
    layer = random_layers.StochasticDepth(0.4, random_layers.make_sample_variable(), name="d")
    x = np.ones((2000, 2, 2, 3), np.float32)
    y = layer(x, training=True).numpy().reshape(2000, -1)
    assert np.all(y == y[:, :1])
    assert (y[:, 0] == 0).mean() == pytest.approx(0.4, abs=0.055)
    assert y.max() == pytest.approx(1 / 0.6)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(dtype):
    layer = random_layers.Dropout(0.5, random_layers.make_sample_variable(), name="d", dtype=dtype)
    y = layer(np.ones((4, 8), np.float32), training=True)
    assert y.dtype == dtype.removeprefix("mixed_")
    assert set(np.unique(tf.cast(y, tf.float32))) == {0.0, 2.0}
