"""Recipes: the flags that `--recipe` sets.

Learning rates are per 256 images. All but `short` are published, and about the training of a
ResNet-50 on ILSVRC2012; what of them has no flag here is said beside them.
"""

from absl import logging

from loops.config.config import leaves, replace
from nets import registry

_LENGTH_FLAGS = {"epochs", "steps", "examples"}

RECIPES = {
    # The predecessor's, after Apm5/ImageNet: 0.05 to 0.0001 at batch 128.
    "cosine50": {
        "augment": "classic",
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "learning_rate": 0.1,
        "final_learning_rate": 2e-4,
        "schedule": "cosine",
        "warmup_epochs": 1.0,
        "weight_decay": 1e-4,
        "decay_kind": "l2",
        "label_smoothing": 0.1,
        "batch_size": 128,
        "epochs": 50.0,
    },
    # He et al. 2015 as facebook/fb.resnet.torch trains it, with the third drop of Goyal et al.
    "step90": {
        "augment": "standard",
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "learning_rate": 0.1,
        "schedule": "step",
        "warmup_epochs": 0.0,
        "weight_decay": 1e-4,
        "decay_kind": "l2",
        "label_smoothing": 0.0,
        "batch_size": 256,
        "epochs": 90.0,
    },
    # NVIDIA DeepLearningExamples, ResNet-50 v1.5.
    "nvidia90": {
        "augment": "standard",
        "optimizer": "sgd",
        "momentum": 0.875,
        "nesterov": False,
        "learning_rate": 0.256,
        "schedule": "cosine",
        "warmup_epochs": 8.0,
        "weight_decay": 1 / 32768,
        "decay_kind": "l2",
        "label_smoothing": 0.1,
        "zero_init_residual": True,
        "batch_size": 256,
        "epochs": 90.0,
    },
    # Wightman et al. 2021, procedure A3: trained at 160 px, tested at 224.
    "rsb_a3": {
        "optimizer": "lamb",
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "warmup_epochs": 5.0,
        "weight_decay": 0.02,
        "decay_kind": "decoupled",
        "loss": "bce",
        "augment": "randaugment",
        "randaugment": "2,6",
        "mixup": 0.1,
        "cutmix": 1.0,
        "label_smoothing": 0.0,
        "image_size": 224,
        "image_size_schedule": "0:160",
        "crop_fraction": 0.95,
        "interpolation": "bicubic",
        "batch_size": 2048,
        "epochs": 100.0,
    },
    # libffcv/ffcv-imagenet, rn50_configs/rn50_16_epochs.yaml: learning rate 1.7, batch_size 512.
    # Each of the 8 processes of train_imagenet.py loads such a batch, and their gradients are
    # averaged: 1.7 is per 4,096 images. Sizes from 11 to 13 epochs are rounded to 192 px. Theirs
    # has blurred pooling and evaluates with the mirrored image beside.
    "ffcv16": {
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "learning_rate": 1.7 / 16,
        "schedule": "linear",
        "warmup_epochs": 2.0,
        "weight_decay": 1e-4,
        "decay_kind": "l2",
        "label_smoothing": 0.1,
        "image_size": 256,
        "image_size_schedule": "0:160,12:192",
        "batch_size": 4096,
        "epochs": 16.0,
    },
    # Ours, for small sets and few epochs, which leave few steps: RESULTS.md has the trials that it
    # was chosen from. Its length is the data set's.
    "short": {
        "augment": "standard",
        "min_crop_area": 0.35,
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "learning_rate": 0.4,
        "schedule": "cosine",
        "warmup_epochs": 1.0,
        "weight_decay": 5e-4,
        "label_smoothing": 0.1,
        "clip_norm": 1.0,
        "ema": 0.99,
        "zero_init_residual": True,
        "batch_size": 64,
    },
}

# What is right for a recipe's optimizer and wrong for another one.
_OPTIMIZER_FLAGS = frozenset(
    {"learning_rate", "final_learning_rate", "momentum", "nesterov", "decay_kind", "weight_decay"}
)
_RESIDUAL_BLOCK_FLAGS = frozenset({"zero_init_residual", "stochastic_depth", "recompute"})


def apply(config, given):
    """Sets the flags of the config's recipe, but for those that were given, and says which.

    What only residual blocks have is left out for other nets, and what goes with the recipe's
    optimizer where another one is typed.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.

    Returns:
      Config.
    """
    name = config.optimization.recipe
    values = dict(RECIPES.get(name, {}))
    if given & _LENGTH_FLAGS:
        values.pop("epochs", None)
    if not registry.is_residual(config.net.model):
        values = {field: v for field, v in values.items() if field not in _RESIDUAL_BLOCK_FLAGS}
    old = dict(leaves(config))
    if "optimizer" in given and old["optimizer"] != values.get("optimizer", old["optimizer"]):
        left_out = sorted(values.keys() & _OPTIMIZER_FLAGS - given)
        values = {field: v for field, v in values.items() if field not in left_out}
        flags = ", ".join(f"--{field}" for field in left_out)
        logging.info("--recipe=%s: %s: not for --optimizer=%s", name, flags, old["optimizer"])
    chosen = {field: value for field, value in values.items() if field not in given}
    for field, value in values.items():
        if field in given:
            logging.info("--recipe=%s: --%s=%s stays as given", name, field, old[field])
        else:
            logging.info("--recipe=%s: --%s=%s", name, field, value)
    return replace(config, chosen)
