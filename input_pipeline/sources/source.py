"""Opens a split of a data set: what every source of images can do, and which one a config means."""

import dataclasses
from collections.abc import Callable

from absl import logging

from input_pipeline import datasets
from input_pipeline.errors import UsageError
from input_pipeline.sources import image_files, manifest, ram_cache, shapes, tfrecord
from input_pipeline.text import pluralize


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
    images = _open_images(config, split, class_names)
    num_examples = len(images.labels)
    expected = datasets.get(config.dataset).split_sizes.get(split)
    if expected and expected != num_examples:
        logging.warning(
            "%s/%s has %d images here; the full set has %d.",
            config.dataset,
            split,
            num_examples,
            expected,
        )
    read = images.make_reader()
    if config.cache == "ram":
        what = f"{config.dataset}/{split}"
        read = ram_cache.cache_in_memory(read, num_examples, what, config.reader_threads)
    return Source(
        num_examples=num_examples,
        class_names=images.class_names,
        labels=images.labels,
        read=read,
        describe=images.describe,
        fingerprint=images.fingerprint(),
    )


def _open_images(config, split, class_names):
    """The ImageFiles or Shards of a split."""
    if manifest.exists(config.data_dir):
        facts = manifest.read(config.data_dir)
        manifest.require_dataset(config.data_dir, facts, config.dataset)
        opened = tfrecord if facts["storage"] == "tfrecord" else image_files
        return opened.open_split(config.data_dir, facts, split, class_names)
    if config.dataset == "lists":
        return image_files.from_list(config, split, class_names)
    return image_files.from_folders(
        ensure_data_dir(config), split, _known_class_names(config, class_names)
    )


def ensure_data_dir(config):
    """The folder of the images; makes the built-in set where it is not there yet."""
    if config.dataset == "shapes":
        folder = get_data_dir(config)
        shapes.make(folder)
        return folder
    if not config.data_dir:
        raise UsageError(f"--dataset={config.dataset} needs --data_dir, the folder of its images")
    return config.data_dir


def get_data_dir(config):
    """The folder of the images, without making or asking for it; "" where none is named."""
    return config.data_dir or ("data/shapes" if config.dataset == "shapes" else "")


def _known_class_names(config, class_names):
    """Class folders in the order of their labels, or () to take the sorted ones of train."""
    return class_names or tuple(wnid for wnid, _ in datasets.load_class_table(config.dataset))


def warn_of_missing_classes(train, val):
    """Warns of classes that no image shows, and of those that are trained and never evaluated."""
    trained, evaluated = (set(split.labels.tolist()) for split in (train, val))
    names = dict(enumerate(train.class_names))
    empty = [name for label, name in names.items() if label not in trained]
    unseen = [name for label, name in names.items() if label in trained - evaluated]
    for missing, what in ((empty, "without an image in train"), (unseen, "of train not in val")):
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            logging.warning("%s %s: %s", pluralize(len(missing), "class"), what, shown)
