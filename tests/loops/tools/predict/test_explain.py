"""Tests Grad-CAM and occlusion against hand-computed gradients and plain loops."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from loops.tools.predict import explain
from nets import registry
from nets.layers.batch_norm import BatchNorm
from tests.command_line import refusal

RNG = np.random.default_rng(3)


def smallest_net_of_each_family():
    """Returns one net per family, because all nets of a family end in the same layers."""
    smallest = {}
    for name in registry.names():
        family = re.sub(r"\d+(d?)$", r"\1", name)  # resnet_18d is of the family resnet_d
        smallest.setdefault(family, name)
    return sorted(smallest.values())


def images(count, size):
    return tf.constant(RNG.normal(size=(count, size, size, 3)), tf.float32)


def test_grad_cam_of_a_linear_head():
    """With a global average pool and a dense layer, a_k = w_k / (h w)."""
    image = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(5, 3, strides=2, padding="same")(image)
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    model = keras.Model(image, keras.layers.Dense(4)(pooled))
    batch = images(2, 10)
    maps = keras.Model(image, features)(batch).numpy()  # [2, 5, 5, 5]
    weights = model.layers[-1].kernel.numpy()[:, 3]
    expected = np.maximum(0, (maps * weights).sum(axis=-1)) / 25
    cam = explain.make_grad_cam(model, 10)(batch, 3)
    np.testing.assert_allclose(cam, expected, rtol=1e-5, atol=1e-7)
    assert cam.shape == (2, 5, 5) and cam.max() > 0


def test_grad_cam_of_a_flattened_head():
    """Computes the gradient of pool, flatten, dense, ReLU, dense (as in AlexNet) by hand."""
    image = keras.Input((10, 10, 3))
    x = keras.layers.ReLU()(keras.layers.Conv2D(4, 3, padding="same")(image))
    pooled = keras.layers.MaxPool2D(2)(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(pooled))
    hidden = keras.layers.Dense(6)(x)
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.ReLU()(hidden)))
    batch = images(1, 10)
    maps, before = (t.numpy()[0] for t in keras.Model(image, [pooled, hidden])(batch))
    first, second = (layer.kernel.numpy() for layer in (model.layers[-3], model.layers[-1]))
    gradient = (first @ ((before > 0) * second[:, 1])).reshape(5, 5, 4)  # [h, w, K]
    expected = np.maximum(0, (maps * gradient.mean(axis=(0, 1))).sum(axis=-1))
    cam = explain.make_grad_cam(model, 10)(batch, 1)
    np.testing.assert_allclose(cam[0], expected, rtol=1e-4, atol=1e-7)
    assert explain.find_feature_map(model, 10) is pooled


def test_feature_map_is_the_last_of_at_least_five_by_five():
    """At 64 px a net of five halvings ends in 2 x 2 maps. The fourth of five is 4 x 4 as well."""
    x = image = keras.Input((None, None, 3))
    outputs = [x := keras.layers.Conv2D(2, 3, 2, padding="same")(x) for _ in range(5)]
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(2)(pooled))
    sizes = {256: 4, 160: 4, 128: 3, 64: 2, 32: 1, 16: 0, 8: 0}
    for size, index in sizes.items():
        assert explain.find_feature_map(model, size) is outputs[index], size


def test_feature_map_has_more_than_one_pixel():
    """Convolutions in place of dense layers end in 1 x 1 maps without a position."""
    image = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(4, 3, padding="same")(image)
    x = keras.layers.Conv2D(6, 8)(features)
    x = keras.layers.GlobalAveragePooling2D(keepdims=True)(keras.layers.Conv2D(3, 1)(x))
    model = keras.Model(image, keras.layers.Flatten()(x))
    assert explain.find_feature_map(model, 8) is features
    inputs = keras.Input((5,))
    without = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    assert "Grad-CAM needs" in refusal(explain.find_feature_map, without, 8)


def test_feature_map_of_a_head_with_two_branches():
    """Both the mean and the maximum of a map go to the logits; a branch around it would not do."""
    image = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(4, 3)(image)
    mean, top = keras.layers.GlobalAveragePooling2D(), keras.layers.GlobalMaxPooling2D()
    both = keras.layers.Concatenate()([mean(features), top(features)])
    model = keras.Model(image, keras.layers.Dense(2)(both))
    assert explain.find_feature_map(model, 8) is features
    around = keras.layers.Concatenate()([mean(features), keras.layers.GlobalMaxPooling2D()(image)])
    model = keras.Model(image, keras.layers.Dense(2)(around))
    assert "Grad-CAM needs" in refusal(explain.find_feature_map, model, 8)


def set_batch_norm_statistics(model, batch):
    """Sets the moving statistics of batch norm to the moments of a batch.

    With the initial statistics, activations grow from block to block. In a net of 152 layers with
    squeeze-and-excitation, rounding differences then grow to 20 %.
    """
    for layer in model.layers:
        if isinstance(layer, BatchNorm):
            layer.momentum = 0.0
    model(batch, training=True)


def check_grad_cam(name):
    size = max(64, registry.min_image_size(name))
    config = registry.NetConfig(model=name, num_classes=7, input_size=size)
    model = registry.build_model(config)
    batch = images(1, size)
    set_batch_norm_statistics(model, images(4, size))
    features = explain.find_feature_map(model, size)
    joined = keras.Model(model.input, [features, model.output])
    with tf.GradientTape() as tape:
        maps, logits = joined(batch, training=False)
        score = logits[0, 2]
    weights = tape.gradient(score, maps).numpy().mean(axis=(1, 2), keepdims=True)
    expected = np.maximum(0, (weights * maps.numpy()).sum(axis=-1))
    cam = explain.make_grad_cam(model, size)(batch, 2)
    assert cam.shape[1] == cam.shape[2] >= 5
    np.testing.assert_allclose(cam, expected, rtol=1e-3, atol=1e-6 * max(1, expected.max()))


@pytest.mark.parametrize("name", smallest_net_of_each_family())
def test_grad_cam_of_each_family(name):
    check_grad_cam(name)


@pytest.mark.faults
@pytest.mark.parametrize("name", sorted(set(registry.names()) - set(smallest_net_of_each_family())))
def test_grad_cam_of_every_other_net(name):
    check_grad_cam(name)


def logits_of_brightness(views):
    """Returns logits that sum a corner of the red channel and the middle of the green one."""
    views = tf.cast(views, tf.float32)
    corner = tf.reduce_sum(views[:, :, :5, :6, 0], axis=(2, 3)) / 800
    middle = tf.reduce_sum(views[:, :, 8:14, 7:15, 1], axis=(2, 3)) / 900
    return tf.stack([corner, middle, tf.ones_like(corner)], axis=-1)


@pytest.mark.parametrize(("window", "positions"), [(6, 4), (20, 1), (3, 9), (1, 2)])
def test_occlusion_against_plain_loop(window, positions):
    image = RNG.integers(0, 256, (20, 20, 3)).astype(np.uint8)
    fill = (101.4, 7.0, 30.6)

    def probability(picture):
        logits = logits_of_brightness(tf.constant(picture)[None, None])[0, 0].numpy()
        return np.exp(logits[1]) / np.exp(logits).sum()

    drop, starts = explain.occlusion(logits_of_brightness, image, 1, window, fill, positions)
    assert (starts[0], len(starts)) == (0, positions)
    assert positions == 1 or starts[-1] == 20 - window
    total, count = np.zeros((20, 20)), np.zeros((20, 20))
    for row, top in enumerate(starts):
        for column, left in enumerate(starts):
            hidden = image.copy()
            for y in range(top, top + window):
                for x in range(left, left + window):
                    hidden[y, x] = (101, 7, 31)
            expected = probability(image) - probability(hidden)
            assert drop[row, column] == pytest.approx(expected, abs=1e-6)
            for y in range(top, top + window):
                for x in range(left, left + window):
                    total[y, x] += expected
                    count[y, x] += 1
    mean = np.where(count > 0, total / np.maximum(count, 1), 0)
    np.testing.assert_allclose(explain.project_to_pixels(drop, starts, window, 20), mean, atol=1e-6)
