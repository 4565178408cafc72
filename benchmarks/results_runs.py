"""The runs behind RESULTS.md, in the order of their worth: what is trained, on what, how long."""

import dataclasses

# Set where the data lie; the commands in RESULTS.md say the same.
DATA = "$REAL_IMAGES_DIR"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Training:
    """A training, judged on each split with one crop and with ten.

    Attributes:
      name: of the run folder.
      label: of its row.
      flags: of the command, but for the run's name and folder.
      splits: that it is judged on.
      minutes: after so many it is stopped, to go on in another call.
    """

    name: str
    label: str
    flags: tuple
    splits: tuple = ("val", "test")
    minutes: float = 60.0


class Run(_Training):
    """A training by `main.py --mode=train`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit(_Training):
    """A training by `benchmarks.fit_baseline`."""

    minutes: float = 90.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestTwo:
    """The average of the probabilities of a table's two best runs on val."""

    name: str
    label: str
    splits: tuple = ("val", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of RESULTS.md: a title, what the reader should know of the data, its rows."""

    key: str
    title: str
    text: str
    rows: tuple


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


TABLES = (
    Table(
        key="learning",
        title="mini-ImageNet, 10 epochs, ResNetV2-50",
        text="12,000 training images of 100 classes, 84 px; val and test have 2,000 each. The last "
        "row is what one would take instead: keras.applications.ResNet50V2 and model.fit.",
        rows=(
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
            BestTwo(name="mini-average", label="average of the two best"),
        ),
    ),
)
