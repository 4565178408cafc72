"""Optimizers against Keras and their papers, and which variables get weight decay."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from loops.config.training import OptimizationConfig
from loops.optimization import optimizers
from nets import registry


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, True), (0.9, False), (0.0, True)])
def test_sgd_equals_keras(momentum, nesterov):
    rng = np.random.default_rng(1)
    start = rng.normal(size=(5, 3)).astype(np.float32)
    ours, reference = keras.Variable(start), keras.Variable(start)
    fused = optimizers.SGD(0.1, momentum=momentum, nesterov=nesterov)
    plain = keras.optimizers.SGD(0.1, momentum=momentum, nesterov=nesterov)
    for _ in range(5):
        gradient = tf.constant(rng.normal(size=start.shape).astype(np.float32))
        fused.apply([gradient], [ours])
        plain.apply([gradient], [reference])
    np.testing.assert_allclose(ours.numpy(), reference.numpy(), rtol=1e-6, atol=1e-6)
    assert np.abs(ours.numpy() - start).max() > 0.1


def test_only_kernels_get_weight_decay():
    model = registry.build_model(registry.NetConfig(model="resnetse_18", num_classes=10))
    decayed = optimizers.select_decayed_kernels(model)
    # 20 convolutions (17 of 3 x 3 and 7 x 7, 3 shortcuts), 8 gates with two dense layers, the head.
    assert len(decayed) == 20 + 16 + 1
    assert all(len(kernel.shape) in (2, 4) for kernel in decayed)
    undecayed = {v.name for v in model.trainable_variables} - {k.name for k in decayed}
    assert undecayed == {"gamma", "beta", "bias"}


class Paper:
    """Optimizers as in their papers, in float64 NumPy, for one variable with weight decay."""

    def __init__(self, start, decay, beta1=0.9, beta2=0.999, epsilon=None):
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.w = start.astype(np.float64)
        self.m = self.v = np.zeros_like(self.w)
        self.t, self.decay = 0, decay

    def sgd(self, g, rate):
        self.m = 0.9 * self.m - rate * (g + self.decay * self.w)
        self.w = self.w + 0.9 * self.m - rate * (g + self.decay * self.w)

    def lars(self, g, rate):
        norm = np.linalg.norm
        rate = rate * 0.001 * norm(self.w) / (norm(g) + self.decay * norm(self.w))
        self.m = 0.9 * self.m + rate * (g + self.decay * self.w)
        self.w = self.w - self.m

    def _moments(self, g, epsilon):
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        corrected = self.v / (1 - self.beta2**self.t)
        return self.m / (1 - self.beta1**self.t) / (np.sqrt(corrected) + epsilon)

    def adamw(self, g, rate):
        # Keras adds epsilon before the correction (Kingma & Ba 2015, end of section 2).
        epsilon = (self.epsilon or 1e-8) / np.sqrt(1 - self.beta2 ** (self.t + 1))
        self.w = self.w - rate * (self._moments(g, epsilon) + self.decay * self.w)

    def lamb_without_decay(self, g, rate):
        self.w = self.w - rate * self._moments(g, self.epsilon or 1e-6)

    def lamb(self, g, rate):
        r = self._moments(g, self.epsilon or 1e-6) + self.decay * self.w
        self.w = self.w - rate * np.linalg.norm(self.w) / np.linalg.norm(r) * r


def dense_model():
    image = keras.Input([4])
    return keras.Model(image, keras.layers.Dense(3, name="logits")(image))


MOMENTS = {"beta1": 0.8, "beta2": 0.95, "epsilon": 0.01}


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        *[(name, {}) for name in ("sgd", "lars", "adamw", "lamb")],
        *[(name, MOMENTS) for name in ("adamw", "lamb")],
    ],
)
def test_optimizers_match_their_papers(one_device, name, moments):
    rng = np.random.default_rng(1)
    config = OptimizationConfig(optimizer=name, weight_decay=0.1, **moments)
    with one_device.scope():
        model = dense_model()
        optimizer = optimizers.build_optimizer(config, model)
    kernel, bias = model.trainable_variables
    bias.assign(rng.normal(size=3))
    l2, decoupled = optimizers.get_step_weight_decay(config)
    assert (l2, decoupled) == {"sgd": (0.1, 0.0), "adamw": (0.0, 0.1)}.get(name, (0.0, 0.0))
    papers = [Paper(kernel.numpy(), 0.1, **moments), Paper(bias.numpy(), 0.0, **moments)]
    atol = 4e-5 if name == "adamw" else 2e-6  # Keras computes 1 - 0.999 ** t in float32
    # The bias has no weight decay, so it uses the global learning rate.
    bias_methods = {"lamb": "lamb_without_decay"}

    @tf.function
    def update(gradients, rate):
        gradients = [gradients[0] + l2 * kernel.value, gradients[1]]
        optimizers.apply_gradients(
            one_device, optimizer, gradients, [kernel, bias], rate, decoupled, {id(kernel)}
        )

    for rate in (0.5, 0.3, 0.2, 0.1):
        gradients = [rng.normal(size=v.shape).astype(np.float32) for v in (kernel, bias)]
        update([tf.constant(g) for g in gradients], tf.constant(rate))
        getattr(papers[0], name)(gradients[0].astype(np.float64), rate)
        if name == "lars":  # plain momentum, not Nesterov's
            papers[1].m = 0.9 * papers[1].m + rate * gradients[1]
            papers[1].w = papers[1].w - papers[1].m
        else:
            getattr(papers[1], bias_methods.get(name, name))(gradients[1].astype(np.float64), rate)
        np.testing.assert_allclose(kernel.numpy(), papers[0].w, atol=atol)
        np.testing.assert_allclose(bias.numpy(), papers[1].w, atol=atol)
    assert int(optimizer.iterations) == 4


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw", "lamb"])
@pytest.mark.parametrize("kind", ["auto", "l2", "decoupled"])
def test_weight_decay_is_applied_once(one_device, name, kind):
    """With a zero gradient, only weight decay changes a kernel: it shrinks, in either form.

    LARS uses the global learning rate if the gradient is zero. With Adam and L2 the size of the
    step does not depend on the decay, so there is no expected ratio.
    """
    config = OptimizationConfig(optimizer=name, weight_decay=0.1, decay_kind=kind)
    with one_device.scope():
        model = dense_model()
        optimizer = optimizers.build_optimizer(config, model)
    kernel, bias = model.trainable_variables
    bias.assign([1.0, 2.0, 3.0])
    start = kernel.numpy()
    l2, decoupled = optimizers.get_step_weight_decay(config)
    gradients = [l2 * kernel.value, tf.zeros(3)]
    rate = tf.constant(0.01)
    optimizers.apply_gradients(
        one_device, optimizer, gradients, [kernel, bias], rate, decoupled, {id(kernel)}
    )
    ratio = (kernel.numpy() / start).mean()
    assert np.linalg.norm(kernel.numpy()) < np.linalg.norm(start)
    np.testing.assert_array_equal(bias.numpy(), [1.0, 2.0, 3.0])
    expected = {("sgd", "decoupled"): 1 - 0.001, ("adamw", "decoupled"): 1 - 0.001}
    expected |= {("lamb", "decoupled"): 1 - 0.01, ("lars", "decoupled"): 1 - 0.001}
    expected |= {("sgd", "l2"): 1 - 0.0019, ("lars", "l2"): 1 - 0.001}
    if (name, kind) in expected:
        assert ratio == pytest.approx(expected[name, kind], abs=2e-7)


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw", "lamb"])
def test_build_optimizer_creates_all_variables(name):
    model = dense_model()
    optimizer = optimizers.build_optimizer(OptimizationConfig(optimizer=name), model)
    slots = 2 if name in ("adamw", "lamb") else 1
    assert len(optimizer.variables) == slots * len(model.trainable_variables) + 2
    paths = [variable.path for variable in optimizer.variables]
    assert len(set(paths)) == len(paths)


def test_output_variables_are_those_of_the_classifier():
    model = registry.build_model(registry.NetConfig(model="resnet_18", num_classes=10))
    assert [v.shape[-1] for v in optimizers.get_output_variables(model)] == [10, 10]


def test_frozen_kernels_get_no_weight_decay():
    model = dense_model()
    model.trainable = False
    assert optimizers.select_decayed_kernels(model) == []
