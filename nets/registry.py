"""Registry of the architectures: builds a net from its name and configuration."""

import dataclasses
import functools
import importlib
import typing
from typing import Annotated, TypedDict, Unpack

if typing.TYPE_CHECKING:
    import keras

# Residual blocks per stage: table 1 of He et al. 2015; 200 from section 5 of He et al. 2016.
_DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


class BuilderOptions(TypedDict, total=False):
    """Keyword arguments of the builder functions. Each function takes some of them.

    Attributes:
      depths: residual blocks per stage.
      bottleneck: residual blocks have three convolutions, not two.
      squeeze_excite: residual blocks scale their channels.
      batch_norm: batch norm after each convolution of AlexNet and ZFNet.
      image_size: side of all images in pixels, for nets with a fixed input size.
    """

    depths: tuple[int, ...]
    bottleneck: bool
    squeeze_excite: bool
    batch_norm: bool
    image_size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A registered net: the function that builds it and the arguments of that function.

    Attributes:
      family: name of the module in this package, and of the builder function in it.
      options: keyword arguments of the builder function.
      min_image_size: side in pixels of the smallest image that the net accepts.
      fixed_input_size: all images must have the same size, because a dense layer depends on it.
    """

    family: str
    options: BuilderOptions
    min_image_size: int = 32
    fixed_input_size: bool = False


def _make_residual(family: str, layers: int, **options: Unpack[BuilderOptions]) -> Architecture:
    return Architecture(
        family=family, options={"depths": _DEPTHS[layers], "bottleneck": layers >= 50, **options}
    )


def _make_fixed_size(family: str, **options: Unpack[BuilderOptions]) -> Architecture:
    return Architecture(family=family, options=options, min_image_size=64, fixed_input_size=True)


_ARCHITECTURES = {
    "alexnet": _make_fixed_size("alexnet"),
    "alexnet_bn": _make_fixed_size("alexnet", batch_norm=True),
    "alexnet_owt": _make_fixed_size("alexnet_owt"),
    "zfnet": _make_fixed_size("zfnet"),
    "zfnet_bn": _make_fixed_size("zfnet", batch_norm=True),
    **{f"resnetv2_{n}": _make_residual("resnetv2", n) for n in (18, 34, 50, 101, 152, 200)},
    **{f"resnet_{n}": _make_residual("resnet", n) for n in (18, 34, 50, 101, 152)},
    **{
        f"resnetse_{n}": _make_residual("resnet", n, squeeze_excite=True)
        for n in (18, 34, 50, 101, 152)
    },
}


def names() -> tuple[str, ...]:
    """Returns the names of all architectures, the values of `--model`."""
    return tuple(_ARCHITECTURES)


def get_architecture(model: str) -> Architecture:
    """Returns the Architecture with this name."""
    return _ARCHITECTURES[model]


def min_image_size(model: str) -> int:
    """Returns the side in pixels of the smallest image that this net accepts."""
    return _ARCHITECTURES[model].min_image_size


def has_fixed_input_size(model: str) -> bool:
    """Returns whether all images of this net must have the same size, as for AlexNet and ZFNet."""
    return _ARCHITECTURES[model].fixed_input_size


def is_residual(model: str) -> bool:
    """Returns whether this net has residual blocks."""
    return "depths" in _ARCHITECTURES[model].options


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetConfig:
    """What a net is built from. Fields without help are not flags: other flags determine them.

    Each flag is `Annotated[type, help, facts]`. See `loops/config/flag_fields.py` for the facts.
    """

    model: Annotated[str, "Architecture.", {"choices": names}] = "resnetv2_50"
    zero_init_residual: Annotated[
        bool,
        "Initialize residual branches to zero: gamma of the last batch norm or, in ResNetV2, the "
        "kernel of the last convolution.",
        {"is_residual_only": True, "is_training_only": True},
    ] = False
    sync_batch_norm: Annotated[
        bool, "Batch-norm statistics over the batch of all replicas.", {"is_training_only": True}
    ] = False
    dropout: Annotated[
        float | None,
        "Dropout rate before the dense layers.",
        {
            "minimum": 0,
            "below": 1,
            "is_training_only": True,
            "default_text": "0.5 for AlexNet and ZFNet, else 0",
        },
    ] = None
    stochastic_depth: Annotated[
        float,
        "Stochastic depth (drop path): drop rate of the last residual block; earlier blocks in "
        "proportion.",
        {"minimum": 0, "below": 1, "is_residual_only": True, "is_training_only": True},
    ] = 0.0
    recompute: Annotated[
        bool,
        "Gradient checkpointing: recompute residual blocks in the backward pass to save memory.",
        {
            "modes": ("train", "repro"),
            "on_resume": True,
            "is_residual_only": True,
            "is_training_only": True,
        },
    ] = False
    num_classes: int = 0
    compute_dtype: Annotated[str, None, {"is_training_only": True}] = "float32"
    # Input size of a net with a fixed input size; 0 for all others.
    input_size: int = 0
    # Not flags, but imported weights may have been trained with other values.
    batch_norm_momentum: Annotated[float, None, {"is_training_only": True}] = 0.9
    batch_norm_epsilon: float = 1e-5


@functools.cache
def _training_only_fields() -> frozenset[str]:
    """Returns the fields of NetConfig that do not change which function a trained net computes."""
    hints = typing.get_type_hints(NetConfig, include_extras=True)
    facts = {name: getattr(hint, "__metadata__", ({},))[-1] for name, hint in hints.items()}
    return frozenset(name for name, fact in facts.items() if "is_training_only" in fact)


def is_same_architecture(config: NetConfig, other: NetConfig) -> bool:
    """Returns whether two nets compute the same outputs from the same weights."""
    same = {name: getattr(config, name) for name in _training_only_fields()}
    return dataclasses.replace(other, **same) == config


def build_model(config: NetConfig) -> "keras.Model":
    """Builds the net of a config under the current distribution strategy.

    Args:
      config: `num_classes` must be set, and `input_size` for nets with a fixed input size.

    Returns:
      Model from normalized images [B, S, S, 3] to float32 logits [B, num_classes].
    """
    # Imported late, because `--help` and a misspelled flag must not wait for TensorFlow.
    from nets.layers.kit import Kit

    kit = Kit(
        config.compute_dtype,
        config.sync_batch_norm,
        config.zero_init_residual,
        momentum=config.batch_norm_momentum,
        epsilon=config.batch_norm_epsilon,
        dropout=config.dropout,
        stochastic_depth=config.stochastic_depth,
        recompute=config.recompute,
    )
    architecture = _ARCHITECTURES[config.model]
    options = architecture.options
    if architecture.fixed_input_size:
        options = {**options, "image_size": config.input_size}
    module = importlib.import_module(f"nets.{architecture.family}")
    return getattr(module, architecture.family)(kit, config.num_classes, **options)
