"""Behavior of Keras's layers, optimizers and checkpoints that our code works around.

If one of these tests fails, Keras or TensorFlow has changed. The docstring of the test names the
workaround, which may no longer be needed.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

IMAGES = np.random.default_rng(0).normal(1.0, 2.0, (4, 3, 3, 2)).astype(np.float32)


def operation_types(layer, dtype):
    """Returns the types of the graph operations of a layer's training pass."""
    function = tf.function(lambda x: layer(x, training=True), autograph=False)
    traced = function.get_concrete_function(tf.TensorSpec([4, 3, 3, 2], dtype))
    return {operation.type for operation in traced.graph.get_operations()}


def test_keras_batch_norm_is_not_fused():
    """It casts to float32 and computes moments in separate operations.

    Workaround: `nets/layers/batch_norm.py`.
    """
    types = operation_types(keras.layers.BatchNormalization(dtype="mixed_bfloat16"), tf.bfloat16)
    assert not any("FusedBatchNorm" in name for name in types)
    assert "Cast" in types


def test_fused_batch_norm_returns_the_unbiased_variance():
    """Keras keeps the biased variance.

    Workaround: the factor in `BatchNorm.call` of `nets/layers/batch_norm.py`.
    """
    ones, zeros = tf.ones([2]), tf.zeros([2])
    _, _, variance = tf.compat.v1.nn.fused_batch_norm(IMAGES, ones, zeros, is_training=True)
    flat = IMAGES.reshape(-1, 2)
    np.testing.assert_allclose(variance, flat.var(axis=0, ddof=1), rtol=1e-5)
    assert not np.allclose(variance, flat.var(axis=0), rtol=1e-3)
    layer = keras.layers.BatchNormalization(momentum=0.0)
    layer(IMAGES, training=True)
    np.testing.assert_allclose(layer.moving_variance.numpy(), flat.var(axis=0), rtol=1e-5)


def test_non_finite_batch_stays_in_the_statistics_of_keras_batch_norm():
    """Workaround: `BatchNorm._update_statistics` of `nets/layers/batch_norm.py`."""
    layer = keras.layers.BatchNormalization()
    layer(IMAGES * np.float32("inf"), training=True)
    layer(IMAGES, training=True)
    assert np.isnan(layer.moving_mean.numpy()).all()


@pytest.mark.parametrize("layer_takes_training", [True, False])
def test_keras_remat_fails_on_batch_norm(layer_takes_training):
    """In a `tf.function`, `keras.remat` does not support batch norm.

    It does not accept `training=True`, and without it the statistics are updated twice per step.
    Workaround: `nets/layers/recompute.py`.
    """
    layer = keras.layers.BatchNormalization(momentum=0.5)
    layer.build((None, 3, 3, 2))
    if layer_takes_training:
        remat = keras.remat(layer.call)
        recompute = lambda x: remat(x, training=True)  # noqa: E731
    else:
        recompute = keras.remat(lambda x: layer(x, training=True))

    @tf.function(autograph=False)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(recompute(x) ** 2)
        return tape.gradient(loss, x)

    images = tf.ones([4, 3, 3, 2])
    if layer_takes_training:
        with pytest.raises(ValueError, match="keywords arguments only when eager"):
            gradient(images)
    else:
        gradient(images)
        assert layer.moving_mean.numpy().tolist() == [0.75, 0.75]


def test_recompute_grad_updates_the_statistics_twice():
    """Workaround: `nets/layers/recompute.py` keeps the statistics of the first pass."""
    updates = tf.Variable(0.0)

    @tf.recompute_grad
    def block(x):
        updates.assign_add(1.0)
        return x * x

    with tf.GradientTape() as tape:
        x = tf.constant(2.0)
        tape.watch(x)
        y = block(x)
    tape.gradient(y, x)
    assert float(updates) == 2.0


def test_weight_decay_of_keras_is_decoupled():
    """A kernel with zero gradient shrinks by learning rate x decay, and its velocity stays zero.

    Workaround: `get_weight_decay` and `get_step_weight_decay` of
    `loops/optimization/optimizers.py`.
    """
    kernel = keras.Variable([[1.0]])
    optimizer = keras.optimizers.SGD(0.5, momentum=0.9, weight_decay=0.1)
    optimizer.apply([tf.zeros([1, 1])], [kernel])
    assert kernel.numpy().item() == pytest.approx(0.95)
    assert optimizer.momentums[0].numpy().item() == 0.0


