"""The order of samples: a permutation for every epoch and seed, the same however it is asked."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import sample_order


def _permutation(seed, epoch, total):
    positions = tf.range(total, dtype=tf.int64)
    return sample_order.image_index(seed, epoch, positions, total).numpy()


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
    first = [int(sample_order.image_index(0, epoch, 0, 7)) for epoch in range(700)]
    assert np.bincount(first, minlength=7).min() > 50  # 100 expected


def test_vector_equals_single_positions_eagerly_and_in_tf_data():
    total, seed, epoch = 37, 5, 3
    vector = _permutation(seed, epoch, total)
    single = [
        int(sample_order.image_index(seed, epoch, position, total)) for position in range(total)
    ]
    dataset = tf.data.Dataset.range(total).map(
        lambda position: sample_order.image_index(
            seed, tf.constant(epoch, tf.int64), position, total
        )
    )
    assert single == vector.tolist()
    assert [int(i) for i in dataset.as_numpy_iterator()] == vector.tolist()


def test_sample_seed_holds_both_numbers():
    seed = sample_order.sample_seed(3, tf.constant(2**40 + 1, tf.int64))
    assert seed.dtype == tf.int64
    assert seed.numpy().tolist() == [3, 2**40 + 1]


@pytest.mark.parametrize("total", [1000, 40_000, 100_000])
def test_no_bit_of_seed_or_epoch_is_lost(total):
    """The shuffle alone looks at the low 8 to 11 bits of either,."""
    bits = [0] + [2**bit for bit in range(32)]
    runs = [_permutation(seed, 3, total) for seed in bits]
    runs += [_permutation(0, epoch, total) for epoch in bits if epoch not in (0, 3)]
    runs += [_permutation(3, 0, total), _permutation(2**32 - 1, 3, total)]
    firsts = {run[:20].tobytes() for run in runs}
    assert len(firsts) == len(runs)


def test_the_order_is_the_one_of_this_table():
    """Another order would change every run that goes on from a checkpoint: say so in the log."""
    assert _permutation(0, 0, 8).tolist() == [2, 5, 3, 6, 7, 4, 1, 0]
    assert _permutation(7, 2, 8).tolist() == [2, 7, 1, 3, 6, 5, 4, 0]
