"""Recipes: named sets of flags for `--recipe`.

Learning rates are per 256 images. All recipes but `short` are published and train a ResNet-50 on
ILSVRC2012. Comments name the parts of an original for which there is no flag.
"""

RECIPES = {
    "none": {},
    # Based on Apm5/ImageNet: learning rate 0.05 to 0.0001 at batch size 128.
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
    # He et al. 2015 as in facebook/fb.resnet.torch, with the third drop of Goyal et al. 2017.
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
    # averaged, so 1.7 is per 4,096 images. Sizes from 11 to 13 epochs are rounded to 192 px. The
    # original also uses blur pooling and evaluates with horizontal flips.
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
    # For small data sets and few epochs, so for few steps. RESULTS.md has the trials behind it. It
    # trains for the data set's default number of epochs.
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


def names() -> tuple[str, ...]:
    """Returns the values of `--recipe`."""
    return tuple(RECIPES)
