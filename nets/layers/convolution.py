"""Convolution and pooling with the padding that papers and published weights expect."""

import keras
import tensorflow as tf


class Conv(keras.layers.Layer):
    """2-D convolution, zero-padded alike on all sides.

    TensorFlow's SAME pads a strided convolution unevenly, which published weights do not expect.
    Its explicit padding runs outside oneDNN on a CPU, 80 times slower in bfloat16, so strided
    layers pad in an operation of their own (about 3 % of a step).

    Args:
      filters: output channels.
      size: side of the square kernel.
      stride: step in both directions.
      padding: zeros on each side; None for (size - 1) / 2, which keeps the size at stride 1.
      groups: the input's channels are cut into so many, and each filter sees one of them.
      bias: add one number per filter.
      zeros: the kernel starts at zero.
    """

    def __init__(
        self, filters, size, stride=1, padding=None, groups=1, bias=False, zeros=False, **kwargs
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.size = size
        self.stride = stride
        self.padding = (size - 1) // 2 if padding is None else padding
        self.groups = groups
        self.bias = bias
        self.zeros = zeros

    def build(self, input_shape):
        # He et al. 2015, eq. 10, in its backward form (fan-out), as ResNets are trained.
        initializer = keras.initializers.VarianceScaling(
            2.0 * self.groups, "fan_out", "untruncated_normal"
        )
        self.kernel = self.add_weight(
            shape=(self.size, self.size, input_shape[-1] // self.groups, self.filters),
            name="kernel",
            initializer="zeros" if self.zeros else initializer,
        )
        if self.bias:
            self.offset = self.add_weight(shape=(self.filters,), name="bias", initializer="zeros")

    def compute_output_shape(self, input_shape):
        def out(n):
            return None if n is None else (n + 2 * self.padding - self.size) // self.stride + 1

        batch, height, width, _ = input_shape
        return (batch, out(height), out(width), self.filters)

    def call(self, inputs):
        """Maps [B, H, W, C] to [B, (H + 2 padding - size) // stride + 1, ..., filters]."""
        same = self.stride == 1 and 2 * self.padding == self.size - 1
        if self.padding and not same:
            sides = [self.padding, self.padding]
            inputs = tf.pad(inputs, [[0, 0], sides, sides, [0, 0]])
        kernel = tf.convert_to_tensor(self.kernel)
        outputs = tf.nn.conv2d(inputs, kernel, self.stride, "SAME" if same else "VALID")
        return tf.nn.bias_add(outputs, tf.convert_to_tensor(self.offset)) if self.bias else outputs


class MaxPool(keras.layers.Layer):
    """3 x 3 maximum with stride 2.

    Args:
      padding: 1 for a row of the lowest finite number on all sides; 0 for none, where what does
        not fill a window is left out; "over" for none, where the last window may reach over the
        edge instead.

    Attributes:
      mirrored: pad with the outermost rows and columns in place of the lowest number. They stand in
        every window that reaches the padding, so that outputs and gradients are the same; 2.6 times
        as slow, but the lowest number leaves an 8-bit scale no room for any other.
    """

    mirrored = False

    def __init__(self, padding=1, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def _compute_padding(self, n):
        """Rows or columns added before and after n of them, which may be a tensor."""
        return (0, 1 - n % 2) if self.padding == "over" else (self.padding, self.padding)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        out = [
            None if n is None else (n + sum(self._compute_padding(n)) - 3) // 2 + 1
            for n in (height, width)
        ]
        return (batch, *out, channels)

    def call(self, inputs):
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
