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

TRIAL_FLAGS = (
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
    "--min_crop_area=0.35",
)
_VIEWS = ("val-1", "val-10")
_BATCH_32 = ("--batch_size=32", *_BATCH_64[1:])
_CLIPPED = (*_BATCH_64, "--clip_norm=1", "--ema=0.99")


def _make_trial(name: str, label: str, *flags: str, program: tuple[str, ...] = ("main.py",)) -> Run:
    """Returns a run on Imagenette; a later flag replaces an earlier one of the same name."""
    by_name = {}
    for flag in (*TRIAL_FLAGS, *flags):
        by_name[flag.partition("=")[0].removeprefix("--no").removeprefix("--")] = flag
    return Run(
        name=f"nette-{name}",
        label=label,
        flags=tuple(by_name.values()),
        views=_VIEWS,
        program=program,
    )


_TRIALS = (
    _make_trial("cosine50", "`--recipe=cosine50`", "--recipe=cosine50"),
    _make_trial("batch64", "batch 64, SGD, wider crops", *_BATCH_64),
    _make_trial("batch32", "the same, batch 32", *_BATCH_32),
    _make_trial(
        "adamw",
        "the same, AdamW",
        *_BATCH_32,
        "--optimizer=adamw",
        "--learning_rate=0.016",
        "--weight_decay=0.05",
    ),
    _make_trial(
        "clipped",
        "batch 64, gradients clipped to norm 1, EMA",
        *_CLIPPED,
    ),
    _make_trial(
        "clipped-zero",
        "the same, zero-initialized residual branches",
        *_CLIPPED,
        "--zero_init_residual",
    ),
    _make_trial(
        "clipped-alexnet",
        "clipping and EMA, AlexNet",
        *_CLIPPED,
        "--model=alexnet",
    ),
)


def _make_seed_rows(recipe: str, first: str) -> tuple[Row, ...]:
    """Returns rows of seeds 1 and 2, and of their mean with the trial `first` (seed 0)."""
    rows = [
        _make_trial(
            f"{recipe}-seed{n}", f"`{recipe}`, seed {n}", f"--recipe={recipe}", f"--seed={n}"
        )
        for n in (1, 2)
    ]
    names = (f"nette-{first}", *(row.name for row in rows))
    mean = Mean(name=f"nette-{recipe}-mean", label=f"**`{recipe}`, mean of 3**", row_names=names)
    return *rows, mean


_SHORT = ("--recipe=short",)
_NETS = tuple(
    Run(
        name=f"mini-short-{model}",
        label=f"`{model}`",
        flags=(*_MINI, *_SHORT, f"--model={model}"),
    )
    for model in ("alexnet", "alexnet_bn", "zfnet_bn", "resnet_50", "resnetv2_50", "resnetse_50")
)

TABLES = (
    Table(
        key="learning",
        title="mini-ImageNet, 10 epochs, ResNetV2-50",
        text="12,000 training images of 100 classes, 84 px; val and test have 2,000 each. The "
        "baseline is keras.applications.ResNet50V2 trained with `model.fit`.",
        rows=_LEARNING,
    ),
    Table(
        key="short",
        title="Imagenette, 5 epochs, ResNetV2-18: candidates for `--recipe=short`",
        text="2,600 training images of 10 classes, 128 px; val has 800 images. The recipe was "
        "chosen from these runs alone. The first row is the baseline. The last row shows that the "
        "recipe also trains a network without batch norm.",
        rows=_TRIALS,
        columns=("val-1 top1", "val-1 top5", "machine"),
    ),
    Table(
        key="seeds",
        title="Imagenette, 5 epochs, ResNetV2-18: `short` and `cosine50`, three seeds each",
        text="Seed 0 is in the table above: `cosine50` is its first row, and `short` is the row "
        "with zero-initialized residual branches, whose flags became the recipe.",
        rows=(*_make_seed_rows("cosine50", "cosine50"), *_make_seed_rows("short", "clipped-zero")),
        columns=("val-1 top1", "val-1 top5", "machine"),
    ),
    Table(
        key="ingredients",
        title="Imagenette, 5 epochs, ResNetV2-18: ablation of `short`",
        text="Each row removes or replaces one part of the recipe. Mixed precision is bfloat16. "
        "With 800 images, differences of less than two points are not significant.",
        rows=(
            _make_trial("short", "`--recipe=short`", *_SHORT),
            _make_trial("short-ema", "without EMA", *_SHORT, "--ema=0"),
            _make_trial(
                "short-smoothing", "without label smoothing", *_SHORT, "--label_smoothing=0"
            ),
            _make_trial("short-zero", "without zero-init", *_SHORT, "--nozero_init_residual"),
            _make_trial("short-clipping", "without gradient clipping", *_SHORT, "--clip_norm=0"),
            _make_trial(
                "short-plain",
                "with Keras's batch norm",
                *_SHORT,
                program=("-m", "benchmarks.plain_batch_norm"),
            ),
            BestTwo(
                name="nette-average",
                label="average of two seeds",
                views=_VIEWS,
                row_names=("nette-short", "nette-short-seed1"),
            ),
            _make_trial("short-float32", "in float32", *_SHORT, "--nomixed_precision"),
        ),
        columns=("time", "val-1 top1", "val-10 top1", "machine"),
    ),
    Table(
        key="nets",
        title="mini-ImageNet, 10 epochs, six networks with one recipe",
        text="12,000 training images of 100 classes, 84 px; val and test have 2,000 each.",
        rows=(
            *_NETS,
            BestTwo(
                name="mini-average",
                label="average of the two best",
                row_names=tuple(row.name for row in _NETS),
            ),
        ),
    ),
)
