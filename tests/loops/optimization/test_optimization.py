"""Optimizers, clipping, EMA and gradient accumulation inside the training step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from loops.train_step import TrainStep
from nets import registry, resnetv2
from nets.layers.kit import Kit
from nets.layers.recompute import RecomputingModel
from tests.loops.small_steps import (
    BATCH,
    CLASSES,
    assert_replicas_equal,
    batches,
    make_state,
    random_images,
    run_steps,
    settings,
    weights,
)

pytestmark = pytest.mark.usefixtures("tiny_net")


@pytest.fixture
def plain_net(tiny_net, monkeypatch):
    """Two convolutions without batch norm or ReLU, so that rounding has only a small effect."""

    def build(config, random_weights=True):
        kit = Kit(config.compute_dtype, config.sync_batch_norm)
        image = kit.image()
        x = keras.layers.Activation("tanh")(kit.conv(image, 8, 3, "conv1", stride=2))
        x = kit.global_average_pool(kit.conv(x, 16, 3, "conv2", stride=2), "pool")
        return keras.Model(image, kit.logits(x, config.num_classes))

    monkeypatch.setattr(registry, "build_model", build)


def assert_close(one, two, atol=1e-6):
    one, two = weights(one), weights(two)
    assert one.keys() == two.keys()
    for path, value in one.items():
        np.testing.assert_allclose(value, two[path], atol=atol, err_msg=path)


@pytest.mark.usefixtures("plain_net")
def test_gradient_accumulation_equals_the_whole_batch_without_batch_norm(one_device, mirrored):
    images = random_images(3)
    whole, results = run_steps(one_device, images)
    for strategy, micro_batches in ((one_device, 4), (mirrored, 2)):
        accumulated, accumulated_results = run_steps(strategy, images, accumulate=micro_batches)
        assert_close(accumulated, whole)
        assert accumulated_results["steps"] == 3
        for name in ("loss", "top1", "top5"):
            assert accumulated_results[name] == pytest.approx(results[name], rel=1e-5)
    update = weights(whole)["conv1/kernel"] - weights(make_state(one_device))["conv1/kernel"]
    assert np.abs(update).max() > 1e-3


def test_batch_norm_uses_the_moments_of_each_micro_batch(one_device, mirrored):
    """Two micro-batches on one device give the same moments as two replicas."""
    images = random_images(3)
    accumulated, _ = run_steps(one_device, images, accumulate=2)
    two, _ = run_steps(mirrored, images)
    assert_close(accumulated, two)


def test_synchronized_batch_norm_with_gradient_accumulation(one_device, mirrored):
    """The first halves of both replicas are one micro-batch, their second halves the other."""
    images = random_images(1)
    order = [0, 1, 4, 5, 2, 3, 6, 7]
    two, _ = run_steps(mirrored, images, "--sync_batch_norm", accumulate=2)
    assert_replicas_equal(two)
    one, _ = run_steps(one_device, images[order], labels=np.array(order) % CLASSES, accumulate=2)
    assert_close(one, two)


@pytest.mark.usefixtures("plain_net")
@pytest.mark.parametrize("optimizer", ["lars", "adamw", "lamb", "muon"])
def test_every_optimizer_on_two_replicas(one_device, mirrored, optimizer):
    changes = {"optimizer": optimizer, "clip_norm": 0.5, "clip_factor": 0.05}
    # Adam divides by the size of the gradient, so rounding of tiny gradients changes whole steps.
    changes["learning_rate"] = lambda step: 0.001 / (1.0 + tf.cast(step, tf.float32))
    images = random_images(3)
    one, _ = run_steps(one_device, images, **changes)
    two, _ = run_steps(mirrored, images, **changes)
    assert_replicas_equal(two)
    assert_close(one, two, atol=1e-6 if optimizer == "lars" else 2e-5)


def test_clipping_comes_after_the_reduction_and_before_the_penalty(mirrored):
    """Norms are of the whole batch, and clipping to almost zero does not change the L2 term."""
    images = random_images(1)
    state = make_state(mirrored)
    before = weights(state)
    step = TrainStep(state, settings(clip_norm=1e-9, weight_decay=0.1, log_norms=True))
    results = step(batches(mirrored, images), tf.constant(1, tf.int64))
    kernels = {k.path for k in state.kernels}
    for path, value in weights(state).items():
        factor = 1 - 1.9 * 0.05 * 0.1 if path in kernels else 1.0
        np.testing.assert_allclose(value, before[path] * factor, rtol=1e-5, atol=1e-7)
    norms = results["gradient_norms"].numpy()
    assert norms.shape == (len(before),)
    assert (norms > 1e-6).all()


def test_ema_follows_weights_and_batch_norm_statistics(mirrored):
    images = random_images(3)
    state = make_state(mirrored, "--ema=0.5")
    step = TrainStep(state, settings(ema=0.5))
    iterator = batches(mirrored, images)

    def values():
        state.average_batch_norm()
        return {v.path: v.numpy() for v in state.model.variables}

    expected = values()
    for number in range(3):
        step(iterator, tf.constant(1, tf.int64))
        decay = min(0.5, (1 + number) / (10 + number))
        current = values()
        expected = {p: decay * e + (1 - decay) * current[p] for p, e in expected.items()}
    averages = {path: v.numpy() for path, v in state.ema.variables().items()}
    assert averages.keys() == expected.keys()
    assert any("moving_variance" in path for path in averages)
    for path, value in expected.items():
        np.testing.assert_allclose(averages[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
    with state.ema.swap_weights():
        for path, value in values().items():
            np.testing.assert_array_equal(value, averages[path], path)
    for path, value in values().items():
        np.testing.assert_array_equal(value, current[path], path)


def test_skipped_step_does_not_update_the_ema(one_device):
    images = random_images(1)
    state = make_state(one_device, "--ema=0.9")
    step = TrainStep(
        state, settings(ema=0.9, preprocess=lambda b: _make_infinite(settings().preprocess(b)))
    )
    before = {path: v.numpy() for path, v in state.ema.variables().items()}
    results = step(batches(one_device, images), tf.constant(1, tf.int64))
    assert float(results["applied"]) == 0.0
    for path, v in state.ema.variables().items():
        np.testing.assert_array_equal(v.numpy(), before[path])


def _make_infinite(prepared):
    images, targets = prepared
    return images * np.inf, targets


@pytest.mark.parametrize("devices", ["one_device", "mirrored"])
def test_xla_changes_only_rounding(devices, request):
    strategy = request.getfixturevalue(devices)
    images = random_images(2)
    plain, _ = run_steps(strategy, images)
    xla, _ = run_steps(strategy, images, xla=True)
    assert_close(plain, xla, atol=1e-5)


def test_training_with_bce_loss(one_device):
    images = random_images(1)
    _, results = run_steps(one_device, images, loss="bce", label_smoothing=0.0)
    # The initial logits are near zero, so the loss of each class is ln 2.
    assert results["loss"] / BATCH == pytest.approx(np.log(2), abs=0.15)


@pytest.mark.usefixtures("plain_net")
def test_adaptive_clipping_precedes_global_norm_clipping_and_skips_the_classifier(one_device):
    """Checks a step of plain SGD in NumPy against the gradients of a step without clipping."""
    images = random_images(1)
    changes = {"momentum": 0.0, "nesterov": False, "learning_rate": lambda step: tf.constant(1.0)}

    def run_step(**clipping):
        """Returns the weights before a step and the update of each, times -1."""
        state = make_state(one_device, "--momentum=0", "--nonesterov")
        before = weights(state)
        step = TrainStep(state, settings(**changes, weight_decay=0.0, **clipping))
        step(batches(one_device, images), tf.constant(1, tf.int64))
        return before, {path: before[path] - value for path, value in weights(state).items()}

    before, gradients = run_step()
    factor = 1e-3
    expected = {}
    for path, gradient in gradients.items():
        axes = tuple(range(gradient.ndim - 1)) if gradient.ndim > 1 else None
        norm = np.sqrt((gradient**2).sum(axes, keepdims=True))
        weight = np.sqrt((before[path] ** 2).sum(axes, keepdims=True))
        limit = factor * np.maximum(weight, 1e-3)
        scale = 1.0 if path.startswith("logits") else np.minimum(1.0, limit / norm)
        expected[path] = gradient * scale
    assert any(np.abs(expected[p]).max() < 0.9 * np.abs(gradients[p]).max() for p in expected)
    total = np.sqrt(sum((value**2).sum() for value in expected.values()))
    _, updates = run_step(clip_factor=factor, clip_norm=float(total) / 2)
    for path, value in updates.items():
        np.testing.assert_allclose(value, expected[path] / 2, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("half", [(), ("--mixed_precision", "--half_dtype=float16")])
def test_recompute_trains_bit_identical_weights(mirrored, monkeypatch, half):
    """A net with residual blocks, two micro-batches, two replicas."""

    def build(config, random_weights=True):
        kit = Kit(config.compute_dtype, recompute=config.recompute)
        return resnetv2.resnetv2(kit, config.num_classes, (1, 1), bottleneck=False)

    monkeypatch.setattr(registry, "build_model", build)
    images = random_images(2)
    plain, expected = run_steps(mirrored, images, *half, accumulate=2)
    recomputing, results = run_steps(mirrored, images, *half, "--recompute", accumulate=2)
    assert type(recomputing.model) is RecomputingModel
    assert type(plain.model) is not RecomputingModel
    assert expected["applied"] == 2 and results["loss"] == expected["loss"]
    plain.average_batch_norm()
    recomputing.average_batch_norm()
    for one, other in zip(plain.model.variables, recomputing.model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), one.path)
