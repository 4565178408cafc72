"""ZFNet (Zeiler & Fergus 2013, "Visualizing and understanding convolutional networks").

Figure 3: AlexNet without groups and with normalization after the pooling. The first convolution
is 7 x 7 with stride 2, the second 5 x 5 with stride 2.

Differences from the paper:

- The paper does not state the padding. The sizes in its figure (110, 55, 26, 13 and 6) require a
  first convolution padded by 1 and pooling windows that may extend over the edge.
- The contrast normalization across feature maps is AlexNet's local response normalization.
- Weights are initialized as in He et al. 2015. Filters are not renormalized.
- `batch_norm` replaces both local response normalizations.
"""

import keras

from nets import registry
from nets.alexnet import dense_layers
from nets.layers.kit import Kit


@registry.net(min_image_size=64, fixed_input_size=True)
def zfnet(kit: Kit, num_classes: int, image_size: int, batch_norm: bool = False) -> keras.Model:
    """Builds a ZFNet.

    Args:
      kit: layers of the net.
      num_classes: length of the logits.
      image_size: S, side of the images, at least 64. It sets the size of the first dense layer.
      batch_norm: build ZFNet-BN.

    Returns:
      Model from images [B, S, S, 3] to float32 logits [B, num_classes].
    """
    normalize = kit.batch_norm if batch_norm else kit.local_response_norm
    image = kit.image(image_size)
    x = kit.conv_relu(image, 96, 7, "conv1", stride=2, padding=1)  # 110 x 110 at 224 px
    x = normalize(kit.max_pool(x, "pool1", padding="over"), "norm1")  # 55 x 55
    x = kit.conv_relu(x, 256, 5, "conv2", stride=2, padding=0)  # 26 x 26
    x = normalize(kit.max_pool(x, "pool2", padding="over"), "norm2")  # 13 x 13
    x = kit.conv_relu(x, 384, 3, "conv3")
    x = kit.conv_relu(x, 384, 3, "conv4")
    x = kit.conv_relu(x, 256, 3, "conv5")
    x = kit.max_pool(x, "pool5", padding="over")  # 6 x 6
    return kit.build_model(image, dense_layers(kit, x, num_classes))
