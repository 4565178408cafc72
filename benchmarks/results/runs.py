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
)
