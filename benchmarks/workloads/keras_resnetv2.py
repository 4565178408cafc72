"""The bottleneck ResNetV2 of `nets.resnetv2`, built with `keras.layers` only.

It computes the same function of the same weights as `nets.resnetv2`, with the same layer names (a
test checks this). It is as fast as Keras's layers allow and has no superfluous operation. It is
what a careful user of Keras would write, so it is the baseline for our own layers.
"""

from collections.abc import Sequence

import keras
from keras import layers


def build_model(
    num_classes: int,
    depths: Sequence[int] = (3, 4, 6, 3),
    dtype: str = "float32",
    image_size: int | None = None,
) -> keras.Model:
    """Builds the network; the default depths are those of ResNetV2-50.

    Args:
      num_classes: length of the logits.
      depths: residual blocks in each of the four stages.
      dtype: "float32", or "bfloat16" or "float16" for the mixed policy of that name.
      image_size: S, in pixels; None for any.

    Returns:
      A model from normalized images [B, S, S, 3] to float32 logits [B, num_classes].
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype if dtype == "float32" else f"mixed_{dtype}")
    try:
        return _build(num_classes, depths, image_size)
    finally:
        keras.config.set_dtype_policy(before)


def _build(num_classes: int, depths: Sequence[int], image_size: int | None) -> keras.Model:
    image = keras.Input((image_size, image_size, 3), name="image", dtype="float32")
    x = _conv(image, 64, 7, "stem_conv", stride=2)
    # Keras's layers pad with zeros only, which would win over negative inputs in max pooling.
    x = keras.ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=float("-inf"))
    x = layers.MaxPooling2D(3, 2, "valid", name="stem_pool")(x)
    for stage, depth in enumerate(depths):
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            x = _block(x, 64 * 2**stage, stride, f"stage{stage + 1}_block{index + 1}")
    x = _batch_norm_relu(x, "final")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(
        num_classes,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        name="logits",
        dtype="float32",
    )
    return keras.Model(image, logits(x))


def _block(x: keras.KerasTensor, width: int, stride: int, name: str) -> keras.KerasTensor:
    """Applies 1 x 1, 3 x 3 and 1 x 1 convolutions, each after BN and ReLU, and a shortcut."""
    preactivated = _batch_norm_relu(x, f"{name}_preact")
    shortcut = x
    if stride > 1 or x.shape[-1] != 4 * width:
        shortcut = _conv(preactivated, 4 * width, 1, f"{name}_shortcut", stride)
    x = _conv(preactivated, width, 1, f"{name}_conv1")
    x = _batch_norm_relu(x, f"{name}_conv1")
    x = _conv(x, width, 3, f"{name}_conv2", stride)
    x = _batch_norm_relu(x, f"{name}_conv2")
    x = _conv(x, 4 * width, 1, f"{name}_conv3")
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _conv(
    x: keras.KerasTensor, filters: int, size: int, name: str, stride: int = 1
) -> keras.KerasTensor:
    """Applies a convolution without bias; a strided one gets symmetric padding, unlike SAME."""
    if stride > 1 and size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    return layers.Conv2D(
        filters,
        size,
        stride,
        "valid" if stride > 1 else "same",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=name,
    )(x)


def _batch_norm_relu(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
