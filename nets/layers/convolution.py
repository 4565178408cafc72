"""Convolution and pooling with the symmetric padding that papers and published weights expect."""

from typing import Literal

import keras
import tensorflow as tf


class Conv(keras.layers.Layer):
    """2-D convolution with the same zero padding on all sides.

    TensorFlow's "SAME" pads a strided convolution unevenly, which does not fit published weights.
    Its explicit padding bypasses oneDNN on a CPU and is 80 times slower in bfloat16. So strided
    layers pad in a separate operation, which takes about 3 % of a step.

    Args:
      filters: output channels.
      size: side of the square kernel.
      stride: step in both directions.
      padding: zeros on each side. None means (size - 1) / 2, which keeps the size at stride 1.
      groups: number of groups of input channels. Each filter sees one group.
      bias: add one number per filter.
      zero_init: initialize the kernel with zeros.
    """

    def __init__(
        self,
        filters: int,
        size: int,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
        zero_init: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.size = size
        self.stride = stride
        self.padding = (size - 1) // 2 if padding is None else padding
        self.groups = groups
        self.bias = bias
        self.zero_init = zero_init

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        # He et al. 2015, eq. 10, in its backward form (fan-out), as ResNets are trained.
        initializer = keras.initializers.VarianceScaling(
            2.0 * self.groups, "fan_out", "untruncated_normal"
        )
        self.kernel = self.add_weight(
            shape=(self.size, self.size, input_shape[-1] // self.groups, self.filters),
            name="kernel",
            initializer="zeros" if self.zero_init else initializer,
        )
        if self.bias:
            self.offset = self.add_weight(shape=(self.filters,), name="bias", initializer="zeros")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        def output_side(n: int | None) -> int | None:
            return None if n is None else (n + 2 * self.padding - self.size) // self.stride + 1

        batch, height, width, _ = input_shape
        return (batch, output_side(height), output_side(width), self.filters)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps [B, H, W, C] to [B, (H + 2 padding - size) // stride + 1, ..., filters]."""
        same = self.stride == 1 and 2 * self.padding == self.size - 1
        if self.padding and not same:
            sides = [self.padding, self.padding]
            inputs = tf.pad(inputs, [[0, 0], sides, sides, [0, 0]])
        kernel = tf.convert_to_tensor(self.kernel)
        outputs = tf.nn.conv2d(inputs, kernel, self.stride, "SAME" if same else "VALID")
        return tf.nn.bias_add(outputs, tf.convert_to_tensor(self.offset)) if self.bias else outputs


class MaxPool(keras.layers.Layer):
    """3 x 3 max pooling with stride 2.

    Args:
      padding: 1 pads all sides with the lowest finite number. 0 does not pad and drops rows and
        columns that do not fill a window. "over" does not drop them: the last window extends over
        the edge.

    Attributes:
      symmetric_padding: pad with the outermost rows and columns, not with the lowest number. Each
        window that reaches the padding contains them already, so outputs and gradients are the
        same. This is 2.6 times as slow, but 8-bit quantization needs it: the lowest number would
        take up the whole scale.
    """

    symmetric_padding = False

    def __init__(self, padding: int | Literal["over"] = 1, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def _compute_padding(self, n: int | tf.Tensor) -> tuple[int | tf.Tensor, int | tf.Tensor]:
        """Returns the number of rows or columns to add before and after n of them."""
        return (0, 1 - n % 2) if self.padding == "over" else (self.padding, self.padding)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        sides = [
            None if n is None else (n + sum(self._compute_padding(n)) - 3) // 2 + 1
            for n in (height, width)
        ]
        return (batch, *sides, channels)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps [B, H, W, C] to about [B, H / 2, W / 2, C]."""
        if self.padding != 0:
            shape = tf.shape(inputs)
            sides = [
                (0, 0),
                self._compute_padding(shape[1]),
                self._compute_padding(shape[2]),
                (0, 0),
            ]
            mode = "SYMMETRIC" if self.symmetric_padding else "CONSTANT"
            inputs = tf.pad(inputs, sides, mode, constant_values=inputs.dtype.min)
        return tf.nn.max_pool2d(inputs, 3, 2, "VALID")
