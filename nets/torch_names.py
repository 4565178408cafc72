"""What others call the tensors of our nets: torchvision's and timm's state dicts.

Data and string work only. Shapes and layouts are for the reader of the weights.
"""

from nets import registry

# Batch norm: ours to PyTorch's.
_BATCH_NORM_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# PyTorch counts the batches behind its moving statistics; nothing is computed from that.
BATCH_COUNTER = "num_batches_tracked"
# Nets that a source has in our form. torchvision's ResNets and timm's have the same names. timm
# rounds the squeezed width of seresnet18 and 34 up to 8, so theirs are not the paper's.
_RESNETS = ("resnet_18", "resnet_34", "resnet_50", "resnet_101", "resnet_152")
MODELS = {
    "torchvision": _RESNETS,
    "timm": (
        *_RESNETS,
        *(f"resnetv2_{n}" for n in (18, 34, 50, 101, 152)),
        *(f"resnetse_{n}" for n in (50, 101, 152)),
    ),
}


def map_tensor_names(model):
    """The tensors of a published net.

    Args:
      model: one of `MODELS`.

    Returns:
      dict from the path of our variable to the name of the tensor.
    """
    architecture = registry.get_architecture(model)
    depths, bottleneck = architecture.options["depths"], architecture.options["bottleneck"]
    make = _map_resnetv2 if architecture.family == "resnetv2" else _map_resnet
    return make(depths, 3 if bottleneck else 2, architecture.options.get("squeeze_excite", False))


def get_head_names(model):
    """The names (weight, bias) of the classifier."""
    found = map_tensor_names(model)
    return found["logits/kernel"], found["logits/bias"]


def _map_resnet(depths, convolutions, squeeze_excite):
    """ResNet and SE-ResNet: `layer1.0.conv1.weight`."""
    found = {"stem_conv/kernel": "conv1.weight", **_map_batch_norm("stem_bn", "bn1")}
    for ours, theirs, is_first in _iterate_blocks(depths, "layer{stage}.{block}", first_stage=1):
        for i in range(1, convolutions + 1):
            found[f"{ours}_conv{i}/kernel"] = f"{theirs}.conv{i}.weight"
            found |= _map_batch_norm(f"{ours}_conv{i}_bn", f"{theirs}.bn{i}")
        if is_first and (convolutions == 3 or not ours.startswith("stage1")):
            found[f"{ours}_shortcut/kernel"] = f"{theirs}.downsample.0.weight"
            found |= _map_batch_norm(f"{ours}_shortcut_bn", f"{theirs}.downsample.1")
        if squeeze_excite:
            found |= _map_dense(f"{ours}_se_reduce", f"{theirs}.se.fc1")
            found |= _map_dense(f"{ours}_se_expand", f"{theirs}.se.fc2")
    return found | _map_dense("logits", "fc")


def _map_resnetv2(depths, convolutions, _):
    """ResNetV2: `stages.0.blocks.0.norm1.weight`; norm i stands before convolution i."""
    found = {"stem_conv/kernel": "stem.conv.weight"}
    for ours, theirs, is_first in _iterate_blocks(
        depths, "stages.{stage}.blocks.{block}", first_stage=0
    ):
        found |= _map_batch_norm(f"{ours}_preact_bn", f"{theirs}.norm1")
        for i in range(1, convolutions + 1):
            found[f"{ours}_conv{i}/kernel"] = f"{theirs}.conv{i}.weight"
            if i < convolutions:
                found |= _map_batch_norm(f"{ours}_conv{i}_bn", f"{theirs}.norm{i + 1}")
        if is_first and (convolutions == 3 or not ours.startswith("stage1")):
            found[f"{ours}_shortcut/kernel"] = f"{theirs}.downsample.conv.weight"
    return found | _map_batch_norm("final_bn", "norm") | _map_dense("logits", "head.fc")


def _iterate_blocks(depths, pattern, first_stage):
    """Yields (our name, their name, whether it is the first of its stage) of every block."""
    for stage, depth in enumerate(depths):
        for block in range(depth):
            theirs = pattern.format(stage=stage + first_stage, block=block)
            yield f"stage{stage + 1}_block{block + 1}", theirs, block == 0


def _map_batch_norm(ours, theirs):
    return {f"{ours}/{a}": f"{theirs}.{b}" for a, b in _BATCH_NORM_NAMES.items()}


def _map_dense(ours, theirs):
    return {f"{ours}/kernel": f"{theirs}.weight", f"{ours}/bias": f"{theirs}.bias"}
