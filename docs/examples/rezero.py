"""ReZero-ResNet (Bachlechner et al. 2020, "ReZero is all you need"): another residual block."""

import keras

from nets import registry, resnet


class Factor(keras.layers.Layer):
    """Multiplies by one learned number, which starts at zero."""

    decays = {"alpha": False}

    def build(self, shape):
        self.alpha = self.add_weight(shape=(), initializer="zeros", name="alpha")

    def call(self, x):
        return self.alpha * x

    def count_multiply_adds(self, shape):
        return 0


def rezero_block(kit, x, width, stride, name):
    """Adds two 3 x 3 convolutions, multiplied by a factor, to the shortcut."""
    shortcut = resnet.projection(kit, x, width, stride, name)
    x = kit.batch_norm_relu(kit.conv(x, width, 3, f"{name}_conv1", stride), f"{name}_conv1")
    x = kit.conv(x, width, 3, f"{name}_conv2")
    x = Factor(name=f"{name}_factor", dtype=kit.dtype)(x)
    return kit.relu(kit.add(x, shortcut, f"{name}_add"), f"{name}_relu")


@registry.net(residual=True)
def rezero_18(kit, num_classes):
    """Builds a ResNet-18 of such blocks."""
    return resnet.resnet(kit, num_classes, (2, 2, 2, 2), block=rezero_block)
