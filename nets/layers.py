"""The kit that architectures are built from.

The one place that knows the compute dtype, the initialisers, the batch-norm constants and the
kernels behind a layer; an architecture only says what is connected to what, as its paper does.
"""

import keras
import tensorflow as tf

from nets.batch_norm import BatchNorm


class Conv(keras.layers.Layer):
    """2-D convolution without bias, zero-padded alike on all sides.

    TensorFlow's SAME pads a strided convolution unevenly, which published weights do not expect.
    Its explicit padding runs outside oneDNN on a CPU, 80 times slower in bfloat16, so strided
    layers pad in an operation of their own (about 3 % of a step).

    Args:
      filters: output channels.
      size: side of the square kernel.
      stride: step in both directions.
    """

    def __init__(self, filters, size, stride=1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.size = size
        self.stride = stride

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(self.size, self.size, input_shape[-1], self.filters),
            name="kernel",
            # He et al. 2015, eq. 10, in its backward form (fan-out), as ResNets are trained.
            initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        )

    def compute_output_shape(self, input_shape):
        def out(n):
            return None if n is None else (n - 1) // self.stride + 1

        batch, height, width, _ = input_shape
        return (batch, out(height), out(width), self.filters)

    def call(self, inputs):
        """Maps [B, H, W, C] to [B, ceil(H / stride), ceil(W / stride), filters] (odd sizes)."""
        pad = (self.size - 1) // 2
        strided = self.stride > 1 and pad > 0
        if strided:
            inputs = tf.pad(inputs, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        kernel = tf.convert_to_tensor(self.kernel)
        return tf.nn.conv2d(inputs, kernel, self.stride, "VALID" if strided else "SAME")


class MaxPool(keras.layers.Layer):
    """3 x 3 maximum with stride 2, padded by one on all sides with the lowest finite number.

    Attributes:
      mirrored: pad with the outermost rows and columns instead, which stand in every window that
        reaches the padding, so that outputs and gradients are the same. 2.6 times as slow; but
        the lowest number leaves an 8-bit scale no room for any other.
    """

    mirrored = False

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        half = [None if n is None else (n - 1) // 2 + 1 for n in (height, width)]
        return (batch, *half, channels)

    def call(self, inputs):
        """Maps [B, H, W, C] to [B, ceil(H / 2), ceil(W / 2), C]."""
        sides = [[0, 0], [1, 1], [1, 1], [0, 0]]
        if self.mirrored:
            padded = tf.pad(inputs, sides, "SYMMETRIC")
        else:
            padded = tf.pad(inputs, sides, constant_values=inputs.dtype.min)
        return tf.nn.max_pool2d(padded, 3, 2, "VALID")


class Relu(keras.layers.Layer):
    """max(x, 0)."""

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs):
        return tf.nn.relu(inputs)


class Kit:
    """Layers of one net; every method takes a tensor and a layer name and returns a tensor.

    Args:
      compute_dtype: "float32", "float16" or "bfloat16"; variables are float32 in any case.
      synchronized: batch norm over all replicas.
      zero_init_residual: `batch_norm(..., last_of_branch=True)` starts with gamma at zero
        (Goyal et al. 2017, section 5.1), so that a residual block starts as the identity.
    """

    def __init__(self, compute_dtype="float32", synchronized=False, zero_init_residual=False):
        half = compute_dtype != "float32"
        self._dtype = keras.DTypePolicy(f"mixed_{compute_dtype}" if half else "float32")
        self._synchronized = synchronized
        self._zero_init_residual = zero_init_residual

    def image(self):
        """The input: normalised images [B, H, W, 3]."""
        return keras.Input((None, None, 3), name="image", dtype="float32")

    def conv(self, x, filters, size, name, stride=1):
        return Conv(filters, size, stride, name=name, dtype=self._dtype)(x)

    def batch_norm(self, x, name, last_of_branch=False):
        zeros = last_of_branch and self._zero_init_residual
        return BatchNorm(
            gamma_initializer="zeros" if zeros else "ones",
            synchronized=self._synchronized,
            name=name,
            dtype=self._dtype,
        )(x)

    def relu(self, x, name):
        return Relu(name=name, dtype=self._dtype)(x)

    def batch_norm_relu(self, x, name):
        return self.relu(self.batch_norm(x, f"{name}_bn"), f"{name}_relu")

    def max_pool(self, x, name):
        return MaxPool(name=name, dtype=self._dtype)(x)

    def add(self, branch, shortcut, name):
        return keras.layers.Add(name=name, dtype=self._dtype)([branch, shortcut])

    def global_average_pool(self, x, name, keepdims=False):
        """Mean over height and width: [B, H, W, C] to [B, C], or [B, 1, 1, C]."""
        layer = keras.layers.GlobalAveragePooling2D
        return layer(keepdims=keepdims, name=name, dtype=self._dtype)(x)

    def squeeze_excite(self, x, name, ratio=16):
        """Scales each channel by a gate seen from all of them (Hu et al. 2018, section 3)."""
        channels = x.shape[-1]
        gate = self.global_average_pool(x, f"{name}_squeeze")  # [B, C]
        for suffix, units, activation in (
            ("reduce", channels // ratio, "relu"),
            ("expand", channels, "sigmoid"),
        ):
            gate = keras.layers.Dense(
                units,
                activation=activation,
                kernel_initializer="he_normal",
                name=f"{name}_{suffix}",
                dtype=self._dtype,
            )(gate)
        gate = keras.layers.Reshape((1, 1, channels), name=f"{name}_gate", dtype=self._dtype)(gate)
        return keras.layers.Multiply(name=f"{name}_scale", dtype=self._dtype)([x, gate])

    def logits(self, x, num_classes, name="logits"):
        """The classifier, in float32: half-precision logits cost accuracy and overflow softmax."""
        return keras.layers.Dense(
            num_classes,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name=name,
            dtype="float32",
        )(x)
