"""Optimizers, clipping, averages and micro-batches inside of the training step."""

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
    """Two convolutions without batch norm, and smooth, so that rounding moves nothing far."""

    def build(config):
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
def test_accumulation_changes_nothing_without_batch_norm(one_device, mirrored):
    images = random_images(3)
    whole, results = run_steps(one_device, images)
    for strategy, parts in ((one_device, 4), (mirrored, 2)):
        cut, cut_results = run_steps(strategy, images, accumulate=parts)
        assert_close(cut, whole)
        assert cut_results["steps"] == 3
        for name in ("loss", "top1", "top5"):
            assert cut_results[name] == pytest.approx(results[name], rel=1e-5)
    moved = weights(whole)["conv1/kernel"] - weights(make_state(one_device))["conv1/kernel"]
    assert np.abs(moved).max() > 1e-3


def test_batch_norm_sees_micro_batches(one_device, mirrored):
    """Two replicas are two micro-batches of one: batch norm has the same moments over them."""
    images = random_images(3)
    cut, _ = run_steps(one_device, images, accumulate=2)
    two, _ = run_steps(mirrored, images)
    assert_close(cut, two)


def test_synchronised_batch_norm_meets_micro_batch_by_micro_batch(one_device, mirrored):
    """Both replicas' first halves make one micro-batch, then their second halves."""
    images = random_images(1)
    order = [0, 1, 4, 5, 2, 3, 6, 7]
    two, _ = run_steps(mirrored, images, "--sync_batch_norm", accumulate=2)
    assert_replicas_equal(two)
    one, _ = run_steps(one_device, images[order], labels=np.array(order) % CLASSES, accumulate=2)
    assert_close(one, two)


@pytest.mark.usefixtures("plain_net")
@pytest.mark.parametrize("optimizer", ["lars", "adamw", "lamb"])
def test_every_optimizer_on_two_replicas(one_device, mirrored, optimizer):
    changes = {"optimizer": optimizer, "clip_norm": 0.5, "clip_factor": 0.05}
    # Adam divides by the gradient's own size, which turns rounding of tiny ones into steps.
    changes["learning_rate"] = lambda step: 0.001 / (1.0 + tf.cast(step, tf.float32))
    images = random_images(3)
    one, _ = run_steps(one_device, images, **changes)
    two, _ = run_steps(mirrored, images, **changes)
    assert_replicas_equal(two)
    assert_close(one, two, atol=1e-6 if optimizer == "lars" else 2e-5)


def test_clipping_comes_after_the_reduction_and_before_the_penalty(mirrored):
    """Norms are those of the whole batch, and clipping to nothing leaves L2 alone."""
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


def test_average_follows_weights_and_statistics(mirrored):
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
        now = values()
        expected = {p: decay * e + (1 - decay) * now[p] for p, e in expected.items()}
    averages = {path: v.numpy() for path, v in state.ema.variables().items()}
    assert averages.keys() == expected.keys()
    assert any("moving_variance" in path for path in averages)
    for path, value in expected.items():
        np.testing.assert_allclose(averages[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
    with state.ema.swap_weights():
        for path, value in values().items():
            np.testing.assert_array_equal(value, averages[path], path)
    for path, value in values().items():
        np.testing.assert_array_equal(value, now[path], path)


def test_a_skipped_step_does_not_move_the_average(one_device):
    images = random_images(1)
    state = make_state(one_device, "--ema=0.9")
    step = TrainStep(state, settings(ema=0.9, prepare=lambda b: _infinite(settings().prepare(b))))
    before = {path: v.numpy() for path, v in state.ema.variables().items()}
    results = step(batches(one_device, images), tf.constant(1, tf.int64))
    assert float(results["applied"]) == 0.0
    for path, v in state.ema.variables().items():
        np.testing.assert_array_equal(v.numpy(), before[path])


def _infinite(prepared):
    images, targets = prepared
    return images * np.inf, targets


@pytest.mark.parametrize("devices", ["one_device", "mirrored"])
def test_xla_changes_nothing_but_rounding(devices, request):
    strategy = request.getfixturevalue(devices)
    images = random_images(2)
    plain, _ = run_steps(strategy, images)
    compiled, _ = run_steps(strategy, images, xla=True)
    assert_close(plain, compiled, atol=1e-5)


def test_bce_is_the_loss_that_is_minimised(one_device):
    images = random_images(1)
    _, results = run_steps(one_device, images, loss="bce", label_smoothing=0.0)
    # At the start all logits are near zero: ln 2 for each class.
    assert results["loss"] / BATCH == pytest.approx(np.log(2), abs=0.15)


@pytest.mark.usefixtures("plain_net")
def test_units_are_clipped_first_then_the_norm_of_all_and_not_the_output_layer(one_device):
    """One step of plain SGD, in numpy from the gradients that a step without clipping takes."""
    images = random_images(1)
    changes = {"momentum": 0.0, "nesterov": False, "learning_rate": lambda step: tf.constant(1.0)}

    def moved(**clipping):
        state = make_state(one_device, "--momentum=0", "--nonesterov")
        before = weights(state)
        step = TrainStep(state, settings(**changes, weight_decay=0.0, **clipping))
        step(batches(one_device, images), tf.constant(1, tf.int64))
        return before, {path: before[path] - value for path, value in weights(state).items()}

    before, gradients = moved()
    factor = 1e-3
    expected = {}
    for path, gradient in gradients.items():
        axes = tuple(range(gradient.ndim - 1)) if gradient.ndim > 1 else None
        norm = np.sqrt((gradient**2).sum(axes, keepdims=True))
        weight = np.sqrt((before[path] ** 2).sum(axes, keepdims=True))
        limit = factor * np.maximum(weight, 1e-3)
        shrink = 1.0 if path.startswith("logits") else np.minimum(1.0, limit / norm)
        expected[path] = gradient * shrink
    assert any(np.abs(expected[p]).max() < 0.9 * np.abs(gradients[p]).max() for p in expected)
    total = np.sqrt(sum((value**2).sum() for value in expected.values()))
    _, found = moved(clip_factor=factor, clip_norm=float(total) / 2)
    for path, value in found.items():
        np.testing.assert_allclose(value, expected[path] / 2, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("half", [(), ("--mixed_precision", "--half_dtype=float16")])
def test_recomputation_changes_no_bit_of_a_step(mirrored, monkeypatch, half):
    """Of a net with blocks, in micro-batches, on two replicas."""

    def build(config):
        kit = Kit(config.compute_dtype, recompute=config.recompute)
        return resnetv2.resnetv2(kit, config.num_classes, (1, 1), bottleneck=False)

    monkeypatch.setattr(registry, "build_model", build)
    images = random_images(2)
    plain, results = run_steps(mirrored, images, *half, accumulate=2)
    spare, same = run_steps(mirrored, images, *half, "--recompute", accumulate=2)
    assert type(spare.model) is RecomputingModel and type(plain.model) is not RecomputingModel
    assert results["applied"] == 2 and results["loss"] == same["loss"]
    plain.average_batch_norm()
    spare.average_batch_norm()
    for one, other in zip(plain.model.variables, spare.model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), one.path)
