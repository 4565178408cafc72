"""ResNet (He et al. 2015, "Deep residual learning", section 4.1), SE-ResNet and ResNet-D.

Differences from the paper:

- The stride of a bottleneck is on its 3 x 3 convolution, not on the first 1 x 1. Facebook's and
  torchvision's ResNets do the same, because it gains about half a point of accuracy.
- Every projection shortcut is option B.

Squeeze-and-excitation follows the last batch norm of a residual branch, before the addition
(figure 3 of Hu et al. 2018). ResNet-D (He et al. 2019, "Bag of tricks", section 4) has a stem of
three small convolutions, and averages pixels in its shortcuts.
"""

import functools
from collections.abc import Callable, Sequence

import keras

from nets import registry
from nets.layers.kit import Kit, ResidualBlock

# Applied to a residual branch before the addition: (kit, x, name) to a tensor of the same shape.
Attention = Callable[[Kit, keras.KerasTensor, str], keras.KerasTensor]


@registry.net(residual=True)
def resnet(
    kit: Kit,
    num_classes: int,
    depths: Sequence[int],
    bottleneck: bool = False,
    attention: Attention | str | None = None,
    deep_stem: bool = False,
    average_shortcut: bool = False,
    block: ResidualBlock | None = None,
) -> keras.Model:
    """Builds a ResNet.

    Args:
      kit: layers of the net.
      num_classes: length of the logits.
      depths: residual blocks in each of the four stages (table 1 of the paper).
      bottleneck, attention, average_shortcut: see `residual_block`.
      deep_stem: replace the 7 x 7 convolution by three 3 x 3 ones.
      block: replaces `residual_block`.

    Returns:
      Model from images [B, S, S, 3] to float32 logits [B, num_classes].
    """
    if block is None:
        block = functools.partial(
            residual_block,
            bottleneck=bottleneck,
            attention=attention,
            average_shortcut=average_shortcut,
        )
    image = kit.image()
    if deep_stem:
        x = kit.conv(image, 32, 3, "stem_conv1", stride=2)
        x = kit.batch_norm_relu(x, "stem_conv1")
        x = kit.batch_norm_relu(kit.conv(x, 32, 3, "stem_conv2"), "stem_conv2")
        x = kit.conv(x, 64, 3, "stem_conv")
    else:
        x = kit.conv(image, 64, 7, "stem_conv", stride=2)
    x = kit.batch_norm_relu(x, "stem")
    x = kit.residual_stages(kit.max_pool(x, "stem_pool"), depths, block)
    x = kit.global_average_pool(x, "pool")
    x = kit.dropout(x, "dropout")
    return kit.build_model(image, kit.logits(x, num_classes))


def residual_block(
    kit: Kit,
    x: keras.KerasTensor,
    width: int,
    stride: int,
    name: str,
    bottleneck: bool = False,
    attention: Attention | str | None = None,
    average_shortcut: bool = False,
) -> keras.KerasTensor:
    """Applies a residual block.

    Args:
      kit: layers of the net.
      x: input [B, H, W, C].
      width: number of channels of its 3 x 3 convolution.
      stride: of its 3 x 3 convolution, or of the first one.
      name: prefix of the names of its layers.
      bottleneck: convolutions of 1 x 1, 3 x 3 and 1 x 1 (figure 5, right), not two of 3 x 3 (left).
      attention: what is applied to the branch before the addition: a function, or the name of a
        method of Kit.
      average_shortcut: see `projection`.
    """
    channels = 4 * width if bottleneck else width
    shortcut = projection(kit, x, channels, stride, name, average_shortcut)
    if bottleneck:
        convolutions = [(width, 1, 1), (width, 3, stride), (channels, 1, 1)]
    else:
        convolutions = [(width, 3, stride), (width, 3, 1)]
    last = len(convolutions)
    for i, (filters, size, conv_stride) in enumerate(convolutions, 1):
        x = kit.conv(x, filters, size, f"{name}_conv{i}", conv_stride)
        if i < last:
            x = kit.batch_norm_relu(x, f"{name}_conv{i}")
    x = kit.batch_norm(x, f"{name}_conv{last}_bn", last_of_branch=True)
    if isinstance(attention, str):
        x = getattr(kit, attention)(x, f"{name}_se")
    elif attention is not None:
        x = attention(kit, x, f"{name}_se")
    return kit.relu(kit.add(x, shortcut, f"{name}_add"), f"{name}_relu")


def projection(
    kit: Kit,
    x: keras.KerasTensor,
    channels: int,
    stride: int,
    name: str,
    average: bool = False,
) -> keras.KerasTensor:
    """Returns the shortcut: x if the shapes match, else a 1 x 1 convolution (option B).

    Args:
      kit, x, stride, name: see `residual_block`.
      channels: of the block's output.
      average: a shortcut with a stride averages 2 x 2 pixels before its convolution, so that it
        uses all of them.
    """
    if stride == 1 and x.shape[-1] == channels:
        return x
    if average and stride > 1:
        x, stride = kit.average_pool(x, f"{name}_shortcut_pool"), 1
    x = kit.conv(x, channels, 1, f"{name}_shortcut", stride)
    return kit.batch_norm(x, f"{name}_shortcut_bn")
