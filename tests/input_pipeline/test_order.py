"""The order of samples: a permutation for every epoch and seed, the same however it is asked."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import order


def _permutation(seed, epoch, total):
    positions = tf.range(total, dtype=tf.int64)
    return order.image_index(seed, epoch, positions, total).numpy()


@pytest.mark.parametrize("total", [1, 2, 7, 1000])
def test_every_epoch_is_a_permutation(total):
    for seed, epoch in itertools.product((0, 1, 2**31 - 1), (0, 1, 89)):
        indices = _permutation(seed, epoch, total)
        assert indices.dtype == np.int64
        assert sorted(indices.tolist()) == list(range(total)), (seed, epoch)


def test_imagenet_is_a_permutation():
    total = 1_281_167
    indices = _permutation(0, 1, total)
    assert indices.dtype == np.int64 and indices.min() == 0
    np.testing.assert_array_equal(np.bincount(indices), np.ones(total))
    # Neighbours in a folder are of one class: they must not stay neighbours.
    assert np.mean(np.abs(np.diff(indices)) < 1000) < 0.01


def test_epochs_and_seeds_differ():
    runs = [np.arange(1000)]
    runs += [_permutation(seed, epoch, 1000) for seed in (0, 1, 2**31 - 1) for epoch in (0, 1, 2)]
    for one, two in itertools.combinations(runs, 2):
        # Two random permutations agree in one place on average; in ten, with probability 1e-7.
        assert np.sum(one == two) < 10


def test_a_position_meets_every_image():
    first = [int(order.image_index(0, epoch, 0, 7)) for epoch in range(700)]
    assert np.bincount(first, minlength=7).min() > 50  # 100 expected


def test_vector_equals_single_positions_eagerly_and_in_tf_data():
    total, seed, epoch = 37, 5, 3
    vector = _permutation(seed, epoch, total)
    single = [int(order.image_index(seed, epoch, position, total)) for position in range(total)]
    dataset = tf.data.Dataset.range(total).map(
        lambda position: order.image_index(seed, tf.constant(epoch, tf.int64), position, total)
    )
    assert single == vector.tolist()
    assert [int(i) for i in dataset.as_numpy_iterator()] == vector.tolist()


def test_sample_seed_holds_both_numbers():
    seed = order.sample_seed(3, tf.constant(2**40 + 1, tf.int64))
    assert seed.dtype == tf.int64
    assert seed.numpy().tolist() == [3, 2**40 + 1]


def test_seeds_above_31_bits_have_an_order_of_their_own():
    runs = [_permutation(seed, 3, 1000) for seed in (5, 2**31 + 5, 2**31, 2**32 - 1)]
    for one, two in itertools.combinations(runs, 2):
        assert sorted(two.tolist()) == list(range(1000))
        assert np.sum(one == two) < 10


def test_the_order_of_smaller_seeds_is_that_of_the_shuffle_itself():
    """So that the runs of earlier versions go on as they began."""
    for seed, epoch in ((0, 0), (7, 2), (2**31 - 1, 89)):
        positions = tf.range(50, dtype=tf.int64)
        seeds = tf.constant([seed, epoch], tf.int64)
        plain = tf.random.experimental.index_shuffle(positions, seeds, tf.constant(49, tf.int64))
        np.testing.assert_array_equal(_permutation(seed, epoch, 50), plain)
