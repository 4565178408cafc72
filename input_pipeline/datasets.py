"""The data sets known by name: sizes, statistics, and the settings that suit them.

One entry makes a data set: its flag value, its defaults and its tests follow.
"""

import dataclasses
import pathlib

_LABELS = pathlib.Path(__file__).parent / "labels"

# Mean and standard deviation of ImageNet's training pixels (RGB, 0..255), as torchvision and
# timm use them.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
# Their covariance, as fb.resnet.torch and its followers use it: eigenvalues 0.2175, 0.0188 and
# 0.0045 of pixels in 0..1, and the matrix whose columns are the eigenvectors, row by row.
IMAGENET_PCA_VALUES = (0.2175 * 255**2, 0.0188 * 255**2, 0.0045 * 255**2)
IMAGENET_PCA_VECTORS = (
    *(-0.5675, 0.7192, 0.4009),
    *(-0.5808, -0.0045, -0.8140),
    *(-0.5836, -0.6948, 0.4203),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set and the defaults that come with it.

    Attributes:
      split_sizes: images per split where they are fixed, else empty.
      class_table: file in `labels/` of `index wnid names` lines, or empty.
      mean, std: of the training pixels, RGB, 0..255.
      pca_values, pca_vectors: their principal components, see `DataConfig`.
      image_size: side of the net's input in pixels.
      batch_size: images of one optimizer step.
      epochs: length of training.
      min_crop_area: smallest share of the area that a random resized crop takes.
      learning_rate: of sgd, per 256 images.
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
    # 500/50/50 images of each of the 100 classes. The statistics are of the 84 px copies.
    "mini_imagenet": DatasetSpec(
        split_sizes={"train": 50_000, "val": 5_000, "test": 5_000},
        class_table="mini_imagenet.txt",
        mean=(120.994, 114.742, 103.332),
        std=(68.905, 67.347, 70.507),
        batch_size=128,
        epochs=90.0,
        warmup_epochs=5.0,
    ),
    # Small sets of one's own: many short epochs' worth of steps rather than large batches.
    "folder": _SMALL,
    "lists": _SMALL,
}


def names():
    """Values of `--dataset`."""
    return tuple(_DATASETS)


def get(name):
    """Returns the DatasetSpec of a name."""
    return _DATASETS[name]


def read_class_table(path):
    """Reads `index wnid names` lines into a tuple of (wnid, names), ordered by index.

    Raises:
      ValueError: a line that does not parse or an index out of order, with its number.
    """
    rows = []
    for number, line in enumerate(pathlib.Path(path).read_text("utf-8-sig").splitlines(), 1):
        parts = line.split(maxsplit=2)
        if len(parts) < 2 or not parts[0].isdigit():
            raise ValueError(f"line {number} is not `index wnid names`: {line[:80]!r}")
        if int(parts[0]) != len(rows):
            raise ValueError(f"line {number} has index {parts[0]}, expected {len(rows)}")
        rows.append((parts[1], parts[2] if len(parts) == 3 else parts[1]))
    return tuple(rows)


def load_class_table(name):
    """Returns the (wnid, names) rows of a data set's own table, or () where it has none."""
    spec = get(name)
    return read_class_table(_LABELS / spec.class_table) if spec.class_table else ()


def display_name(class_name):
    """The first English name of a WordNet id that ImageNet uses; any other name as it is."""
    return _english_names().get(class_name, class_name)


def _english_names(cache={}):  # noqa: B006 - read once, kept
    if not cache:
        table = read_class_table(_LABELS / "ilsvrc2012.txt")
        cache.update({wnid: names.split(",")[0] for wnid, names in table})
    return cache
