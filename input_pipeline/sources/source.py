"""Opens a split of any data set as a `Source`, which gives random access to its images."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import datasets
from input_pipeline.config import DataConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import (
    class_subset,
    folder_splits,
    image_files,
    image_folders,
    layout_splits,
    layouts,
    manifest,
    packed_images,
    ram_cache,
    shapes,
    tfrecord,
)
from input_pipeline.text import pluralize

_Images = image_files.ImageFiles | tfrecord.Shards | packed_images.PackedImages


@dataclasses.dataclass(frozen=True)
class Source:
    """Random access to the images of one split.

    Attributes:
      num_examples: N.
      class_names: name of each class, by label.
      labels: int32 [N].
      read: function from an int64 scalar tensor 0 <= i < N to (encoded image, int32 label); with
        `--cache=pixels` to (uint8 [H, W, 3], int32 label).
      read_file: like `read`, always from the files and encoded.
      describe: function from the index of an image to a readable name, its path.
      fingerprint: hash over names and labels, which identifies a version of the data.
      rule: what the labels and the split come from.
    """

    num_examples: int
    class_names: tuple[str, ...]
    labels: np.ndarray
    read: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    read_file: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    describe: Callable[[int], str]
    fingerprint: str
    rule: str = ""


def open_split(config: DataConfig, split: str, class_names: Sequence[str] = ()) -> Source:
    """Opens a split.

    Args:
      config: names the data set and its files.
      split: "train", "val" or "test".
      class_names: class names of a trained run, which then define the labels; if empty, those
        of the data set.

    Raises:
      UsageError: a folder or file is missing, or a flag does not fit the data set.
      DataError: a list does not parse, a split is empty, or a label is out of range.
    """
    # The classes of a trained run may be a selection, which is made below.
    images = _open_images(config, split, () if config.classes else class_names)
    if images.unlabeled:
        what = pluralize(len(images.unlabeled), "image")
        logging.warning("skipping %s without a label, for example %s", what, images.unlabeled[0])
    _require_native_reader(config, images)
    if split == "train":
        for lookalikes in image_folders.find_lookalikes(images.class_names):
            logging.warning("two classes look alike: %s", lookalikes)
    read = images.make_reader()
    opened = Source(
        num_examples=len(images.labels),
        class_names=images.class_names,
        labels=images.labels,
        read=read,
        read_file=read,
        describe=images.describe,
        fingerprint=images.fingerprint(),
        rule=images.rule,
    )
    if config.classes:
        opened = _select_classes(opened, config.classes, split)
        if class_names and opened.class_names != tuple(class_names):
            raise UsageError(f"--classes={config.classes}: the run was trained on other classes")
    full_size = datasets.get(config.dataset).split_sizes.get(split)
    if full_size and full_size != opened.num_examples:
        logging.warning(
            "%s/%s has %d images; the full data set has %d",
            config.dataset,
            split,
            opened.num_examples,
            full_size,
        )
    if config.cache == "none":
        return opened
    name = f"{config.dataset}/{split}"
    return dataclasses.replace(
        opened, read=ram_cache.cache_in_memory(opened.read, opened.num_examples, name, config)
    )


def _select_classes(source: Source, path: str, split: str) -> Source:
    """Returns a Source of only those images whose class a file names."""
    selected = class_subset.read(path, source.class_names)
    new_label = np.full(len(source.class_names), -1, np.int32)
    new_label[selected] = np.arange(len(selected), dtype=np.int32)
    kept = np.flatnonzero(new_label[source.labels] >= 0)
    if not kept.size:
        raise DataError(f"--classes={path}: the {split} split has no image of these classes")
    class_names = tuple(source.class_names[label] for label in selected)
    labels = new_label[source.labels[kept]]
    kept_tensor, label_tensor = tf.constant(kept), tf.constant(labels)  # captured by reference
    logging.info(
        "%s: %s of %s by --classes=%s",
        *(split, pluralize(len(kept), "image"), pluralize(len(selected), "class"), path),
    )
    digest = hashlib.sha256("\n".join((source.fingerprint, *class_names)).encode(errors="replace"))

    def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return source.read(kept_tensor[index])[0], label_tensor[index]

    return Source(
        num_examples=len(kept),
        class_names=class_names,
        labels=labels,
        read=read,
        read_file=read,
        describe=lambda index: source.describe(int(kept[index])),
        fingerprint=digest.hexdigest(),
        rule=source.rule,
    )


def _require_native_reader(config: DataConfig, images: _Images) -> None:
    """Raises UsageError if the workers of a data service cannot read the images."""
    if not config.data_service or not isinstance(images, packed_images.PackedImages):
        return
    if images.is_mapped:
        raise UsageError(
            f"--data_service={config.data_service}: its workers cannot read images inside"
            f" {images.files[0]}; prepare the data set with --mode=prepare"
        )


def _open_images(config: DataConfig, split: str, class_names: Sequence[str]) -> _Images:
    if manifest.exists(config.data_dir):
        metadata = manifest.read(config.data_dir)
        manifest.require_dataset(config.data_dir, metadata, config.dataset)
        storage = tfrecord if metadata["storage"] == "tfrecord" else image_files
        return storage.open_split(config.data_dir, metadata, split, class_names)
    if config.dataset == "lists":
        return image_files.from_list(config, split, class_names)
    data_dir = ensure_data_dir(config)
    layout, folders = _recognize(config.dataset, data_dir)
    if folders and (split == "train" or folder_splits.is_written(data_dir)):
        return folder_splits.open_split(data_dir, folders, config.dataset, split, class_names)
    if layout is not None and not layout.is_plain(data_dir):
        if any(place.kind == layouts.ARRAY_RECORDS for place in layout.splits.values()):
            raise UsageError(
                f"--data_dir={data_dir}: the compression of ArrayRecord files allows no random"
                f" access; run --mode=prepare --data_dir={data_dir} --out=DIR, then give"
                " --data_dir=DIR"
            )
        return layout_splits.open_split(layout, config.dataset, split, class_names)
    known = class_names or datasets.load_wnids(config.dataset)
    if layout is None and split != "train":
        test_set = layout_splits.open_test_set(data_dir, known) if known else None
        if test_set is not None:
            return test_set
    return image_files.from_folders(data_dir, split, known)


def _recognize(dataset: str, data_dir: str) -> tuple[layouts.Layout | None, dict[str, str]]:
    """Returns the layout of a folder, and its class folders if they have no splits."""
    layout = None if dataset == "shapes" else layouts.recognize(data_dir)
    return layout, folder_splits.find_class_folders(data_dir, dataset, layout)


def require_written_split(config: DataConfig, written: Sequence[int | str] = ()) -> None:
    """Checks that class folders without splits have the split that a run was trained on.

    Otherwise, an image that the run was trained on could be evaluated.

    Args:
      config: names the data set.
      written: what `folder_splits.fingerprint_written` returned for the run; () if unknown.

    Raises:
      DataError: the file of the split is missing, or is of another split.
    """
    data_dir = get_data_dir(config)
    if config.dataset == "lists" or manifest.exists(data_dir):
        return
    if not _recognize(config.dataset, data_dir)[1]:
        return
    fault = ""
    if not folder_splits.is_written(data_dir):
        fault = "is missing"
    elif written and folder_splits.fingerprint_written(data_dir, int(written[0])) != (*written,):
        fault = "has another split than the run was trained on"
    if fault:
        raise DataError(
            f"{folder_splits.written_path(data_dir)}: {fault}. It says which images the run was"
            " trained on; copy it from the data set of the training, or evaluate other images with"
            " --test_sets"
        )


def ensure_data_dir(config: DataConfig) -> str:
    """Returns the folder of the images; draws the built-in data set there if it is missing.

    Raises:
      UsageError: `--data_dir` is missing, or contains something other than the built-in data set.
    """
    if config.dataset == "shapes":
        folder = get_data_dir(config)
        shapes.make(folder)
        return folder
    if not config.data_dir:
        raise UsageError(f"--dataset={config.dataset} needs --data_dir, the folder of its images")
    return config.data_dir


def get_data_dir(config: DataConfig) -> str:
    """Returns the folder of the images, which may not exist yet; "" if no flag names one."""
    return config.data_dir or ("data/shapes" if config.dataset == "shapes" else "")


def warn_of_missing_classes(train: Source, val: Source) -> None:
    """Warns about classes without training images, and about trained classes missing from val."""
    train_labels, val_labels = (set(split.labels.tolist()) for split in (train, val))
    names = dict(enumerate(train.class_names))
    empty = [name for label, name in names.items() if label not in train_labels]
    not_in_val = [name for label, name in names.items() if label in train_labels - val_labels]
    for missing, problem in ((empty, "without images in train"), (not_in_val, "missing from val")):
        if missing:
            examples = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            logging.warning("%s %s: %s", pluralize(len(missing), "class"), problem, examples)
