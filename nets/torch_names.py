"""Maps the variables of our nets to the tensor names in torchvision's and timm's state dicts.

This module handles names only. The code that reads the weights handles shapes and layouts.
"""

import re
from collections.abc import Iterator, Sequence

from nets import registry

# Name of a batch-norm variable in Keras: its name in PyTorch.
_BATCH_NORM_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# PyTorch counts the batches in its moving statistics. No computation uses the counter.
BATCH_COUNTER = "num_batches_tracked"
# Nets whose published weights fit ours. ResNets have the same tensor names in both sources. timm
# rounds the squeezed width of seresnet18 and seresnet34 up to 8, unlike the paper and our nets.
_RESNETS = ("resnet_18", "resnet_34", "resnet_50", "resnet_101", "resnet_152")
MODELS = {
    "torchvision": (*_RESNETS, "alexnet_owt"),
    "timm": (
        *_RESNETS,
        *(f"resnetv2_{n}" for n in (18, 34, 50, 101, 152)),
        *(f"resnetse_{n}" for n in (50, 101, 152)),
        *(f"resnet_{n}d" for n in (18, 34, 50, 101, 152)),
    ),
}


def find_model(timm_name: str) -> str | None:
    """Returns our name of a net of timm, such as resnet_50 for resnet50, or None.

    Args:
      timm_name: of the net or of its weights, as in resnet50.a1_in1k.
    """
    match = re.match(r"(se)?resnet(v2_)?(\d+d?)(\.|$)", timm_name)
    if match is None or (match[1] and match[2]):
        return None
    family = "resnetse" if match[1] else "resnetv2" if match[2] else "resnet"
    model = f"{family}_{match[3]}"
    return model if model in MODELS["timm"] else None


def map_tensor_names(model: str) -> dict[str, str]:
    """Returns the tensor names of a published net.

    Args:
      model: one of `MODELS`.

    Returns:
      dict from the path of our variable to the name of the tensor.
    """
    architecture = registry.get_architecture(model)
    if architecture.family == "alexnet_owt":
        return _map_alexnet_owt()
    options = architecture.options
    convolutions = 3 if options["bottleneck"] else 2
    if architecture.family == "resnetv2":
        return _map_resnetv2(options["depths"], convolutions)
    return _map_resnet(options, convolutions)


def get_head_names(model: str) -> tuple[str, str]:
    """Returns the tensor names (weight, bias) of the classifier."""
    names = map_tensor_names(model)
    return names["logits/kernel"], names["logits/bias"]


def _map_alexnet_owt() -> dict[str, str]:
    """Maps torchvision's AlexNet, whose layers are numbered together with ReLUs and pooling."""
    names: dict[str, str] = {}
    for number, theirs in enumerate((0, 3, 6, 8, 10), 1):
        names |= _map_dense(f"conv{number}", f"features.{theirs}")
    for ours, theirs in (("fc6", 1), ("fc7", 4), ("logits", 6)):
        names |= _map_dense(ours, f"classifier.{theirs}")
    return names


def _map_resnet(options: registry.BuilderOptions, convolutions: int) -> dict[str, str]:
    """Maps a ResNet, SE-ResNet or ResNet-D, as in `layer1.0.conv1.weight`."""
    names = {"stem_conv/kernel": "conv1.weight", **_map_batch_norm("stem_bn", "bn1")}
    if "deep_stem" in options:
        names["stem_conv/kernel"] = "conv1.6.weight"
        for i, (conv, norm) in enumerate(((0, 1), (3, 4)), 1):
            names[f"stem_conv{i}/kernel"] = f"conv1.{conv}.weight"
            names |= _map_batch_norm(f"stem_conv{i}_bn", f"conv1.{norm}")
    # The average pool comes first in their shortcut, and in stages without a stride an identity.
    first = 1 if "average_shortcut" in options else 0
    depths = options["depths"]
    for ours, theirs, is_first in _iterate_blocks(depths, "layer{stage}.{block}", first_stage=1):
        for i in range(1, convolutions + 1):
            names[f"{ours}_conv{i}/kernel"] = f"{theirs}.conv{i}.weight"
            names |= _map_batch_norm(f"{ours}_conv{i}_bn", f"{theirs}.bn{i}")
        if is_first and (convolutions == 3 or not ours.startswith("stage1")):
            names[f"{ours}_shortcut/kernel"] = f"{theirs}.downsample.{first}.weight"
            names |= _map_batch_norm(f"{ours}_shortcut_bn", f"{theirs}.downsample.{first + 1}")
        if options.get("attention") == "squeeze_excite":
            names |= _map_dense(f"{ours}_se_reduce", f"{theirs}.se.fc1")
            names |= _map_dense(f"{ours}_se_expand", f"{theirs}.se.fc2")
    return names | _map_dense("logits", "fc")


def _map_resnetv2(depths: Sequence[int], convolutions: int) -> dict[str, str]:
    """Maps a ResNetV2, as in `stages.0.blocks.0.norm1.weight`. Norm i precedes convolution i."""
    names = {"stem_conv/kernel": "stem.conv.weight"}
    for ours, theirs, is_first in _iterate_blocks(
        depths, "stages.{stage}.blocks.{block}", first_stage=0
    ):
        names |= _map_batch_norm(f"{ours}_preact_bn", f"{theirs}.norm1")
        for i in range(1, convolutions + 1):
            names[f"{ours}_conv{i}/kernel"] = f"{theirs}.conv{i}.weight"
            if i < convolutions:
                names |= _map_batch_norm(f"{ours}_conv{i}_bn", f"{theirs}.norm{i + 1}")
        if is_first and (convolutions == 3 or not ours.startswith("stage1")):
            names[f"{ours}_shortcut/kernel"] = f"{theirs}.downsample.conv.weight"
    return names | _map_batch_norm("final_bn", "norm") | _map_dense("logits", "head.fc")


def _iterate_blocks(
    depths: Sequence[int], pattern: str, first_stage: int
) -> Iterator[tuple[str, str, bool]]:
    """Yields (our name, their name, whether it is the first of its stage) for each block."""
    for stage, depth in enumerate(depths):
        for block in range(depth):
            theirs = pattern.format(stage=stage + first_stage, block=block)
            yield f"stage{stage + 1}_block{block + 1}", theirs, block == 0


def _map_batch_norm(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/{a}": f"{theirs}.{b}" for a, b in _BATCH_NORM_NAMES.items()}


def _map_dense(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}/kernel": f"{theirs}.weight", f"{ours}/bias": f"{theirs}.bias"}
