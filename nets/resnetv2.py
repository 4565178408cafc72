"""ResNetV2: pre-activation residual nets (He et al. 2016, "Identity mappings", figure 4e).

With zero initialisation, branches start at zero by their last convolution: a ReLU is behind every
batch norm, which a gamma of zero would leave without a gradient.

Departures from the paper's appendix: the stem is a bare convolution and pooling, its batch norm
and ReLU being those of the first block (with bottlenecks the same function of the image; with 18
and 34 layers the first shortcut is not activated), and the stride of a bottleneck sits on the
3 x 3 convolution. Both are as in timm's `resnetv2_*`.
"""


def resnetv2(kit, num_classes, depths, bottleneck):
    """Builds a pre-activation ResNet.

    Args:
      kit: `nets.layers.kit.Kit`.
      num_classes: length of the logits.
      depths: residual blocks in each of the four stages.
      bottleneck: three-layer blocks (ResNetV2-50 and deeper) in place of two-layer ones.

    Returns:
      keras.Model from images [B, S, S, 3] to float32 logits [B, num_classes].
    """
    block = bottleneck_block if bottleneck else basic_block
    image = kit.image()
    x = kit.conv(image, 64, 7, "stem_conv", stride=2)
    x = kit.begin_residual_blocks(kit.max_pool(x, "stem_pool"), sum(depths))
    for stage, depth in enumerate(depths):
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            x = block(kit, x, 64 * 2**stage, stride, f"stage{stage + 1}_block{index + 1}")
    x = kit.batch_norm_relu(x, "final")
    x = kit.global_average_pool(x, "pool")
    x = kit.dropout(x, "dropout")
    return kit.net(image, kit.logits(x, num_classes))


def basic_block(kit, x, width, stride, name):
    """BN, ReLU, 3 x 3 convolution, twice."""
    preactivated = kit.batch_norm_relu(x, f"{name}_preact")
    shortcut = projection(kit, x, preactivated, width, stride, name)
    x = kit.conv(preactivated, width, 3, f"{name}_conv1", stride)
    x = kit.batch_norm_relu(x, f"{name}_conv1")
    x = kit.conv(x, width, 3, f"{name}_conv2", last_of_branch=True)
    return kit.add(x, shortcut, f"{name}_add")


def bottleneck_block(kit, x, width, stride, name):
    """BN, ReLU before each of a 1 x 1, a 3 x 3 and a 1 x 1 convolution."""
    preactivated = kit.batch_norm_relu(x, f"{name}_preact")
    shortcut = projection(kit, x, preactivated, 4 * width, stride, name)
    x = kit.conv(preactivated, width, 1, f"{name}_conv1")
    x = kit.batch_norm_relu(x, f"{name}_conv1")
    x = kit.conv(x, width, 3, f"{name}_conv2", stride)
    x = kit.batch_norm_relu(x, f"{name}_conv2")
    x = kit.conv(x, 4 * width, 1, f"{name}_conv3", last_of_branch=True)
    return kit.add(x, shortcut, f"{name}_add")


def projection(kit, x, preactivated, channels, stride, name):
    """The identity where the shape allows it, else a 1 x 1 convolution of the pre-activated x."""
    if stride == 1 and x.shape[-1] == channels:
        return x
    return kit.conv(preactivated, channels, 1, f"{name}_shortcut", stride)
