"""The layers that architectures are built from.

`Kit` is the only place that sets the compute dtype, initializers, batch-norm constants and kernels.
An architecture only connects layers, as its paper does.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import keras
import tensorflow as tf

from input_pipeline.errors import UsageError
from nets.layers.batch_norm import BatchNorm
from nets.layers.convolution import Conv, MaxPool
from nets.layers.random_layers import Dropout, StochasticDepth, make_sample_variable
from nets.layers.recompute import RecomputingModel
from nets.layers.response_norm import LocalResponseNorm

# A residual block: (kit, x, width, stride, name) to its output, which `Kit.add` makes. The first
# block of a stage has twice the width of the stage before, and a stride of 2.
ResidualBlock = Callable[["Kit", keras.KerasTensor, int, int, str], keras.KerasTensor]


class Relu(keras.layers.Layer):
    """Computes max(x, 0)."""

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(inputs)


class Kit:
    """Makes the layers of one net.

    Most methods take a tensor and a layer name, apply a new layer and return its output.

    Args:
      compute_dtype: "float32", "float16" or "bfloat16". Variables are always float32.
      synchronized: compute batch-norm moments over all replicas.
      zero_init_residual: initialize layers that are `last_of_branch` with zeros, so that residual
        blocks start as the identity (Goyal et al. 2017, section 5.1). This sets the gamma of a
        batch norm or the kernel of a convolution.
      momentum, epsilon: of batch norm.
      dropout: rate in [0, 1), or None for the default of the net.
      stochastic_depth: drop rate of the last residual block.
      recompute: store only the inputs of residual blocks, see `RecomputingModel`.
      random_weights: False starts the kernels of these layers at zero, for a checkpoint that
        replaces them. To draw random ones takes as long as to build the rest of a net.
    """

    def __init__(
        self,
        compute_dtype: str = "float32",
        synchronized: bool = False,
        zero_init_residual: bool = False,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        dropout: float | None = None,
        stochastic_depth: float = 0.0,
        recompute: bool = False,
        random_weights: bool = True,
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
        self._random_weights = random_weights
        self._samples = None
        self._num_blocks = 0
        self._block_boundaries = []

    @property
    def dtype(self) -> keras.DTypePolicy:
        """The argument `dtype` of layers that Kit does not make."""
        return self._dtype

    def image(self, size: int | None = None) -> keras.KerasTensor:
        """Makes the input: normalized images [B, H, W, 3], of a fixed size if it is given."""
        return keras.Input((size, size, 3), name="image", dtype="float32")

    def build_model(self, image: keras.KerasTensor, logits: keras.KerasTensor) -> keras.Model:
        """Builds the net from its input and its output.

        Raises:
          UsageError: the net has another number of residual blocks than it said.
        """
        num_added = max(0, len(self._block_boundaries) - 1)
        if num_added != self._num_blocks:
            raise UsageError(
                f"the net has {self._num_blocks} residual blocks, but kit.add was called for"
                f" {num_added}; end each block with kit.add"
            )
        if self._recompute and self._block_boundaries:
            return RecomputingModel(image, logits, self._block_boundaries)
        return keras.Model(image, logits)

    def conv(
        self,
        x: keras.KerasTensor,
        filters: int,
        size: int,
        name: str,
        stride: int = 1,
        last_of_branch: bool = False,
    ) -> keras.KerasTensor:
        """Applies a convolution without bias, padded to keep the size at stride 1."""
        zero_init = not self._random_weights or (last_of_branch and self._zero_init_residual)
        return Conv(filters, size, stride, zero_init=zero_init, name=name, dtype=self.dtype)(x)

    def conv_relu(
        self,
        x: keras.KerasTensor,
        filters: int,
        size: int,
        name: str,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
    ) -> keras.KerasTensor:
        """Applies a convolution with bias and ReLU, as in nets without batch norm."""
        conv = Conv(
            filters,
            size,
            stride,
            padding,
            groups,
            bias=True,
            zero_init=not self._random_weights,
            name=name,
            dtype=self.dtype,
        )
        return self.relu(conv(x), f"{name}_relu")

    def local_response_norm(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Applies AlexNet's normalization over neighboring channels."""
        return LocalResponseNorm(name=name, dtype=self.dtype)(x)

    def batch_norm(
        self, x: keras.KerasTensor, name: str, last_of_branch: bool = False
    ) -> keras.KerasTensor:
        """Applies batch norm over all axes except the channels."""
        zero_init = last_of_branch and self._zero_init_residual
        return BatchNorm(
            self._momentum,
            self._epsilon,
            gamma_initializer="zeros" if zero_init else "ones",
            synchronized=self._synchronized,
            name=name,
            dtype=self.dtype,
        )(x)

    def relu(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Applies max(x, 0)."""
        return Relu(name=name, dtype=self.dtype)(x)

    def batch_norm_relu(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Applies batch norm, named NAME_bn, and ReLU, named NAME_relu."""
        return self.relu(self.batch_norm(x, f"{name}_bn"), f"{name}_relu")

    def max_pool(
        self, x: keras.KerasTensor, name: str, padding: int | Literal["over"] = 1
    ) -> keras.KerasTensor:
        """Applies 3 x 3 max pooling with stride 2. See `MaxPool` for `padding`."""
        return MaxPool(padding, name=name, dtype=self.dtype)(x)

    def average_pool(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Averages 2 x 2 pixels with stride 2; at odd sides the last pixels have no partner."""
        return keras.layers.AveragePooling2D(2, padding="same", name=name, dtype=self.dtype)(x)

    def residual_stages(
        self, x: keras.KerasTensor, depths: Sequence[int], block: ResidualBlock
    ) -> keras.KerasTensor:
        """Applies the residual blocks of a net.

        Args:
          x: output of the stem.
          depths: blocks in each stage. Stages have 64, 128, 256 ... channels in their 3 x 3
            convolutions, and all but the first halve height and width.
          block: a residual block.
        """
        x = self.begin_residual_blocks(x, sum(depths))
        for stage, depth in enumerate(depths):
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                x = block(self, x, 64 * 2**stage, stride, f"stage{stage + 1}_block{index + 1}")
        return x

    def begin_residual_blocks(self, x: keras.KerasTensor, num_blocks: int) -> keras.KerasTensor:
        """Records that x is the input of the first of `num_blocks` residual blocks; returns x."""
        self._num_blocks = num_blocks
        self._block_boundaries = [x]
        return x

    def add(
        self, branch: keras.KerasTensor, shortcut: keras.KerasTensor, name: str
    ) -> keras.KerasTensor:
        """Ends a residual block: adds the branch, with stochastic depth, to the shortcut.

        Block l of L drops its branch with probability `stochastic_depth` * l / L (Huang et al.
        2016, eq. 4).

        Raises:
          UsageError: `begin_residual_blocks` was not called.
        """
        if not self._num_blocks:
            raise UsageError(
                f"kit.add(..., {name!r}): call kit.begin_residual_blocks(x, NUMBER) before the"
                " first residual block"
            )
        rate = self._stochastic_depth * len(self._block_boundaries) / self._num_blocks
        if rate:
            layer = StochasticDepth(
                rate, self._get_sample_variable(), name=f"{name}_drop", dtype=self.dtype
            )
            branch = layer(branch)
        x = keras.layers.Add(name=name, dtype=self.dtype)([branch, shortcut])
        self._block_boundaries.append(x)
        return x

    def dropout(self, x: keras.KerasTensor, name: str, default: float = 0.0) -> keras.KerasTensor:
        """Applies dropout at the rate set by the user, or else at the net's default rate."""
        rate = default if self._dropout is None else self._dropout
        if not rate:
            return x
        return Dropout(rate, self._get_sample_variable(), name=name, dtype=self.dtype)(x)

    def _initializer(
        self, initializer: str | keras.initializers.Initializer
    ) -> str | keras.initializers.Initializer:
        return initializer if self._random_weights else "zeros"

    def _get_sample_variable(self) -> tf.Variable:
        if self._samples is None:
            self._samples = make_sample_variable()
        return self._samples

    def flatten(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Reshapes [B, H, W, C] to [B, H * W * C]."""
        return keras.layers.Flatten(name=name, dtype=self.dtype)(x)

    def dense(self, x: keras.KerasTensor, units: int, name: str) -> keras.KerasTensor:
        """Applies a hidden dense layer with bias in the compute dtype. See also `logits`."""
        return keras.layers.Dense(
            units, kernel_initializer=self._initializer("he_normal"), name=name, dtype=self.dtype
        )(x)

    def global_average_pool(self, x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        """Averages over height and width: [B, H, W, C] to [B, C]."""
        return keras.layers.GlobalAveragePooling2D(name=name, dtype=self.dtype)(x)

    def squeeze_excite(self, x: keras.KerasTensor, name: str, ratio: int = 16) -> keras.KerasTensor:
        """Scales each channel by a gate computed from all channels (Hu et al. 2018, section 3)."""
        channels = x.shape[-1]
        gate = self.global_average_pool(x, f"{name}_squeeze")  # [B, C]
        for suffix, units, activation in (
            ("reduce", channels // ratio, "relu"),
            ("expand", channels, "sigmoid"),
        ):
            gate = keras.layers.Dense(
                units,
                activation=activation,
                kernel_initializer=self._initializer("he_normal"),
                name=f"{name}_{suffix}",
                dtype=self.dtype,
            )(gate)
        gate = keras.layers.Reshape((1, 1, channels), name=f"{name}_gate", dtype=self.dtype)(gate)
        return keras.layers.Multiply(name=f"{name}_scale", dtype=self.dtype)([x, gate])

    def logits(self, x: keras.KerasTensor, num_classes: int) -> keras.KerasTensor:
        """Applies the classifier in float32.

        Half-precision logits reduce accuracy and overflow the softmax.
        """
        return keras.layers.Dense(
            num_classes,
            kernel_initializer=self._initializer(keras.initializers.RandomNormal(stddev=0.01)),
            name="logits",
            dtype="float32",
        )(x)