def test_keras_variable_names_lack_the_layer_name():
    """The name is `gamma`, not `batch_norm/gamma`, so a filter for "bn" would not exclude it.

    Workaround: `select_decayed_kernels` of `loops/optimization/optimizers.py` selects by layer.
    """
    layer = keras.layers.BatchNormalization(name="bn")
    layer.build((None, 2))
    assert [v.name for v in layer.trainable_variables] == ["gamma", "beta"]


def test_keras_lamb_omits_the_decay_from_the_trust_ratio():
    """With and without decay, the first updates differ by the decoupled decay only.

    With the decay inside the ratio they would differ by more.
    Workaround: `LAMB` of `loops/optimization/optimizers.py`.
    """
    changes = []
    for decay in (None, 0.5):
        kernel = keras.Variable([3.0, 4.0])
        optimizer = keras.optimizers.Lamb(0.1, weight_decay=decay)
        optimizer.apply([tf.constant([1.0, 0.0])], [kernel])
        changes.append(5.0 - float(np.linalg.norm(kernel.numpy())))
    plain, decayed = changes
    # Decoupled: the kernel first shrinks by 0.1 x 0.5, for any trust ratio.
    assert decayed - plain == pytest.approx(0.1 * 0.5 * 5.0, rel=0.1)


def dropout_net():
    layers = [keras.Input((4,)), keras.layers.Dropout(0.5, seed=1), keras.layers.Dense(2)]
    return keras.Sequential(layers)


def test_checkpoint_lacks_the_state_of_dropout(tmp_path):
    """`assert_consumed` does not report it.

    Workaround: `nets/layers/random_layers.py`, whose layers have no state, and
    `restore.variables_by_path`.
    """
    net = dropout_net()
    net(tf.ones([2, 4]), training=True)
    (state,) = [v for v in net.variables if "seed" in v.path]
    path = tf.train.Checkpoint(model=net).write(str(tmp_path / "c"))
    assert not [name for name, _ in tf.train.list_variables(path) if "seed" in name]
    other = dropout_net()
    tf.train.Checkpoint(model=other).read(path).assert_consumed()
    (restored,) = [v for v in other.variables if "seed" in v.path]
    assert restored.numpy().tolist() != state.numpy().tolist()


def test_restore_before_build_does_not_report_missing_variables(tmp_path):
    """All checks pass while the optimizer has no velocity. The one created later is zero.

    Workaround: `build_optimizer` of `loops/optimization/optimizers.py` builds it first.
    """
    variable = keras.Variable([1.0])
    optimizers = [keras.optimizers.SGD(0.1, momentum=0.9) for _ in range(2)]
    saved, restored = [tf.train.Checkpoint(v=variable.value, optimizer=o) for o in optimizers]
    status = restored.read(saved.write(str(tmp_path / "c")))
    status.assert_consumed()
    status.assert_existing_objects_matched()
    optimizers[1].build([variable])
    with pytest.raises(AssertionError):
        status.assert_existing_objects_matched()


def test_truncated_checkpoint_raises_a_builtin_error(tmp_path):
    """The error is not one of `tf.errors`.

    Workaround: `loops/checkpointing/checkpoint.py` catches `Exception`.
    """
    path = tf.train.Checkpoint(v=tf.Variable(tf.zeros([100]))).write(str(tmp_path / "c"))
    with open(f"{path}.data-00000-of-00001", "r+b") as data:
        data.truncate(5)
    with pytest.raises(IndexError):
        tf.train.Checkpoint(v=tf.Variable(tf.zeros([100]))).read(path)


def test_corrupt_checkpoint_state_file_restarts_silently(tmp_path):
    """`restore_or_initialize` returns None, which means that training starts at step 0.

    Workaround: step folders without a state file, `loops/checkpointing/checkpoint.py`.
    """
    variable = tf.Variable(1.0)
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(v=variable), tmp_path, 1)
    manager.save()
    (tmp_path / "checkpoint").write_text("garbage")
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(v=variable), tmp_path, 1)
    assert manager.restore_or_initialize() is None


def test_keras_loads_nan_from_weight_files(tmp_path):
    """Loading does not fail on NaN.

    Workaround: `loops/tools/weights/weight_file.py` and the checks of
    `loops/tools/weights/import_weights.py`.
    """
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    net.layers[0].kernel.assign([[float("nan")]])
    net.save_weights(tmp_path / "w.weights.h5")
    other = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    other.load_weights(tmp_path / "w.weights.h5")
    assert np.isnan(other.layers[0].kernel.numpy()).all()
