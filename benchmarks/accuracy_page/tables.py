"""The tables of RESULTS.md: their runs and the flags of each. The most important come first."""

from benchmarks.accuracy_page.rows import BestTwo, Fit, Mean, Row, Run, Table

# Environment variable with the folder of the data sets, as in the commands in RESULTS.md.
DATA = "$REAL_IMAGES_DIR"

_MINI = (
    "--dataset=mini_imagenet",
    f"--data_dir={DATA}/mini",
    "--mixed_precision",
    "--image_size=84",
    "--epochs=10",
)
_BASICS = ("--batch_size=64",)
_PLAIN = ("--learning_rate=0.2", "--warmup_epochs=1", "--label_smoothing=0.1")


def _make_resnetv2_run(name: str, label: str, *flags: str) -> Run:
    return Run(name=f"mini-resnetv2_50-{name}", label=label, flags=(*_MINI, *_BASICS, *flags))


_LEARNING = (
    _make_resnetv2_run("standard", "`--augment=standard`", "--augment=standard", *_PLAIN),
    _make_resnetv2_run(
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
    _make_resnetv2_run("classic", "`--augment=classic`", "--augment=classic", *_PLAIN),
)

_SHORT = ("--recipe=short",)
# What `short` was before its optimizer became Muon.
_SGD = (
    *(*_SHORT, "--optimizer=sgd", "--momentum=0.9", "--nesterov", "--learning_rate=0.4"),
    *("--schedule=cosine", "--warmup_epochs=1", "--weight_decay=5e-4"),
)
_NETS = (
    "resnet_18d",
    "resnetv2_50",
    "resnetse_50",
    "resnet_50",
    "alexnet_bn",
    "zfnet_bn",
    "alexnet",
)


def _make_net_runs(name: str, recipe: tuple[str, ...]) -> tuple[Run, ...]:
    return tuple(
        Run(
            name=f"mini-{name}-{model}",
            label=f"`{model}`",
            flags=(*_MINI, *recipe, f"--model={model}"),
        )
        for model in _NETS
    )


_SHORT_NETS = _make_net_runs("short", _SHORT)
_SEEDS = (0, 1, 2)


def _make_seed_rows(
    name: str,
    label: str,
    flags: tuple[str, ...] = (),
    epochs: int = 5,
    model: str = "resnet_18d",
    seeds: tuple[int, ...] = _SEEDS,
) -> tuple[Row, ...]:
    """Returns a run on Imagenette for each seed, and their mean."""
    runs = [
        Run(
            name=f"imagenette-{name}-seed{seed}",
            label=f"{label}, seed {seed}",
            flags=(
                "--dataset=folder",
                f"--data_dir={DATA}/imagenette160",
                f"--model={model}",
                "--mixed_precision",
                "--image_size=128",
                f"--epochs={epochs}",
                "--eval_every=5epochs",
                "--crops=1",
                *_SHORT,
                *flags,
                f"--seed={seed}",
            ),
            views=("val-1",),
        )
        for seed in seeds
    ]
    mean = Mean(
        name=f"imagenette-{name}-mean",
        label=f"**{label}, mean of {len(seeds)}**",
        views=("val-1",),
        row_names=tuple(run.name for run in runs),
    )
    return *runs, mean


_ABLATION = (
    ("sgd", "SGD in place of Muon, at its own rate, decay and schedule", _SGD[1:]),
    ("zero", "without zero-initialized branches", ("--nozero_init_residual",)),
    ("smoothing", "without label smoothing", ("--label_smoothing=0",)),
    ("crop", "crops from 8 % of the image", ("--min_crop_area=0.08",)),
    ("cosine", "cosine in place of the linear schedule", ("--schedule=cosine",)),
    ("ema", "without EMA", ("--ema=0",)),
    ("clipping", "without gradient clipping", ("--clip_norm=0",)),
)
_CURVE_EPOCHS = (2, 5, 10, 20)
_IMAGENETTE_TEXT = (
    "9,469 training images of 10 classes, 128 px; val has the 3,925 images of the official split, "
    "and is seen at the end only. Our copies have 160 x 160 px, and their aspect ratio is lost. "
    "The 160 px files of the public leaderboard keep it."
)
_MINI_SCORES = ("val-1 top1", "val-10 top1", "val-10 top5", "test-10 top1", "test-10 top5")
_ONE_CROP = ("val-1 top1", "val-1 top5", "machine")

# The view of each row of the first table.
HEADLINES = {
    "imagenette-short-mean": "val-1",
    "imagenette-short20-mean": "val-1",
    "mini-short-resnet_18d": "val-10",
    "mini-short-resnetv2_50": "val-10",
    "mini-short-resnetse_50": "val-10",
    "mini-sgd-resnetv2_50": "val-10",
    "mini-fit-ResNet50V2": "val-10",
}

TABLES = (
    Table(
        key="imagenette5",
        title="Imagenette, 5 epochs, ResNet-18-D, `--recipe=short`",
        text=_IMAGENETTE_TEXT,
        rows=_make_seed_rows("short", "`short`"),
        columns=_ONE_CROP,
    ),
    Table(
        key="imagenette20",
        title="Imagenette, 20 epochs, ResNet-18-D, `--recipe=short`",
        text=_IMAGENETTE_TEXT,
        rows=_make_seed_rows("short20", "`short`", epochs=20),
        columns=_ONE_CROP,
    ),
    Table(
        key="nets",
        title="mini-ImageNet, 10 epochs, networks with `--recipe=short`",
        text="12,000 training images of 100 classes, 84 px; val and test have 2,000 each.",
        rows=(
            *_SHORT_NETS,
            BestTwo(
                name="mini-average",
                label="average of the two best",
                row_names=tuple(row.name for row in _SHORT_NETS),
            ),
        ),
        columns=(
            "val-1 top1",
            "val-10 top1",
            "val-10 top5",
            "test-10 top1",
            "test-10 top5",
            "machine",
        ),
    ),
    Table(
        key="learning",
        title="mini-ImageNet, 10 epochs, ResNetV2-50",
        text="12,000 training images of 100 classes, 84 px; val and test have 2,000 each. The "
        "baseline is keras.applications.ResNet50V2 trained with `model.fit`.",
        rows=_LEARNING,
    ),
    Table(
        key="mini-sgd",
        title="mini-ImageNet, 10 epochs, six networks with SGD",
        text="The recipe `short` as it was before its optimizer became Muon.",
        rows=_make_net_runs("sgd", _SGD)[1:],
    ),
    Table(
        key="ablation",
        title="Imagenette, 5 epochs, ResNet-18-D: what each part of `short` is worth",
        text="Each row leaves out or replaces one part of the recipe.",
        rows=tuple(
            row
            for name, label, flags in _ABLATION
            for row in _make_seed_rows(f"short-{name}", label, flags)
        ),
        columns=_ONE_CROP,
    ),
    Table(
        key="curve",
        title="Imagenette, accuracy against time: ResNet-18-D, and ResNet50V2 by `model.fit`",
        text="For these times the machine must do no other work.",
        rows=(
            *(
                row
                for epochs in _CURVE_EPOCHS
                for row in _make_seed_rows(
                    f"curve{epochs}", f"`short`, {epochs} epochs", epochs=epochs, seeds=(0,)
                )[:1]
            ),
            *(
                Fit(
                    name=f"imagenette-fit{epochs}",
                    label=f"`model.fit`, {epochs} epochs",
                    flags=(
                        f"--data_dir={DATA}/imagenette160",
                        "--image_size=128",
                        f"--epochs={epochs}",
                    ),
                    views=("val-1",),
                )
                for epochs in _CURVE_EPOCHS
            ),
        ),
        columns=("time", *_ONE_CROP),
    ),
    Table(
        key="classic",
        title="Imagenette, 5 epochs, AlexNet and ZFNet",
        text=_IMAGENETTE_TEXT,
        rows=tuple(
            row
            for model in ("alexnet", "alexnet_bn", "zfnet_bn")
            for row in _make_seed_rows(f"short-{model}", f"`{model}`", model=model, seeds=(0,))[:1]
        ),
        columns=_ONE_CROP,
    ),
)
