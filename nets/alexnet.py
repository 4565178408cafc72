"""AlexNet (Krizhevsky et al. 2012, "ImageNet classification with deep convolutional networks").

Section 3.5 and figure 2: five convolutions, of which the second, fourth and fifth see only their
half of the channels (the two GPUs of the paper), overlapping pooling, three dense layers.

Departures from the paper: the input is 224 px as the text says and the first convolution pads it
by 2, which yields the paper's 55 x 55 maps; weights start as He et al. 2015 have them, not from a
normal distribution of deviation 0.01, and biases at 0. `batch_norm` puts batch norm in the place
of both response normalisations and leaves all else alone.
"""


def alexnet(kit, num_classes, image_size, batch_norm=False):
    """Builds an AlexNet.

    Args:
      kit: `nets.layers.kit.Kit`.
      num_classes: length of the logits.
      image_size: S, side of the images, at least 64; the first dense layer depends on it.
      batch_norm: AlexNet-BN.

    Returns:
      keras.Model from images [B, S, S, 3] to float32 logits [B, num_classes].
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
    return kit.net(image, dense_layers(kit, x, num_classes))


def dense_layers(kit, x, num_classes):
    """Two hidden layers of 4096 with dropout in both, and the classifier (section 4.2)."""
    x = kit.flatten(x, "flatten")
    for name in ("fc6", "fc7"):
        x = kit.relu(kit.dense(x, 4096, name), f"{name}_relu")
        x = kit.dropout(x, f"{name}_dropout", default=0.5)
    return kit.logits(x, num_classes)
