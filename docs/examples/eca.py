"""ECA-ResNet (Wang et al. 2020, "ECA-Net"): a new block for a ResNet."""

import keras

from nets import registry, resnet


def eca(kit, x, name):
    """Scales each channel by a gate computed from the means of three neighboring channels."""
    channels = x.shape[-1]
    gate = kit.global_average_pool(x, f"{name}_pool")  # [B, C]
    gate = keras.layers.Reshape((channels, 1), name=f"{name}_channels", dtype=kit.dtype)(gate)
    gate = keras.layers.Conv1D(
        1, 3, padding="same", use_bias=False, activation="sigmoid", name=name, dtype=kit.dtype
    )(gate)
    gate = keras.layers.Reshape((1, 1, channels), name=f"{name}_gate", dtype=kit.dtype)(gate)
    return keras.layers.Multiply(name=f"{name}_scale", dtype=kit.dtype)([x, gate])


@registry.net(residual=True)
def resneteca_18(kit, num_classes):
    """Builds a ResNet-18 with this attention."""
    return resnet.resnet(kit, num_classes, (2, 2, 2, 2), bottleneck=False, attention=eca)
