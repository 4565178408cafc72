"""Registry of the known data sets: sizes, pixel statistics and default hyperparameters.

An entry in `_DATASETS` is all that a new data set needs: its flag value, defaults and tests follow.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping

from input_pipeline.system import regular_files
from input_pipeline.text import is_number

_MAX_TABLE_BYTES = 2**26
LABELS_DIR = pathlib.Path(__file__).parent / "labels"

# Mean and standard deviation of ImageNet's training pixels (RGB, 0..255), as in torchvision and
# timm.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
# Principal components of the covariance of these pixels, as in fb.resnet.torch. The published
# eigenvalues 0.2175, 0.0188 and 0.0045 are for pixels in 0..1. The columns of the matrix are the
# eigenvectors. It is stored row by row.
IMAGENET_PCA_VALUES = (0.2175 * 255**2, 0.0188 * 255**2, 0.0045 * 255**2)
IMAGENET_PCA_VECTORS = (
    *(-0.5675, 0.7192, 0.4009),
    *(-0.5808, -0.0045, -0.8140),
    *(-0.5836, -0.6948, 0.4203),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set and its default settings.

    Attributes:
      split_sizes: number of images by split; empty if not fixed.
      class_table: file of `index wnid names` lines in `labels/`, or "".
      mean, std: per channel of the training pixels, RGB, 0..255.
      pca_values, pca_vectors: principal components of the training pixels, see `DataConfig`.
      image_size: side of the model's input in pixels.
      batch_size: images per optimizer step.
      epochs: length of training.
      min_crop_area: smallest area of a random resized crop, as a fraction of the image's area.
      learning_rate: for SGD and a batch of 256 images.
      warmup_epochs: epochs of linear warm-up.
    """

    split_sizes: dict = dataclasses.field(default_factory=dict)
    class_table: str = ""
    mean: tuple = IMAGENET_MEAN
    std: tuple = IMAGENET_STD
    pca_values: tuple = IMAGENET_PCA_VALUES
    pca_vectors: tuple = IMAGENET_PCA_VECTORS
    image_size: int = 224
    batch_size: int = 64
    epochs: float = 30.0
    min_crop_area: float = 0.08
    learning_rate: float = 0.1
    warmup_epochs: float = 1.0


_SMALL = DatasetSpec(
    batch_size=32, epochs=15.0, min_crop_area=0.25, learning_rate=0.2, warmup_epochs=2.0
)
_DATASETS = {
    "shapes": DatasetSpec(
        split_sizes={"train": 2000, "val": 500, "test": 500},
        image_size=64,
        batch_size=48,
        epochs=6.0,
        min_crop_area=0.8,
        learning_rate=0.2,
    ),
    "ilsvrc2012": DatasetSpec(
        split_sizes={"train": 1_281_167, "val": 50_000},
        class_table="ilsvrc2012.txt",
        batch_size=256,
        epochs=50.0,
        warmup_epochs=5.0,
    ),
    # 500/50/50 images of each of the 100 classes. Pixel statistics of the 84-pixel copies.
    "mini_imagenet": DatasetSpec(
        split_sizes={"train": 50_000, "val": 5_000, "test": 5_000},
        class_table="mini_imagenet.txt",
        mean=(120.994, 114.742, 103.332),
        std=(68.905, 67.347, 70.507),
        batch_size=128,
        epochs=90.0,
        warmup_epochs=5.0,
    ),
    # User data sets are often small. Small batches give more steps per epoch.
    "folder": _SMALL,
    "lists": _SMALL,
}


def names() -> tuple[str, ...]:
    """Returns the values of `--dataset`."""
    return tuple(_DATASETS)


def get(name: str) -> DatasetSpec:
    """Returns the DatasetSpec of a name."""
    return _DATASETS[name]


def read_class_table(path: str | os.PathLike) -> tuple[tuple[str, str], ...]:
    """Reads a file of `index wnid names` lines.

    Returns:
      tuple of (wnid, names), in the order of the indices. `names` is the wnid if a line has none.

    Raises:
      ValueError: a line does not parse, or an index is out of order. The message has the line
        number.
    """
    table = []
    text = regular_files.read_bytes(path, _MAX_TABLE_BYTES).decode("utf-8-sig")
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split(maxsplit=2)
        if len(parts) < 2 or not is_number(parts[0]):
            raise ValueError(f"line {number} is not `index wnid names`: {line[:80]!r}")
        if int(parts[0]) != len(table):
            raise ValueError(f"line {number} has index {parts[0]}, expected {len(table)}")
        table.append((parts[1], parts[2] if len(parts) == 3 else parts[1]))
    return tuple(table)


def load_class_table(name: str) -> tuple[tuple[str, str], ...]:
    """Returns the (wnid, names) pairs of a data set by label, or () if it has no class table."""
    spec = get(name)
    return read_class_table(LABELS_DIR / spec.class_table) if spec.class_table else ()


@functools.cache
def load_wnids(name: str) -> tuple[str, ...]:
    """Returns the WordNet ids of a data set by label, or () if it has no class table."""
    return tuple(wnid for wnid, _ in load_class_table(name))


def display_name(class_name: str) -> str:
    """Returns the first English name of an ImageNet WordNet id; other names are unchanged."""
    return _english_names().get(class_name, class_name)


@functools.cache
def _english_names() -> Mapping[str, str]:
    """Returns the first English name by WordNet id."""
    table = read_class_table(LABELS_DIR / "ilsvrc2012.txt")
    return {wnid: names.split(",")[0] for wnid, names in table}
