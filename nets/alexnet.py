"""AlexNet (Krizhevsky et al. 2012, "ImageNet classification with deep convolutional networks").

Section 3.5 and figure 2: five convolutions, overlapping pooling and three dense layers. The
second, fourth and fifth convolution have two groups, because the paper split them over two GPUs.

Differences from the paper:

- The input is 224 px, as the text says. The first convolution pads it by 2, which gives the
  paper's 55 x 55 feature maps.
- Weights are initialized as in He et al. 2015, not from a normal distribution with standard
  deviation 0.01. Biases start at 0.
- `batch_norm` replaces both local response normalizations and changes nothing else.
"""

import keras

from nets import registry
from nets.layers.kit import Kit


@registry.net(min_image_size=64, fixed_input_size=True)
def alexnet(kit: Kit, num_classes: int, image_size: int, batch_norm: bool = False) -> keras.Model:
    """Builds an AlexNet.

    Args:
      kit: layers of the net.
      num_classes: length of the logits.
      image_size: S, side of the images, at least 64. It sets the size of the first dense layer.
      batch_norm: build AlexNet-BN.

    Returns:
      Model from images [B, S, S, 3] to float32 logits [B, num_classes].
    """
    normalize = kit.batch_norm if batch_norm else kit.local_response_norm
    image = kit.image(image_size)
    x = kit.conv_relu(image, 96, 11, "conv1", stride=4, padding=2)  # 55 x 55 at 224 px
    x = kit.max_pool(normalize(x, "norm1"), "pool1", padding=0)  # 27 x 27
    x = kit.conv_relu(x, 256, 5, "conv2", groups=2)
    x = kit.max_pool(normalize(x, "norm2"), "pool2", padding=0)  # 13 x 13
    x = kit.conv_relu(x, 384, 3, "conv3")
    x = kit.conv_relu(x, 384, 3, "conv4", groups=2)
    x = kit.conv_relu(x, 256, 3, "conv5", groups=2)
    x = kit.max_pool(x, "pool5", padding=0)  # 6 x 6
    return kit.build_model(image, dense_layers(kit, x, num_classes))


def dense_layers(kit: Kit, x: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
    """Applies two hidden layers of 4096 units, each with dropout, and the classifier.

    Sections 3.5 and 4.2 of the paper. Returns the logits [B, num_classes].
    """
    x = kit.flatten(x, "flatten")
    for name in ("fc6", "fc7"):
        x = kit.relu(kit.dense(x, 4096, name), f"{name}_relu")
        x = kit.dropout(x, f"{name}_dropout", default=0.5)
    return kit.logits(x, num_classes)
