"""Gathering of tensors from all replicas."""

import numpy as np
import pytest
import tensorflow as tf

from loops.distribution import workers


@pytest.mark.parametrize("num_workers", [1, 2])
def test_gather_keeps_dtypes_and_order(mirrored, monkeypatch, num_workers):
    """With two workers, each has several replicas, like machines with several GPUs."""

    def on_replica():
        first = 3 * tf.distribute.get_replica_context().replica_id_in_sync_group
        values = tf.range(first, first + 3)
        return {"number": values, "even": values % 2 == 0, "half": tf.cast(values, tf.float32) / 2}

    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": ["a:1", "b:1"][:num_workers]}), "", "worker", 0
    )
    monkeypatch.setattr(type(mirrored), "cluster_resolver", resolver)
    batch = mirrored.run(tf.function(on_replica))
    gathered = workers.gather(mirrored, batch)
    numbers = np.arange(6)
    expected = {"number": numbers.astype(np.int32), "even": numbers % 2 == 0}
    expected |= {"half": (numbers / 2).astype(np.float32)}
    assert gathered.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(gathered[name], values)
        assert gathered[name].dtype == values.dtype
