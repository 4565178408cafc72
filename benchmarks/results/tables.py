"""The runs behind RESULTS.md, in the order of their worth: what is trained, on what, how long."""

from benchmarks.results.rows import Fit, Run, Table

# Set where the data lie; the commands in RESULTS.md say the same.
DATA = "$REAL_IMAGES_DIR"

_MINI = (
    "--dataset=mini_imagenet",
    f"--data_dir={DATA}/mini",
    "--mixed_precision",
    "--image_size=84",
    "--epochs=10",
    "--batch_size=64",
    "--zero_init_residual",
)
_PLAIN = ("--learning_rate=0.2", "--warmup_epochs=1", "--label_smoothing=0.1")


def _v2(name, label, *flags):
    return Run(name=f"mini-resnetv2_50-{name}", label=label, flags=(*_MINI, *flags))


_LEARNING = (
    _v2("standard", "`--augment=standard`", "--augment=standard", *_PLAIN),
    _v2(
        "ffcv16",
        "`--recipe=ffcv16`",
        "--recipe=ffcv16",
        "--learning_rate=0.2",
        "--image_size_schedule=0:64,7:84",
        "--min_crop_area=0.25",
    ),
    Fit(
        name="mini-fit-ResNet50V2",
        label="ResNet50V2, `model.fit`",
        flags=(f"--data_dir={DATA}/mini", "--image_size=84", "--epochs=10"),
    ),
    _v2("classic", "`--augment=classic`", "--augment=classic", *_PLAIN),
)

_TRIAL = (
    "--dataset=folder",
    f"--data_dir={DATA}/nette224",
    "--model=resnetv2_18",
    "--mixed_precision",
    "--image_size=128",
    "--epochs=5",
    "--crops=1",
)
_BATCH_64 = (
    "--batch_size=64",
    "--learning_rate=0.4",
    "--warmup_epochs=1",
    "--weight_decay=5e-4",
    "--label_smoothing=0.1",
    "--zero_init_residual",
    "--min_crop_area=0.35",
)
_BATCH_32 = ("--batch_size=32", *_BATCH_64[1:])


def _trial(name, label, *flags):
    """A run of which a later flag replaces an earlier one of the same name."""
    by_name = {flag.partition("=")[0]: flag for flag in (*_TRIAL, *flags)}
    flags = tuple(by_name.values())
    return Run(name=f"nette-{name}", label=label, flags=flags, views=("val-1",))


TABLES = (
    Table(
        key="learning",
        title="mini-ImageNet, 10 epochs, ResNetV2-50",
        text="12,000 training images of 100 classes, 84 px; val and test have 2,000 each. The "
        "row of `model.fit` is what one would take instead: keras.applications.ResNet50V2.",
        rows=_LEARNING,
    ),
    Table(
        key="short",
        title="Imagenette, 5 epochs, ResNetV2-18: what `--recipe=short` was chosen from",
        text="2,600 training images of 10 classes, 128 px; val has 800 images. Nothing else was "
        "looked at. The first row is what it has to beat.",
        rows=(
            _trial("cosine50", "`--recipe=cosine50`", "--recipe=cosine50"),
            _trial("batch64", "batch 64, SGD, wider crops, zero-init", *_BATCH_64),
            _trial("batch32", "the same, batch 32", *_BATCH_32),
            _trial(
                "adamw",
                "the same, AdamW",
                *_BATCH_32,
                "--optimizer=adamw",
                "--learning_rate=0.016",
                "--weight_decay=0.05",
            ),
            _trial(
                "clipped",
                "batch 64, its average over steps, gradients of norm 1 at most",
                *_BATCH_64,
                "--clip_norm=1",
                "--ema=0.99",
            ),
            _trial(
                "clipped-alexnet",
                "the same, AlexNet, 10 epochs",
                *(flag for flag in _BATCH_64 if flag != "--zero_init_residual"),
                "--clip_norm=1",
                "--ema=0.99",
                "--model=alexnet",
                "--epochs=10",
            ),
        ),
        columns=("val-1 top1", "val-1 top5", "machine"),
    ),
)
