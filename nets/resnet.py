"""ResNet (He et al. 2015, "Deep residual learning", section 4.1) and SE-ResNet (Hu et al. 2018).

Differences from the paper:

- The stride of a bottleneck is on its 3 x 3 convolution, not on the first 1 x 1. Facebook's and
  torchvision's ResNets do the same, because it gains about half a point of accuracy.
- Every projection shortcut is option B.

Squeeze-and-excitation follows the last batch norm of a residual branch, before the addition
(figure 3 of Hu et al.).
"""

from collections.abc import Sequence

import keras

from nets.layers.kit import Kit


def resnet(
    kit: Kit,
    num_classes: int,
    depths: Sequence[int],
    bottleneck: bool,
    squeeze_excite: bool = False,
) -> keras.Model:
    """Builds a ResNet.

    Args:
      kit: layers of the net.
      num_classes: length of the logits.
      depths: residual blocks in each of the four stages (table 1 of the paper).
      bottleneck: use blocks of three layers (ResNet-50 and deeper), not of two.
      squeeze_excite: build SE-ResNet.

    Returns:
      Model from images [B, S, S, 3] to float32 logits [B, num_classes].
    """
    block = bottleneck_block if bottleneck else basic_block
    image = kit.image()
    x = kit.conv(image, 64, 7, "stem_conv", stride=2)
    x = kit.batch_norm_relu(x, "stem")
    x = kit.begin_residual_blocks(kit.max_pool(x, "stem_pool"), sum(depths))
    for stage, depth in enumerate(depths):
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            name = f"stage{stage + 1}_block{index + 1}"
            x = block(kit, x, 64 * 2**stage, stride, squeeze_excite, name)
    x = kit.global_average_pool(x, "pool")
    x = kit.dropout(x, "dropout")
    return kit.build_model(image, kit.logits(x, num_classes))


def basic_block(
    kit: Kit, x: keras.KerasTensor, width: int, stride: int, squeeze_excite: bool, name: str
) -> keras.KerasTensor:
    """Applies a block of two 3 x 3 convolutions (figure 5, left)."""
    shortcut = projection(kit, x, width, stride, name)
    x = kit.conv(x, width, 3, f"{name}_conv1", stride)
    x = kit.batch_norm_relu(x, f"{name}_conv1")
    x = kit.conv(x, width, 3, f"{name}_conv2")
    return residual_add(kit, x, shortcut, squeeze_excite, f"{name}_conv2", name)


def bottleneck_block(
    kit: Kit, x: keras.KerasTensor, width: int, stride: int, squeeze_excite: bool, name: str
) -> keras.KerasTensor:
    """Applies a block of 1 x 1, 3 x 3 and 1 x 1 convolutions (figure 5, right)."""
    shortcut = projection(kit, x, 4 * width, stride, name)
    x = kit.conv(x, width, 1, f"{name}_conv1")
    x = kit.batch_norm_relu(x, f"{name}_conv1")
    x = kit.conv(x, width, 3, f"{name}_conv2", stride)
    x = kit.batch_norm_relu(x, f"{name}_conv2")
    x = kit.conv(x, 4 * width, 1, f"{name}_conv3")
    return residual_add(kit, x, shortcut, squeeze_excite, f"{name}_conv3", name)


def projection(
    kit: Kit, x: keras.KerasTensor, channels: int, stride: int, name: str
) -> keras.KerasTensor:
    """Returns the shortcut: x if the shapes match, else a 1 x 1 convolution of x (option B)."""
    if stride == 1 and x.shape[-1] == channels:
        return x
    x = kit.conv(x, channels, 1, f"{name}_shortcut", stride)
    return kit.batch_norm(x, f"{name}_shortcut_bn")


def residual_add(
    kit: Kit,
    x: keras.KerasTensor,
    shortcut: keras.KerasTensor,
    squeeze_excite: bool,
    last_conv: str,
    name: str,
) -> keras.KerasTensor:
    """Applies the last batch norm, the optional gate, the addition and the ReLU of a block."""
    x = kit.batch_norm(x, f"{last_conv}_bn", last_of_branch=True)
    if squeeze_excite:
        x = kit.squeeze_excite(x, f"{name}_se")
    return kit.relu(kit.add(x, shortcut, f"{name}_add"), f"{name}_relu")
