"""The AlexNet of torchvision (Krizhevsky 2014, "One weird trick", footnote 1): one tower.

It is the only AlexNet with published weights. It has fewer filters than the net of 2012, no groups
and no local response normalization.

Differences from torchvision:

- torchvision averages the last feature map to 6 x 6. At 224 px it has that size already. Here it
  keeps its size at other resolutions.
- Weights are initialized as in He et al. 2015. Biases start at 0.
"""

import keras

from nets import registry
from nets.layers.kit import Kit


@registry.net(min_image_size=64, fixed_input_size=True)
def alexnet_owt(kit: Kit, num_classes: int, image_size: int) -> keras.Model:
    """Builds the AlexNet of one tower.

    Args:
      kit: layers of the net.
      num_classes: length of the logits.
      image_size: S, side of the images, at least 64. It sets the size of the first dense layer.

    Returns:
      Model from images [B, S, S, 3] to float32 logits [B, num_classes].
    """
    image = kit.image(image_size)
    x = kit.conv_relu(image, 64, 11, "conv1", stride=4, padding=2)  # 55 x 55 at 224 px
    x = kit.conv_relu(kit.max_pool(x, "pool1", padding=0), 192, 5, "conv2")  # 27 x 27
    x = kit.conv_relu(kit.max_pool(x, "pool2", padding=0), 384, 3, "conv3")  # 13 x 13
    x = kit.conv_relu(x, 256, 3, "conv4")
    x = kit.conv_relu(x, 256, 3, "conv5")
    x = kit.flatten(kit.max_pool(x, "pool5", padding=0), "flatten")  # 6 x 6
    for name in ("fc6", "fc7"):
        x = kit.dropout(x, f"{name}_dropout", default=0.5)
        x = kit.relu(kit.dense(x, 4096, name), f"{name}_relu")
    return kit.build_model(image, kit.logits(x, num_classes))
