"""ResNet (He et al. 2015, "Deep residual learning", section 4.1) and SE-ResNet (Hu et al. 2018).

Departures from the paper: the stride of a bottleneck sits on its 3 x 3 convolution, not on the
first 1 x 1 (as in Facebook's and torchvision's ResNet, about half a point better), and every
projection shortcut is option B. Squeeze-and-excitation comes after the last batch norm of a
branch, before the addition (the paper's figure 3).
"""


def resnet(kit, num_classes, depths, bottleneck, squeeze_excite=False):
    """Builds a ResNet.

    Args:
      kit: `nets.layers.kit.Kit`.
      num_classes: length of the logits.
      depths: residual blocks in each of the four stages (table 1 of the paper).
      bottleneck: three-layer blocks (ResNet-50 and deeper) in place of two-layer ones.
      squeeze_excite: SE-ResNet.

    Returns:
      keras.Model from images [B, S, S, 3] to float32 logits [B, num_classes].
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
    return kit.net(image, kit.logits(x, num_classes))


def basic_block(kit, x, width, stride, squeeze_excite, name):
    """Two 3 x 3 convolutions (figure 5, left)."""
    shortcut = projection(kit, x, width, stride, name)
    x = kit.conv(x, width, 3, f"{name}_conv1", stride)
    x = kit.batch_norm_relu(x, f"{name}_conv1")
    x = kit.conv(x, width, 3, f"{name}_conv2")
    return residual_add(kit, x, shortcut, squeeze_excite, f"{name}_conv2", name)


def bottleneck_block(kit, x, width, stride, squeeze_excite, name):
    """1 x 1, 3 x 3 and 1 x 1 convolutions (figure 5, right)."""
    shortcut = projection(kit, x, 4 * width, stride, name)
    x = kit.conv(x, width, 1, f"{name}_conv1")
    x = kit.batch_norm_relu(x, f"{name}_conv1")
    x = kit.conv(x, width, 3, f"{name}_conv2", stride)
    x = kit.batch_norm_relu(x, f"{name}_conv2")
    x = kit.conv(x, 4 * width, 1, f"{name}_conv3")
    return residual_add(kit, x, shortcut, squeeze_excite, f"{name}_conv3", name)


def projection(kit, x, channels, stride, name):
    """The identity where the shape allows it, else a 1 x 1 convolution (option B)."""
    if stride == 1 and x.shape[-1] == channels:
        return x
    x = kit.conv(x, channels, 1, f"{name}_shortcut", stride)
    return kit.batch_norm(x, f"{name}_shortcut_bn")


def residual_add(kit, x, shortcut, squeeze_excite, last, name):
    """Last batch norm, the optional gate, addition, ReLU."""
    x = kit.batch_norm(x, f"{last}_bn", last_of_branch=True)
    if squeeze_excite:
        x = kit.squeeze_excite(x, f"{name}_se")
    return kit.relu(kit.add(x, shortcut, f"{name}_add"), f"{name}_relu")
