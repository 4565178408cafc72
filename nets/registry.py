"""Registry of the architectures: builds a net from its name and configuration."""

import dataclasses
import functools
import typing
from typing import Annotated, TypedDict, Unpack

from input_pipeline import user_code
from input_pipeline.errors import UsageError

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
      attention: method of Kit that residual blocks apply to their branch.
      deep_stem: three 3 x 3 convolutions in place of the 7 x 7 one.
      average_shortcut: shortcuts average pixels before their strided convolution.
      batch_norm: batch norm after each convolution of AlexNet and ZFNet.
      image_size: side of all images in pixels, for nets with a fixed input size.
    """

    depths: tuple[int, ...]
    bottleneck: bool
    attention: str
    deep_stem: bool
    average_shortcut: bool
    batch_norm: bool
    image_size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A registered net: the function that builds it and the arguments of that function.

    Attributes:
      family: name of the module in this package, and of the builder function in it.
      options: keyword arguments of the builder function.
    """

    family: str
    options: BuilderOptions = dataclasses.field(default_factory=BuilderOptions)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetFacts:
    """What the decorator `@registry.net(...)` says about a builder function.

    Attributes:
      min_image_size: side in pixels of the smallest image that the net accepts.
      fixed_input_size: all images must have the same size, because a dense layer depends on it.
        The function then takes the argument `image_size`.
      residual: the net has residual blocks, which end with `Kit.add`.
    """

    min_image_size: int = 32
    fixed_input_size: bool = False
    residual: bool = False


def _make_residual(family: str, layers: int, **options: Unpack[BuilderOptions]) -> Architecture:
    return Architecture(
        family=family, options={"depths": _DEPTHS[layers], "bottleneck": layers >= 50, **options}
    )


_ARCHITECTURES = {
    "alexnet": Architecture(family="alexnet"),
    "alexnet_bn": Architecture(family="alexnet", options={"batch_norm": True}),
    "alexnet_owt": Architecture(family="alexnet_owt"),
    "zfnet": Architecture(family="zfnet"),
    "zfnet_bn": Architecture(family="zfnet", options={"batch_norm": True}),
    **{f"resnetv2_{n}": _make_residual("resnetv2", n) for n in (18, 34, 50, 101, 152, 200)},
    **{f"resnet_{n}": _make_residual("resnet", n) for n in (18, 34, 50, 101, 152)},
    **{
        f"resnetse_{n}": _make_residual("resnet", n, attention="squeeze_excite")
        for n in (18, 34, 50, 101, 152)
    },
    **{
        f"resnet_{n}d": _make_residual("resnet", n, deep_stem=True, average_shortcut=True)
        for n in (18, 34, 50, 101, 152)
    },
}

# The decorator of builder functions: `net(kit, num_classes, **options)` returns a keras.Model.
net = user_code.Registry(
    "registry.net",
    NetFacts,
    {a.family: f"nets.{a.family}:{a.family}" for a in _ARCHITECTURES.values()},
)


def names() -> tuple[str, ...]:
    """Returns the names of all architectures, the values of `--model`."""
    return tuple(_ARCHITECTURES)


def get_architecture(model: str) -> Architecture:
    """Returns the Architecture with this name."""
    return _ARCHITECTURES[model]


def _get_builder(model: str) -> user_code.Entry[NetFacts]:
    """Returns the builder function of a net of this package, or of one in a user's file."""
    return net.get(_ARCHITECTURES[model].family if model in _ARCHITECTURES else model)


def min_image_size(model: str) -> int:
    """Returns the side in pixels of the smallest image that this net accepts."""
    return _get_builder(model).facts.min_image_size


def has_fixed_input_size(model: str) -> bool:
    """Returns whether all images of this net must have the same size, as for AlexNet and ZFNet."""
    return _get_builder(model).facts.fixed_input_size


def is_residual(model: str) -> bool:
    """Returns whether this net has residual blocks."""
    return _get_builder(model).facts.residual


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetConfig:
    """What a net is built from. Fields without help are not flags: other flags determine them.

    Each flag is `Annotated[type, help, facts]`. See `loops/config/flag_fields.py` for the facts.
    """

    model: Annotated[
        str,
        "Architecture.",
        {
            "common_in": ("train", "import", "benchmark"),
            "other_names": "arch a model_name net network backbone architecture",
            "other_values": {f"seresnet{n}": f"resnetse_{n}" for n in (18, 34, 50, 101, 152)},
            "choices": names,
            "accepts_code": True,
        },
    ] = "resnetv2_50"
    zero_init_residual: Annotated[
        bool,
        "Initialize residual branches to zero: gamma of the last batch norm or, in ResNetV2, the "
        "kernel of the last convolution.",
        {"other_names": "zero_init_last", "is_residual_only": True, "is_training_only": True},
    ] = False
    sync_batch_norm: Annotated[
        bool,
        "Batch-norm statistics over the batch of all replicas.",
        {"other_names": "sync_bn syncbn", "is_training_only": True},
    ] = False
    dropout: Annotated[
        float | None,
        "Dropout rate before the dense layers.",
        {
            "other_names": "drop drop_rate dropout_rate",
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
        {
            "other_names": "drop_path drop_path_rate drop_connect",
            "minimum": 0,
            "below": 1,
            "is_residual_only": True,
            "is_training_only": True,
        },
    ] = 0.0
    recompute: Annotated[
        bool,
        "Gradient checkpointing: recompute residual blocks in the backward pass to save memory.",
        {
            "other_names": "grad_checkpointing gradient_checkpointing remat",
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


def list_differences(config: NetConfig, other: NetConfig) -> list[str]:
    """Returns the fields because of which two nets compute other outputs from the same weights."""
    values = vars(other)
    differing = [name for name, value in vars(config).items() if value != values[name]]
    return [name for name in differing if name not in _training_only_fields()]


def build_model(config: NetConfig, random_weights: bool = True) -> "keras.Model":
    """Builds the net of a config under the current distribution strategy.

    Args:
      config: `num_classes` must be set, and `input_size` for nets with a fixed input size.
      random_weights: see `Kit`.

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
        random_weights=random_weights,
    )
    builder = _get_builder(config.model)
    options = BuilderOptions()
    if config.model in _ARCHITECTURES:
        options = _ARCHITECTURES[config.model].options
    if builder.facts.fixed_input_size:
        options = {**options, "image_size": config.input_size}
    with user_code.errors_in_one_line():
        model = builder.function(kit, config.num_classes, **options)
    if config.model not in _ARCHITECTURES:
        _check_model(model, config)
    return model


def _check_model(model: object, config: NetConfig) -> None:
    """Checks what the builder function in a user's file has returned."""
    import keras

    where = f"--model={user_code.display_name(config.model)}"
    if not isinstance(model, keras.Model) or not isinstance(model.output, keras.KerasTensor):
        raise UsageError(
            f"{where}: returned {type(model).__name__}, and must return kit.build_model(image, ...)"
        )
    last = model.layers[-1]
    if last.name != "logits" or model.output.shape != (None, config.num_classes):
        raise UsageError(
            f"{where}: ends with {last.name} {list(model.output.shape)}, and must end with"
            f" kit.logits(x, num_classes), whose output is [None, {config.num_classes}]"
        )
