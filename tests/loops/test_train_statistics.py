"""Batch norm's statistics early in training, against moments computed layer by layer."""

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.errors import UsageError
from loops.train_setup import TrainSetup
from loops.train_statistics import EARLY_STEPS, TrainStatistics
from nets.layers.batch_norm import BatchNorm
from tests.command_line import resolve

pytestmark = pytest.mark.usefixtures("early_statistics")


def make_setup(folder, strategy, *words):
    words = ["--dataset=folder", f"--data_dir={folder}", "--batch_size=12", *words]
    config = resolve("--model=resnetv2_18", "--image_size=32", "--augment=none", *words)
    setup = TrainSetup(config, with_val=False, strategy=strategy)
    setup.build()
    return setup


def get_statistics(model):
    return {v.path: v.numpy() for v in model.non_trainable_variables if "moving" in v.path}


def compute_moments(setup, parts):
    """Returns the means over 24 images of the moments of each batch norm's inputs, in NumPy.

    Args:
      setup: a TrainSetup with one replica.
      parts: number of micro-batches of each of the two batches of 12 images.
    """
    model, data = setup.state.model, setup.config.data
    convolutions = [model.get_layer("conv1"), model.get_layer("conv2")]
    norms = [layer for layer in model.layers if isinstance(layer, BatchNorm)]
    iterator = setup.train_input.make_iterator(0)
    moments = []
    for batch in [next(iterator)["image"].numpy() for _ in range(2)]:
        for pixels in np.split(batch, parts):
            x = (pixels.astype(np.float32) - np.float32(data.mean)) / np.float32(data.std)
            of_layers = []
            for convolution, norm in zip(convolutions, norms, strict=True):
                x = np.asarray(convolution(x))
                mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
                of_layers += [mean, variance]
                x = np.maximum((x - mean) / np.sqrt(variance + norm.epsilon), 0.0)
            moments.append(of_layers)
    paths = [v.path for norm in norms for v in (norm.moving_mean, norm.moving_variance)]
    return {path: np.mean(values, axis=0) for path, *values in zip(paths, *moments, strict=True)}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_statistics_are_means_over_the_first_images(tiny_folder, one_device, accumulate):
    setup = make_setup(tiny_folder, one_device, f"--accumulate={accumulate}")
    expected = compute_moments(setup, accumulate)
    for variable in setup.state.model.non_trainable_variables:
        variable.assign(variable.value + 100.0)  # what moving averages may be
    TrainStatistics(setup).update(7)
    statistics = get_statistics(setup.state.model)
    assert statistics.keys() == expected.keys() and len(expected) == 4
    for path, value in statistics.items():
        np.testing.assert_allclose(
            value, expected[path].astype(float), rtol=1e-4, atol=1e-5, err_msg=path
        )


def test_averaged_weights_have_statistics_of_their_own(tiny_folder, one_device):
    setup = make_setup(tiny_folder, one_device, "--ema=0.9")
    plain = make_setup(tiny_folder, one_device)
    model, ema = setup.state.model, setup.state.ema
    TrainStatistics(plain).update(1)
    for variable, average in ((v, ema.variables()[v.path]) for v in model.trainable_variables):
        average.assign(variable.value)
        variable.assign(variable.value * 1.5)
    TrainStatistics(setup).update(1)
    for path, value in get_statistics(plain.state.model).items():
        np.testing.assert_allclose(ema.variables()[path].numpy(), value, rtol=1e-4, atol=1e-5)
    ratio = [value / ema.variables()[path].numpy() for path, value in get_statistics(model).items()]
    np.testing.assert_allclose(ratio[0], 1.5, rtol=1e-3)  # the mean after the first convolution


def test_replicas_have_equal_statistics(tiny_folder, mirrored):
    setup = make_setup(tiny_folder, mirrored)
    TrainStatistics(setup).update(1)
    one = get_statistics(setup.state.model)
    for variable in setup.state.model.non_trainable_variables:
        for value in mirrored.experimental_local_results(variable.value):
            np.testing.assert_allclose(value.numpy(), one[variable.path], rtol=1e-6)


def test_late_statistics_are_the_moving_averages(tiny_folder, one_device):
    setup = make_setup(tiny_folder, one_device)
    before = get_statistics(setup.state.model)
    TrainStatistics(setup).update(EARLY_STEPS + 1)
    for path, value in get_statistics(setup.state.model).items():
        np.testing.assert_array_equal(value, before[path])


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.InvalidArgumentError(None, None, "no images"),
        UsageError("no images"),  # as of a data service that has ended
    ],
)
def test_an_error_of_the_input_pipeline_does_not_prevent_a_save(
    tiny_folder, one_device, monkeypatch, caplog, error
):
    setup = make_setup(tiny_folder, one_device)

    def fail(step):
        raise error

    monkeypatch.setattr(setup.train_input, "make_iterator", fail)
    TrainStatistics(setup).update(1)
    assert caplog.messages[-1] == "batch norm's statistics: no images"
