"""Recomputation gives bit-identical weights and statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from nets import registry, resnet, resnetv2
from nets.layers import random_layers
from nets.layers.kit import Conv, Kit
from nets.layers.recompute import RecomputingModel


def build_small_net(family, recompute, dtype="float32"):
    keras.utils.set_random_seed(2)
    kit = Kit(dtype, stochastic_depth=0.4, dropout=0.2, recompute=recompute)
    if family == "resnetv2":
        return resnetv2.resnetv2(kit, 5, (1, 2), bottleneck=True)
    attention = "squeeze_excite" if family == "resnetse" else None
    return resnet.resnet(kit, 5, (1, 2), bottleneck=False, attention=attention)


def make_step(net):
    """Makes a compiled training step with plain gradient descent."""

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


def train(net, steps=3):
    """Trains a net; returns the values of its variables by their paths."""
    rng = np.random.default_rng(0)
    step = make_step(net)
    for i in range(steps):
        images = rng.normal(size=(4, 32, 32, 3)).astype(np.float32)
        step(images, rng.integers(0, 5, 4), tf.constant(4 * i, tf.int64))
    return {v.path: v.numpy() for v in net.variables}


def test_two_passes_are_recomputed_with_their_masks():
    """The second pass changes what is drawn before the first one is computed again."""
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    gradients = []
    for recompute in (False, True):
        net = build_small_net("resnet", recompute)

        @tf.function
        def run(net=net):
            random_layers.assign_samples(net, 9, 40)
            with tf.GradientTape() as tape:
                first = net(images, training=True)
                random_layers.start_pass(net, 1)
                loss = tf.reduce_sum(first * net(images, training=True))
            return tape.gradient(loss, net.trainable_variables)

        gradients.append(run())
    for plain, recomputed in zip(*gradients, strict=True):
        np.testing.assert_allclose(recomputed, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("resnet", "float32"), ("resnetv2", "bfloat16"), ("resnetse", "float32")],
)
def test_recompute_trains_bit_identical_weights_and_statistics(family, dtype):
    plain = build_small_net(family, False, dtype)
    recomputing = build_small_net(family, True, dtype)
    assert isinstance(recomputing, RecomputingModel) and not isinstance(plain, RecomputingModel)
    before = {v.path: v.numpy() for v in recomputing.variables}
    expected, result = train(plain), train(recomputing)
    assert list(expected) == list(result)
    for path, value in expected.items():
        np.testing.assert_array_equal(result[path], value, path)
        assert not np.array_equal(before[path], value), path  # training changes every variable


def test_graph_computes_blocks_twice():
    """The graph has a second copy of the convolutions of the blocks, and only of those."""

    def count_forward_convolutions(net):
        graph = make_step(net).get_concrete_function(
            tf.TensorSpec((4, 32, 32, 3)),
            tf.TensorSpec((4,), tf.int64),
            tf.TensorSpec((), tf.int64),
        )
        return sum(op.type == "Conv2D" for op in graph.graph.get_operations())

    net = build_small_net("resnetv2", False)
    in_blocks = sum(isinstance(x, Conv) for x in net.layers) - 1  # except the stem
    assert in_blocks == 3 * 3 + 2
    recomputing = count_forward_convolutions(build_small_net("resnetv2", True))
    assert recomputing == count_forward_convolutions(net) + in_blocks


def test_recompute_does_not_change_frozen_batch_norms():
    net = build_small_net("resnet", True)
    for layer in net.layers:
        layer.trainable = layer.name == "logits"
    before = {v.path: v.numpy() for v in net.variables}
    changed = {p for p, v in train(net, 1).items() if not np.array_equal(v, before[p])}
    assert changed == {"logits/kernel", "logits/bias"}


def test_inference_layers_and_saved_weights_match_the_plain_net(tmp_path):
    plain, recomputing = build_small_net("resnetse", False), build_small_net("resnetse", True)
    x = np.random.default_rng(0).normal(size=(2, 40, 40, 3)).astype(np.float32)
    np.testing.assert_array_equal(plain(x, training=False), recomputing(x, training=False))
    assert [v.path for v in plain.variables] == [v.path for v in recomputing.variables]
    assert [x.name for x in plain.layers] == [x.name for x in recomputing.layers]
    for variable in recomputing.variables:
        variable.assign(variable + 1.0)
    recomputing.save_weights(tmp_path / "a.weights.h5")
    plain.load_weights(tmp_path / "a.weights.h5")
    for one, other in zip(plain.variables, recomputing.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_registry_builds_recomputing_model():
    net = registry.build_model(registry.NetConfig(model="resnet_18", num_classes=3, recompute=True))
    assert isinstance(net, RecomputingModel)
    assert net.count_params() == 11_689_512 - 997 * 513 + 2 * 4800


def test_recompute_with_synchronized_batch_norm_on_two_replicas(mirrored):
    """The second pass reduces the moments over replicas, as the first does."""
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

        per_replica_images = mirrored.experimental_distribute_values_from_function(
            lambda context: tf.constant(images[context.replica_id_in_sync_group])
        )
        compute = tf.function(lambda x, g=gradients: mirrored.run(g, args=(x,)))
        local_gradients = [
            mirrored.experimental_local_results(g)[1].numpy() for g in compute(per_replica_images)
        ]
        statistics = [
            mirrored.experimental_local_results(v.value)[1].numpy()
            for v in net.non_trainable_variables
        ]
        results.append(local_gradients + statistics)
    for plain, recomputed in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, recomputed)
        assert np.any(plain)
