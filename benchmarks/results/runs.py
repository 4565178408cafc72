"""The runs behind RESULTS.md, in the order of their worth: what is trained, on what, how long."""

import dataclasses

# Set where the data lie; the commands in RESULTS.md say the same.
DATA = "$REAL_IMAGES_DIR"
_ALL_VIEWS = ("val-1", "val-10", "test-1", "test-10")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Row:
    """A row of a table that is run.

    Attributes:
      name: of the record, and of the run folder.
      label: in the table.
      views: SPLIT-CROPS that it is judged on.
    """

    name: str
    label: str
    views: tuple = _ALL_VIEWS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(_Row):
    """A training by `main.py --mode=train`.

    Attributes:
      flags: of the command, but for the run's name.
      minutes: after so many it is stopped, to go on in another call.
    """

    flags: tuple
    minutes: float = 90.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit(Run):
    """A training by `benchmarks.fit_baseline`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestTwo(_Row):
    """The average of the probabilities of the two runs, of those named, that are best on val."""

    of: tuple


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of RESULTS.md.

    Attributes:
      key: what `--only` calls it.
      title: its heading.
      text: what the reader should know of the data.
      rows: of it.
      columns: "time", "machine", or SPLIT-CROPS and top1 or top5.
    """

    key: str
    title: str
    text: str
    rows: tuple
    columns: tuple = (
        *("time", "val-1 top1", "val-10 top1", "val-10 top5"),
        *("test-10 top1", "test-10 top5", "machine"),
    )


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
        rows=(
            *_LEARNING,
            BestTwo(
                name="mini-average",
                label="average of the two best",
                of=tuple(row.name for row in _LEARNING if not isinstance(row, Fit)),
            ),
        ),
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
        ),
        columns=("time", "val-1 top1", "val-1 top5", "machine"),
    ),
)
