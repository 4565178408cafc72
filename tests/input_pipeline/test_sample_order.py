"""Sample order: a permutation for each epoch and seed, equal eagerly and inside tf.data."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline import sample_order


def _permutation(seed, epoch, total):
    positions = tf.range(total, dtype=tf.int64)
    return sample_order.image_index(seed, epoch, positions, total).numpy()


@pytest.mark.parametrize("total", [1, 2, 7, 1000])
def test_each_epoch_is_a_permutation(total):
    for seed, epoch in itertools.product((0, 1, 2**31 - 1), (0, 1, 89)):
        indices = _permutation(seed, epoch, total)
        assert indices.dtype == np.int64
        assert sorted(indices.tolist()) == list(range(total)), (seed, epoch)


def test_permutation_of_imagenet_size():
    total = 1_281_167
    indices = _permutation(0, 1, total)
    assert indices.dtype == np.int64 and indices.min() == 0
    np.testing.assert_array_equal(np.bincount(indices), np.ones(total))
    # Adjacent images of a folder have the same class, so they must not stay adjacent.
    assert np.mean(np.abs(np.diff(indices)) < 1000) < 0.01


def test_epochs_and_seeds_differ():
    runs = [np.arange(1000)]
    runs += [_permutation(seed, epoch, 1000) for seed in (0, 1, 2**31 - 1) for epoch in (0, 1, 2)]
    for one, two in itertools.combinations(runs, 2):
        # Two random permutations agree in one position on average, in ten with probability 1e-7.
        assert np.sum(one == two) < 10


def test_a_position_gets_each_image_over_the_epochs():
    first = [int(sample_order.image_index(0, epoch, 0, 7)) for epoch in range(700)]
    assert np.bincount(first, minlength=7).min() > 50  # 100 expected


def test_batched_positions_equal_single_positions_eagerly_and_in_tf_data():
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


def test_sample_seed_is_seed_and_sample():
    seed = sample_order.sample_seed(3, tf.constant(2**40 + 1, tf.int64))
    assert seed.dtype == tf.int64
    assert seed.numpy().tolist() == [3, 2**40 + 1]


@pytest.mark.parametrize("total", [1000, 40_000, 100_000])
def test_each_bit_of_seed_and_epoch_matters(total):
    """TensorFlow's shuffle alone uses only the low 8 to 11 bits of each."""
    bits = [0] + [2**bit for bit in range(32)]
    runs = [_permutation(seed, 3, total) for seed in bits]
    runs += [_permutation(0, epoch, total) for epoch in bits if epoch not in (0, 3)]
    runs += [_permutation(3, 0, total), _permutation(2**32 - 1, 3, total)]
    firsts = {run[:20].tobytes() for run in runs}
    assert len(firsts) == len(runs)


def test_order_is_stable_across_versions():
    """Another order would change every run that resumes from a checkpoint."""
    assert _permutation(0, 0, 8).tolist() == [2, 5, 3, 6, 7, 4, 1, 0]
    assert _permutation(7, 2, 8).tolist() == [2, 7, 1, 3, 6, 5, 4, 0]


@pytest.mark.parametrize(("first_replica", "local_replicas"), [(0, 1), (1, 2), (0, 3)])
def test_replica_slice_reads_the_batches_of_its_replicas(first_replica, local_replicas):
    replica_slice = sample_order.ReplicaSlice(first_replica, local_replicas, total_replicas=3)
    numbers = sample_order.sample_numbers(12, 2, replica_slice).take(4 * local_replicas)
    replicas = range(first_replica, first_replica + local_replicas)
    batches = [3 * step + replica for step in (0, 1) for replica in replicas]
    expected = [12 + 2 * batch + offset for batch in batches for offset in (0, 1)]
    assert [int(number) for number in numbers.as_numpy_iterator()] == expected


def test_repeated_augmentation_uses_pairs_of_images_in_turn():
    positions = sample_order.repeat_positions(tf.range(14, dtype=tf.int64), 3).numpy()
    assert positions.tolist() == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 4, 5]
    unchanged = sample_order.repeat_positions(tf.range(5, dtype=tf.int64), 1).numpy()
    assert unchanged.tolist() == [0, 1, 2, 3, 4]
