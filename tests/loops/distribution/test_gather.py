"""Tensors of all replicas, joined for the Python side."""

import numpy as np
import pytest
import tensorflow as tf

from loops.distribution import workers


@pytest.mark.parametrize("number", [1, 2])
def test_types_and_order_are_kept(mirrored, monkeypatch, number):
    """Also where workers have several replicas each, as machines with several GPUs do."""

    def on_replica():
        first = 3 * tf.distribute.get_replica_context().replica_id_in_sync_group
        values = tf.range(first, first + 3)
        return {"number": values, "even": values % 2 == 0, "half": tf.cast(values, tf.float32) / 2}

    monkeypatch.setattr(workers, "_get_index_and_count", lambda strategy: (0, number))
    batch = mirrored.run(tf.function(on_replica))
    found = workers.gather(mirrored, batch)
    numbers = np.arange(6)
    expected = {"number": numbers.astype(np.int32), "even": numbers % 2 == 0}
    expected |= {"half": (numbers / 2).astype(np.float32)}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
