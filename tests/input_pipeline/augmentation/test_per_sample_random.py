"""Random numbers per sample: reference generator, distributions and independence."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from input_pipeline.augmentation import per_sample_random

MASK = 2**64 - 1
# Significance level of each distribution test.
LEVEL = 1e-4


def _finalizer(word):
    """SplitMix64's finalizer, with Python integers."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
    return word ^ (word >> 31)


def _samples(number, first=0):
    return tf.range(first, first + number, dtype=tf.int64)


def test_reference_is_splitmix64():
    # The first outputs of the published generator for seed 1234567.
    words = [_finalizer((1234567 + 0x9E3779B97F4A7C15 * (k + 1)) & MASK) for k in range(3)]
    assert words == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_uniform_equals_the_reference(seed):
    first, purpose, count = 10**12, 3, 4
    numbers = per_sample_random.uniform(seed, _samples(5, first), purpose, count).numpy()
    assert numbers.dtype == np.float32 and numbers.shape == (5, count)
    stream = _finalizer(_finalizer(seed) + purpose & MASK)
    for b, sample in enumerate(range(first, first + 5)):
        start = _finalizer(_finalizer(sample) ^ stream)
        for k in range(count):
            word = _finalizer((start + 0x9E3779B97F4A7C15 * (k + 1)) & MASK)
            assert numbers[b, k] == (word >> 40) / 2**24


def test_numbers_do_not_depend_on_the_batch_or_xla():
    whole = per_sample_random.uniform(1, _samples(12), 0, 3)
    compiled = tf.function(lambda s: per_sample_random.uniform(1, s, 0, 3), jit_compile=True)
    np.testing.assert_array_equal(compiled(_samples(12)), whole)
    np.testing.assert_array_equal(per_sample_random.uniform(1, _samples(5, 4), 0, 3), whole[4:9])


def test_uniform_is_uniform_and_independent():
    numbers = per_sample_random.uniform(5, _samples(20_000), 1, 4).numpy().astype(float)
    assert numbers.min() >= 0 and numbers.max() < 1
    columns = [
        *numbers.T,
        numbers[1:, 0],
        per_sample_random.uniform(5, _samples(20_000), 2, 1)[:, 0],
    ]
    columns.append(per_sample_random.uniform(6, _samples(20_000), 1, 1).numpy()[:, 0])
    for column in columns:
        assert stats.kstest(column, "uniform").pvalue > LEVEL
    # Across numbers of a sample, adjacent samples, purposes and seeds.
    correlations = np.corrcoef([np.asarray(column)[:19_999] for column in columns])
    assert np.abs(correlations - np.eye(len(columns))).max() < 5 / 20_000**0.5


def test_normal_is_normal_and_independent():
    numbers = per_sample_random.normal(5, _samples(20_000), 1, 3).numpy()
    assert numbers.shape == (20_000, 3) and np.isfinite(numbers).all()
    for column in numbers.T:
        assert stats.kstest(column, "norm").pvalue > LEVEL
    assert np.abs(np.corrcoef(numbers.T) - np.eye(3)).max() < 5 / 20_000**0.5


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.2, 0.5, 1.0, 2.5, 40.0])
def test_symmetric_beta_has_the_beta_distribution(alpha):
    numbers = per_sample_random.symmetric_beta(5, _samples(20_000), 1, alpha).numpy()
    assert numbers.shape == (20_000,)
    assert np.isfinite(numbers).all() and numbers.min() >= 0 and numbers.max() <= 1
    # float32 cannot resolve values closer to 0 and 1, so the tails are merged.
    edges = np.clip(numbers.astype(float), 1e-6, 1 - 1e-6)
    exact = stats.beta(alpha, alpha)
    grid = np.linspace(0.001, 0.999, 400)
    empirical = np.searchsorted(np.sort(edges), grid, side="right") / len(edges)
    assert np.abs(empirical - exact.cdf(grid)).max() < stats.kstwo.isf(LEVEL, len(edges))


def test_draws_of_one_sample_are_those_of_the_batch_and_each_call_returns_new_ones():
    samples, purpose = tf.range(4, dtype=tf.int64), per_sample_random.get_purpose("name")
    batch = per_sample_random.Draws(7, samples, purpose)
    one = per_sample_random.Draws(tf.constant(7, tf.int64), samples[2], purpose)
    for draw in ("uniform", "normal"):
        row = getattr(batch, draw)(3)[2]
        np.testing.assert_allclose(getattr(one, draw)(3), row, rtol=1e-6)
    np.testing.assert_array_equal(one.stateless_seed(), batch.stateless_seed()[2])
    together = per_sample_random.uniform(7, samples, purpose, 11)
    again = per_sample_random.Draws(7, samples, purpose)
    parts = [again.uniform(count) for count in (1, 8, 2)]
    np.testing.assert_array_equal(tf.concat(parts, axis=1), together)
