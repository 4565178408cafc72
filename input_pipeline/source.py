"""Opens a split of a data set: what every source of images can do, and which one a config means."""

import dataclasses
from collections.abc import Callable

from absl import logging

from input_pipeline import datasets, image_list, shapes
from input_pipeline.errors import UsageError

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Source:
    """Random access to the images of one split.

    Attributes:
      num_examples: N.
      class_names: name of each class, by label.
      labels: int32 numpy array [N].
      read: function from an int64 scalar tensor 0 <= i < N to (encoded file, int32 label).
      describe: function from an int to what a person calls that image: its path.
      fingerprint: hash over names and labels, to tell one version of the data from another.
    """

    num_examples: int
    class_names: tuple
    labels: object
    read: Callable
    describe: Callable
    fingerprint: str


def open_split(config, split, class_names=()):
    """Opens a split.

    Args:
      config: DataConfig.
      split: "train", "val" or "test".
      class_names: the classes of a trained run, whose labels then hold; else the data's own.

    Returns:
      Source.

    Raises:
      UsageError: a missing folder or file, or flags that do not fit the data set.
      DataError: a list that does not parse, an empty split, a label out of range.
    """
    if config.dataset == "lists":
        files = image_list.from_list(config, split, class_names)
    else:
        files = image_list.from_folders(data_dir(config), split, _classes(config, class_names))
    expected = datasets.get(config.dataset).split_sizes.get(split)
    if expected and expected != len(files.labels):
        logging.warning(
            "%s/%s has %d images here; the full set has %d.",
            config.dataset,
            split,
            len(files.labels),
            expected,
        )
    return Source(
        num_examples=len(files.labels),
        class_names=files.class_names,
        labels=files.labels,
        read=files.reader(),
        describe=files.path,
        fingerprint=files.fingerprint(),
    )


def data_dir(config):
    """The folder of the images; makes the built-in set where it is not there yet."""
    if config.dataset == "shapes":
        folder = config.data_dir or "data/shapes"
        shapes.make(folder)
        return folder
    if not config.data_dir:
        raise UsageError(f"--dataset={config.dataset} needs --data_dir, the folder of its images")
    return config.data_dir


def _classes(config, class_names):
    """Class folders in the order of their labels, or () to take the sorted ones of train."""
    return class_names or tuple(wnid for wnid, _ in datasets.class_table(config.dataset))


def warn_of_missing_classes(train, val):
    """Warns of classes that are trained and never evaluated."""
    present = set(val.labels.tolist())
    missing = [n for i, n in enumerate(train.class_names) if i not in present]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        logging.warning("%d classes of train have no image in val: %s", len(missing), shown)
