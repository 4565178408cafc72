"""Which architectures there are, and how a name becomes a net."""

import dataclasses
from typing import Annotated

# Residual blocks per stage: table 1 of He et al. 2015; 200 from section 5 of He et al. 2016.
_DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """One registered net: the function of its module that builds it, and that one's arguments."""

    family: str
    options: dict
    smallest_image: int = 32


def _residual(family, layers, **options):
    return Architecture(
        family=family, options={"depths": _DEPTHS[layers], "bottleneck": layers >= 50, **options}
    )


_ARCHITECTURES = {
    **{f"resnetv2_{n}": _residual("resnetv2", n) for n in (18, 34, 50, 101, 152, 200)},
    **{f"resnet_{n}": _residual("resnet", n) for n in (18, 34, 50, 101, 152)},
    **{
        f"resnetse_{n}": _residual("resnet", n, squeeze_excite=True) for n in (18, 34, 50, 101, 152)
    },
}


def names():
    """Names of all architectures, as `--model` takes them."""
    return tuple(_ARCHITECTURES)


def smallest_image(model):
    """Side in pixels of the smallest image that the net of this name can take."""
    return _ARCHITECTURES[model].smallest_image


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetConfig:
    """What a net is built from. Fields without a help text follow from other flags."""

    model: Annotated[str, "Architecture.", names] = "resnetv2_50"
    zero_init_residual: Annotated[
        bool, "Start every residual branch at zero (gamma of its last batch norm)."
    ] = False
    sync_batch_norm: Annotated[bool, "Batch-norm moments over the batch of all replicas."] = False
    num_classes: int = 0
    compute_dtype: str = "float32"


def build(config):
    """Builds the net of a config under the current distribution strategy.

    Args:
      config: NetConfig with `num_classes` set.

    Returns:
      keras.Model from normalised images [B, S, S, 3] to float32 logits [B, num_classes].
    """
    # Imported here so that `--help` and a mistyped flag need not wait for TensorFlow.
    from nets import layers, resnet, resnetv2

    builders = {"resnet": resnet.resnet, "resnetv2": resnetv2.resnetv2}
    kit = layers.Kit(config.compute_dtype, config.sync_batch_norm, config.zero_init_residual)
    architecture = _ARCHITECTURES[config.model]
    return builders[architecture.family](kit, config.num_classes, **architecture.options)
