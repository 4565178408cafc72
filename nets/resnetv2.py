"""ResNetV2: pre-activation residual nets (He et al. 2016, "Identity mappings", figure 4e).

`zero_init_residual` sets the last convolution of a residual branch to zero, not the gamma of its
last batch norm. A ReLU follows every batch norm, so a gamma of zero would get no gradient.

Differences from the paper's appendix, both as in timm's `resnetv2_*`:

- The stem is a convolution and pooling. Its batch norm and ReLU are those of the first block.
  With bottlenecks the net computes the same function. With 18 and 34 layers the first shortcut
  gets no activation.
- The stride of a bottleneck is on the 3 x 3 convolution.
"""

from collections.abc import Sequence

import keras

from nets import registry
from nets.layers.kit import Kit, ResidualBlock


@registry.net(residual=True)
def resnetv2(
    kit: Kit,
    num_classes: int,
    depths: Sequence[int],
    bottleneck: bool = False,
    block: ResidualBlock | None = None,
) -> keras.Model:
    """Builds a pre-activation ResNet.

    Args:
      kit: layers of the net.
      num_classes: length of the logits.
      depths: residual blocks in each of the four stages.
      bottleneck: use blocks of three layers (ResNetV2-50 and deeper), not of two.
      block: replaces both kinds of blocks.

    Returns:
      Model from images [B, S, S, 3] to float32 logits [B, num_classes].
    """
    if block is None:
        block = bottleneck_block if bottleneck else basic_block
    image = kit.image()
    x = kit.conv(image, 64, 7, "stem_conv", stride=2)
    x = kit.residual_stages(kit.max_pool(x, "stem_pool"), depths, block)
    x = kit.batch_norm_relu(x, "final")
    x = kit.global_average_pool(x, "pool")
    x = kit.dropout(x, "dropout")
    return kit.build_model(image, kit.logits(x, num_classes))


def basic_block(
    kit: Kit, x: keras.KerasTensor, width: int, stride: int, name: str
) -> keras.KerasTensor:
    """Applies batch norm, ReLU and a 3 x 3 convolution, twice."""
    preactivated = kit.batch_norm_relu(x, f"{name}_preact")
    shortcut = projection(kit, x, preactivated, width, stride, name)
    x = kit.conv(preactivated, width, 3, f"{name}_conv1", stride)
    x = kit.batch_norm_relu(x, f"{name}_conv1")
    x = kit.conv(x, width, 3, f"{name}_conv2", last_of_branch=True)
    return kit.add(x, shortcut, f"{name}_add")


def bottleneck_block(
    kit: Kit, x: keras.KerasTensor, width: int, stride: int, name: str
) -> keras.KerasTensor:
    """Applies 1 x 1, 3 x 3 and 1 x 1 convolutions, each after batch norm and ReLU."""
    preactivated = kit.batch_norm_relu(x, f"{name}_preact")
    shortcut = projection(kit, x, preactivated, 4 * width, stride, name)
    x = kit.conv(preactivated, width, 1, f"{name}_conv1")
    x = kit.batch_norm_relu(x, f"{name}_conv1")
    x = kit.conv(x, width, 3, f"{name}_conv2", stride)
    x = kit.batch_norm_relu(x, f"{name}_conv2")
    x = kit.conv(x, 4 * width, 1, f"{name}_conv3", last_of_branch=True)
    return kit.add(x, shortcut, f"{name}_add")


def projection(
    kit: Kit,
    x: keras.KerasTensor,
    preactivated: keras.KerasTensor,
    channels: int,
    stride: int,
    name: str,
) -> keras.KerasTensor:
    """Returns the shortcut: x if the shapes match, else a 1 x 1 convolution of `preactivated`."""
    if stride == 1 and x.shape[-1] == channels:
        return x
    return kit.conv(preactivated, channels, 1, f"{name}_shortcut", stride)
