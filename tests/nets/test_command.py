"""The command `python -m tests.nets FILE.py:FUNCTION`."""

import pytest

from tests.nets.__main__ import main

NET = """
import keras
from nets import registry

@registry.net(min_image_size=16)
def good(kit, num_classes):
    image = kit.image()
    x = kit.conv_relu(image, 32, 5, "conv1", stride=2)
    x = kit.conv_relu(x, 64, 3, "conv2", stride=2)
    x = kit.flatten(kit.average_pool(kit.average_pool(kit.average_pool(x, "a"), "b"), "c"), "d")
    return kit.build_model(image, kit.logits(x, num_classes))

class Unused(keras.layers.Layer):
    decays = {"alpha": False}
    def build(self, shape):
        self.alpha = self.add_weight(shape=(1,), name="alpha")
    def call(self, x):
        return x + 0.0 * self.alpha
    def count_multiply_adds(self, shape):
        return 0

@registry.net
def bad(kit, num_classes):
    image = kit.image()
    x = Unused(name="unused")(kit.conv_relu(image, 32, 5, "conv1", stride=2))
    return kit.build_model(image, kit.logits(kit.global_average_pool(x, "pool"), num_classes))

@registry.net
def broken(kit, num_classes):
    raise RuntimeError("of mine")

@registry.net
def uneven(kit, num_classes):
    image = kit.image()
    x = kit.conv_relu(image, 8, 3, "conv1", stride=2)
    halved = kit.conv_relu(x, 8, 3, "conv2", stride=2)
    x = keras.layers.Add(name="sum")([x, halved])
    return kit.build_model(image, kit.logits(kit.global_average_pool(x, "pool"), num_classes))
"""


@pytest.fixture
def path(tmp_path):
    """A file with a net that passes, one that fails and one that cannot be built."""
    path = tmp_path / "own.py"
    path.write_text(NET.replace("kit.image()", "kit.image(64)", 1))
    return path


def test_a_net_that_passes(path, capsys):
    assert main([f"{path}:good"]) == 0
    lines = capsys.readouterr().out.splitlines()
    parameters = 75 * 32 + 32 + 9 * 32 * 64 + 64 + 4 * 64 * 42 + 42
    assert lines[0] == f"trainable parameters with 42 classes: {parameters:_}"
    multiply_adds = 32**2 * 75 * 32 + 16**2 * 9 * 32 * 64 + 4 * 64 * 42
    assert lines[1] == f"multiply-adds at 64 px: {multiply_adds:_}"
    assert lines[2] == "in float32 with --mixed_precision: logits"
    assert lines[3] == "weight decay: 3 of 6 tensors"
    assert lines[-1] == "memorizes 64 images"


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("bad", 1, "failed: these tensors get no gradient in two steps: unused/alpha"),
        ("broken", 2, "own.py:30: RuntimeError: of mine"),
        ("none", 2, "has no function none"),
        ("uneven", 2, "error: sum of the net at 64 px: "),
    ],
)
def test_a_net_that_fails(path, capsys, name, code, words):
    assert main([f"{path}:{name}"]) == code
    assert words in capsys.readouterr().err


def test_usage(capsys):
    assert main([]) == 2
    assert "FILE.py:FUNCTION" in capsys.readouterr().err
