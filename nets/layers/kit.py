"""The kit that architectures are built from.

The one place that knows the compute dtype, the initialisers, the batch-norm constants and the
kernels behind a layer; an architecture only says what is connected to what, as its paper does.
"""

import keras
import tensorflow as tf

from nets.layers.batch_norm import BatchNorm
from nets.layers.convolution import Conv, MaxPool
from nets.layers.random_layers import Dropout, StochasticDepth, make_sample_variable
from nets.layers.recompute import RecomputingModel
from nets.layers.response_norm import LocalResponseNorm


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
      zero_init_residual: a layer that is `last_of_branch` starts at zero, batch norm by its gamma
        (Goyal et al. 2017, section 5.1) and a convolution by its kernel, so that a residual block
        starts as the identity.
      momentum, epsilon: of batch norm.
      dropout: rate in [0, 1), or None for the net's own.
      stochastic_depth: rate of the last residual block.
      recompute: store only the inputs of residual blocks, see `RecomputingNet`.
    """

    def __init__(
        self,
        compute_dtype="float32",
        synchronized=False,
        zero_init_residual=False,
        *,
        momentum=0.9,
        epsilon=1e-5,
        dropout=None,
        stochastic_depth=0.0,
        recompute=False,
    ):
        half = compute_dtype != "float32"
        self._dtype = keras.DTypePolicy(f"mixed_{compute_dtype}" if half else "float32")
        self._synchronized = synchronized
        self._zero_init_residual = zero_init_residual
        self._momentum = momentum
        self._epsilon = epsilon
        self._dropout = dropout
        self._stochastic_depth = stochastic_depth
        self._recompute = recompute
        self._samples = None
        self._blocks = 0
        self._block_boundaries = []

    def image(self, size=None):
        """The input: normalised images [B, H, W, 3]; of one size only where it is given."""
        return keras.Input((size, size, 3), name="image", dtype="float32")

    def net(self, image, logits):
        """The finished net from its input and its output."""
        if self._recompute and self._block_boundaries:
            return RecomputingModel(image, logits, self._block_boundaries)
        return keras.Model(image, logits)

    def conv(self, x, filters, size, name, stride=1, last_of_branch=False):
        """A convolution without bias, padded to keep the size at stride 1."""
        zeros = last_of_branch and self._zero_init_residual
        return Conv(filters, size, stride, zeros=zeros, name=name, dtype=self._dtype)(x)

    def conv_relu(self, x, filters, size, name, stride=1, padding=None, groups=1):
        """A convolution with bias, then ReLU: what nets were made of before batch norm."""
        layer = Conv(filters, size, stride, padding, groups, True, name=name, dtype=self._dtype)
        return self.relu(layer(x), f"{name}_relu")

    def local_response_norm(self, x, name):
        """AlexNet's normalisation over neighbouring channels."""
        return LocalResponseNorm(name=name, dtype=self._dtype)(x)

    def batch_norm(self, x, name, last_of_branch=False):
        """Batch norm over all axes but the channels."""
        zeros = last_of_branch and self._zero_init_residual
        return BatchNorm(
            self._momentum,
            self._epsilon,
            gamma_initializer="zeros" if zeros else "ones",
            synchronized=self._synchronized,
            name=name,
            dtype=self._dtype,
        )(x)

    def relu(self, x, name):
        """max(x, 0)."""
        return Relu(name=name, dtype=self._dtype)(x)

    def batch_norm_relu(self, x, name):
        """Batch norm, called NAME_bn, then ReLU."""
        return self.relu(self.batch_norm(x, f"{name}_bn"), f"{name}_relu")

    def max_pool(self, x, name, padding=1):
        """Maximum of 3 x 3 with stride 2; `padding` as of `MaxPool`."""
        return MaxPool(padding, name=name, dtype=self._dtype)(x)

    def begin_residual_blocks(self, x, blocks):
        """Says that x is the input of the first of so many residual blocks; returns it."""
        self._blocks = blocks
        self._block_boundaries = [x]
        return x

    def add(self, branch, shortcut, name):
        """The end of a residual block.

        Of L blocks, stochastic depth drops the branch of the l-th with l / L of its rate (Huang
        et al. 2016, eq. 4).
        """
        rate = self._stochastic_depth * len(self._block_boundaries) / max(1, self._blocks)
        if rate:
            layer = StochasticDepth(
                rate, self._get_sample_variable(), name=f"{name}_drop", dtype=self._dtype
            )
            branch = layer(branch)
        x = keras.layers.Add(name=name, dtype=self._dtype)([branch, shortcut])
        self._block_boundaries.append(x)
        return x

    def dropout(self, x, name, default=0.0):
        """Dropout at the rate that the user set, or else at the net's own."""
        rate = default if self._dropout is None else self._dropout
        if not rate:
            return x
        return Dropout(rate, self._get_sample_variable(), name=name, dtype=self._dtype)(x)

    def _get_sample_variable(self):
        if self._samples is None:
            self._samples = make_sample_variable()
        return self._samples

    def flatten(self, x, name):
        """[B, H, W, C] as [B, H * W * C]."""
        return keras.layers.Flatten(name=name, dtype=self._dtype)(x)

    def dense(self, x, units, name):
        """A dense layer with bias, which computes as the net does; see `logits` for the last."""
        return keras.layers.Dense(
            units, kernel_initializer="he_normal", name=name, dtype=self._dtype
        )(x)

    def global_average_pool(self, x, name):
        """Mean over height and width: [B, H, W, C] to [B, C]."""
        return keras.layers.GlobalAveragePooling2D(name=name, dtype=self._dtype)(x)

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

    def logits(self, x, num_classes):
        """The classifier, in float32: half-precision logits cost accuracy and overflow softmax."""
        return keras.layers.Dense(
            num_classes,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            name="logits",
            dtype="float32",
        )(x)
