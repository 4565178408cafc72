"""Recomputation changes what is stored and nothing else: weights and statistics bit for bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nets import registry, resnet, resnetv2
from nets.layers import random_layers
from nets.layers.kit import Conv, Kit
from nets.layers.recompute import RecomputingModel


def small_net(family, recompute, dtype="float32"):
    keras.utils.set_random_seed(2)
    kit = Kit(dtype, stochastic_depth=0.4, dropout=0.2, recompute=recompute)
    if family == "resnetv2":
        return resnetv2.resnetv2(kit, 5, (1, 2), bottleneck=True)
    return resnet.resnet(kit, 5, (1, 2), bottleneck=False, squeeze_excite=family == "resnetse")


def stepper(net):
    """A compiled training step with plain gradient descent."""

    @tf.function
    def step(images, labels, first):
        random_layers.assign_samples(net, 9, first)
        with tf.GradientTape() as tape:
            logits = net(images, training=True)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        values = [v.value for v in net.trainable_variables]
        for variable, gradient in zip(values, tape.gradient(loss, values), strict=True):
            variable.assign_sub(0.05 * gradient)
        return tf.reduce_mean(loss)

    return step


def trained(net, steps=3):
    rng = np.random.default_rng(0)
    step = stepper(net)
    for i in range(steps):
        images = rng.normal(size=(4, 32, 32, 3)).astype(np.float32)
        step(images, rng.integers(0, 5, 4), tf.constant(4 * i, tf.int64))
    return {v.path: v.numpy() for v in net.variables}


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("resnet", "float32"), ("resnetv2", "bfloat16"), ("resnetse", "float32")],
)
def test_weights_and_statistics_bit_for_bit(family, dtype):
    plain, again = small_net(family, False, dtype), small_net(family, True, dtype)
    assert isinstance(again, RecomputingModel) and not isinstance(plain, RecomputingModel)
    before = {v.path: v.numpy() for v in again.variables}
    expected, got = trained(plain), trained(again)
    assert list(expected) == list(got)
    for path, value in expected.items():
        np.testing.assert_array_equal(got[path], value, path)
        assert not np.array_equal(before[path], value), path  # all of it was trained


def test_the_graph_computes_blocks_twice():
    """The convolutions of the blocks, and only those, are there once more."""

    def forward_convolutions(net):
        graph = stepper(net).get_concrete_function(
            tf.TensorSpec((4, 32, 32, 3)),
            tf.TensorSpec((4,), tf.int64),
            tf.TensorSpec((), tf.int64),
        )
        return sum(op.type == "Conv2D" for op in graph.graph.get_operations())

    net = small_net("resnetv2", False)
    in_blocks = sum(isinstance(x, Conv) for x in net.layers) - 1  # but for the stem
    assert in_blocks == 3 * 3 + 2
    twice = forward_convolutions(small_net("resnetv2", True))
    assert twice == forward_convolutions(net) + in_blocks


def test_frozen_norms_stay():
    net = small_net("resnet", True)
    for layer in net.layers:
        layer.trainable = layer.name == "logits"
    before = {v.path: v.numpy() for v in net.variables}
    changed = {p for p, v in trained(net, 1).items() if not np.array_equal(v, before[p])}
    assert changed == {"logits/kernel", "logits/bias"}


def test_inference_layers_and_saved_file_are_those_of_the_plain_net(tmp_path):
    plain, again = small_net("resnetse", False), small_net("resnetse", True)
    x = np.random.default_rng(0).normal(size=(2, 40, 40, 3)).astype(np.float32)
    np.testing.assert_array_equal(plain(x, training=False), again(x, training=False))
    assert [v.path for v in plain.variables] == [v.path for v in again.variables]
    assert [x.name for x in plain.layers] == [x.name for x in again.layers]
    for variable in again.variables:
        variable.assign(variable + 1.0)
    again.save_weights(tmp_path / "a.weights.h5")
    plain.load_weights(tmp_path / "a.weights.h5")
    for one, other in zip(plain.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_registry_builds_it():
    net = registry.build_model(registry.NetConfig(model="resnet_18", num_classes=3, recompute=True))
    assert isinstance(net, RecomputingModel)
    assert net.count_params() == 11_689_512 - 997 * 513 + 2 * 4800


def test_synchronised_norms_of_two_replicas(mirrored):
    """The moments are exchanged in the second pass as in the first."""
    images = np.random.default_rng(1).normal(size=(2, 4, 16, 16, 3)).astype(np.float32)
    results = []
    for recompute in (False, True):
        keras.utils.set_random_seed(2)
        with mirrored.scope():
            kit = Kit(synchronized=True, recompute=recompute)
            net = resnet.resnet(kit, 3, (2,), bottleneck=False)

        def gradients(x, net=net):
            values = [v.value for v in net.trainable_variables]
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.nn.log_softmax(net(x, training=True))[:, 0])
            return tape.gradient(loss, values)

        dealt = mirrored.experimental_distribute_values_from_function(
            lambda context: tf.constant(images[context.replica_id_in_sync_group])
        )
        found = tf.function(lambda x, g=gradients: mirrored.run(g, args=(x,)))(dealt)
        local = [mirrored.experimental_local_results(g)[1].numpy() for g in found]
        moved = [
            mirrored.experimental_local_results(v.value)[1].numpy()
            for v in net.non_trainable_variables
        ]
        results.append(local + moved)
    for plain, again in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, again)
        assert np.any(plain)
