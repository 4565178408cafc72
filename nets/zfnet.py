"""ZFNet (Zeiler & Fergus 2013, "Visualizing and understanding convolutional networks").

Figure 3: AlexNet with a first layer of 7 x 7 and stride 2 and a second of 5 x 5 and stride 2,
without its division in two, and with normalisation behind the pooling.

Departures from the paper: it leaves padding open, and the 110, 55, 26, 13 and 6 of the figure
need a first convolution padded by 1 and pooling windows that may reach over the edge; the contrast
normalisation across maps is AlexNet's; weights start as He et al. 2015 have them; there is no
renormalisation of filters. `batch_norm` puts batch norm in the place of both normalisations.
"""

from nets.alexnet import dense_layers


def zfnet(kit, num_classes, image_size, batch_norm=False):
    """Builds a ZFNet.

    Args:
      kit: `nets.layers.kit.Kit`.
      num_classes: length of the logits.
      image_size: S, side of the images, at least 64; the first dense layer depends on it.
      batch_norm: ZFNet-BN.

    Returns:
      keras.Model from images [B, S, S, 3] to float32 logits [B, num_classes].
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
    return kit.net(image, dense_layers(kit, x, num_classes))
