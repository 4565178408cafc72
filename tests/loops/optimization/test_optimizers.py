"""Optimizers against Keras and their papers, and which variables get weight decay."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from loops.config.training import OptimizationConfig
from loops.optimization import optimizers
from nets import registry
from nets.layers.convolution import Conv


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


def conv_model():
    """A net with a kernel of more rows than columns, one of fewer, and other variables."""
    image = keras.Input([4, 4, 3])
    x = Conv(2, 3, name="wide")(image)  # 2 filters of 27 numbers
    x = keras.layers.Conv2D(8, 1, use_bias=False, name="tall")(x)  # 8 filters of 2 numbers
    return keras.Model(image, keras.layers.Dense(3, name="logits")(keras.layers.Flatten()(x)))


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_equals_keras_on_convolutions_and_sgd_on_the_rest(one_device, nesterov):
    """Keras's Muon takes matrices; without `rms_rate` it leaves out the factor of the rate."""
    rng = np.random.default_rng(1)
    config = OptimizationConfig(optimizer="muon", nesterov=nesterov)
    with one_device.scope():
        model = conv_model()
        made = optimizers.build_optimizer(config, model)
    wide, tall, *others = model.trainable_variables
    matrices = [keras.Variable(v.numpy().reshape(-1, v.shape[-1])) for v in (wide, tall)]
    copies = [keras.Variable(v.numpy()) for v in others]
    factors = [1.0, 2.0]  # sqrt(max(1, filters / numbers))
    theirs = [
        keras.optimizers.Muon(
            0.1 * factor, momentum=0.9, nesterov=nesterov, rms_rate=None, weight_decay=None
        )
        for factor in factors
    ]
    sgd = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=nesterov)
    for _ in range(3):
        gradients = [
            tf.constant(rng.normal(size=v.shape).astype(np.float32)) for v in (wide, tall, *others)
        ]
        optimizers.apply_gradients(
            one_device, made, gradients, model.trainable_variables, tf.constant(0.1)
        )
        for optimizer, gradient, matrix in zip(theirs, gradients, matrices, strict=False):
            optimizer.apply([tf.reshape(gradient, matrix.shape)], [matrix])
        sgd.apply(gradients[2:], copies)
    for variable, expected in zip((wide, tall, *others), matrices + copies, strict=True):
        values = variable.numpy().reshape(expected.shape)
        np.testing.assert_allclose(values, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_steps_of_muon_are_nearly_orthogonal_in_every_precision(dtype):
    """All directions of a step have nearly the same length, whatever those of the gradient."""
    rng = np.random.default_rng(1)
    gradient = rng.normal(size=[3, 3, 16, 32]) * np.logspace(0, -2, 32)
    kernel = keras.Variable(np.zeros([3, 3, 16, 32], np.float32))
    made = optimizers.Muon(0.9, nesterov=True, kernels={0: (dtype, 1)})
    made.build([kernel])
    made.update_step(tf.constant(gradient, tf.float32), kernel, tf.constant(0.5))
    lengths = np.linalg.svd(kernel.numpy().reshape(-1, 32), compute_uv=False)
    assert 0.5 * 0.6 < lengths.min() < lengths.max() < 0.5 * 1.3


def test_muon_treats_each_group_as_a_convolution():
    gradient = np.random.default_rng(1).normal(size=[3, 3, 4, 12]).astype(np.float32)
    whole, first = (keras.Variable(np.zeros([3, 3, 4, n], np.float32)) for n in (12, 4))
    for kernel, groups in ((whole, 3), (first, 1)):
        made = optimizers.Muon(0.9, nesterov=True, kernels={0: ("float32", groups)})
        made.build([kernel])
        part = tf.constant(gradient[..., : kernel.shape[-1]])
        made.update_step(part, kernel, tf.constant(0.5))
    np.testing.assert_allclose(whole.numpy()[..., :4], first.numpy(), atol=1e-6)
    assert np.any(whole.numpy()[..., 4:])


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


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw", "lamb", "muon"])
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


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw", "lamb", "muon"])
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
