"""The measurements of `benchmarks.input_formats`; each runs in a new process."""

import argparse
import itertools
import pathlib
import resource
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from benchmarks import harness

if TYPE_CHECKING:
    from input_pipeline.config import DataConfig

BATCH, SIZE = 64, 224
MEMORY_BATCH = 256
IMAGENET = 1_281_167  # training images of ILSVRC 2012
SHARDS = 300
_RECORD_BYTES = 30_000


def list_files(folder: str) -> list[pathlib.Path]:
    files = sorted(p for p in pathlib.Path(folder).rglob("*") if p.suffix.lower() == ".jpeg")
    if not files:
        raise SystemExit(f"{folder}: contains no .JPEG file")
    return files


def _make_config(args: argparse.Namespace, batch_size: int, prepared: bool = False) -> "DataConfig":
    """Returns the DataConfig of the files as a list, or of the prepared data set."""
    from input_pipeline.config import DataConfig

    path = pathlib.Path(args.work, "all.txt")
    lines = "".join(f"{file.resolve()} {k}\n" for k, file in enumerate(list_files(args.data_dir)))
    path.write_text(lines)
    return DataConfig(
        dataset="lists",
        data_dir=str(pathlib.Path(args.work, "set")) if prepared else args.work,
        train_list=str(path),
        batch_size=batch_size,
        **get_classic_fields("lists", args.threads),
    )


def get_classic_fields(dataset: str, threads: int) -> dict[str, Any]:
    """Returns the fields of DataConfig that `classic` needs."""
    from input_pipeline import datasets

    names = ("mean", "std", "pca_values", "pca_vectors")
    return {
        "image_size": SIZE,
        "min_crop_area": 0.08,
        "augment": "classic",
        "reader_threads": threads,
        **{name: getattr(datasets.get(dataset), name) for name in names},
    }


def prepare(args: argparse.Namespace) -> dict[str, int]:
    """Writes the TFRecords that the side "tfrecord" reads."""
    from input_pipeline.config import PrepareConfig
    from input_pipeline.preparation import prepare

    out = pathlib.Path(args.work, "set")
    config = _make_config(args, BATCH)
    manifest = prepare.prepare(config, PrepareConfig(short_side=288), out, "tfrecord")
    after = sum(shard["bytes"] for shard in manifest["splits"]["train"]["shards"])
    before = sum(path.stat().st_size for path in list_files(args.data_dir))
    return {"bytes_before": before, "bytes_after": after}


def load_batches(config: "DataConfig") -> Iterator[int]:
    """Reads endless normalized batches, as the training step does; yields the epoch's size."""
    import tensorflow as tf

    from input_pipeline import pipeline
    from input_pipeline.augmentation import batch_augment
    from input_pipeline.sources import source

    preprocess = tf.function(batch_augment.make_preprocess_fn(config, 0))
    split = source.open_split(config, "train")
    for batch in pipeline.train_dataset(split, config, 0, 0, config.batch_size):
        preprocess(batch)[0].numpy()
        del batch  # frees it before the next one is created
        yield split.num_examples


def measure_speed(config: "DataConfig", seconds: float) -> dict[str, float]:
    """Returns the images per second up to a normalized batch."""
    return time_batches(load_batches(config), config.batch_size, seconds)


def time_batches(batches: Iterator[int], batch_size: int, seconds: float) -> dict[str, float]:
    """Returns the images per second of `load_batches`, after a quarter of the time to warm up."""
    for duration in (seconds / 4, seconds):
        started, images = time.perf_counter(), 0
        while time.perf_counter() - started < duration:
            next(batches)
            images += batch_size
        rate = images / (time.perf_counter() - started)
    return {"images_per_second": rate}


def measure_memory(args: argparse.Namespace) -> dict:
    """Returns resident memory in 10^6 bytes after each epoch, and the peak of the process."""
    batches, images, after_epochs = load_batches(_make_config(args, MEMORY_BATCH)), 0, []
    while len(after_epochs) < args.epochs:
        epoch_size = next(batches)
        images += MEMORY_BATCH
        while images >= (len(after_epochs) + 1) * epoch_size and len(after_epochs) < args.epochs:
            after_epochs.append(_resident_mb())
    return {"memory_mb": after_epochs, "peak_memory_mb": harness.peak_memory_mb()}


def _resident_mb() -> float:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _make_imagenet_list() -> bytes:
    """Returns an image list with the length and the style of names of ILSVRC 2012."""
    images = ((k * 1000 // IMAGENET, k % 1300) for k in range(IMAGENET))
    lines = (f"train/n{10**7 + c}/n{10**7 + c}_{n}.JPEG {c}\n" for c, n in images)
    return "".join(lines).encode()


def open_list(args: argparse.Namespace) -> dict[str, float]:
    """Opens an image list of ILSVRC's length; see `measure_open`."""
    from input_pipeline.config import DataConfig

    path, lines = pathlib.Path(args.work, "imagenet.txt"), _make_imagenet_list()
    path.write_bytes(lines)
    first = pathlib.Path(args.work, lines.split(b" ", 1)[0].decode())
    first.parent.mkdir(parents=True, exist_ok=True)
    first.touch()  # a list without any existing file is an error
    return measure_open(
        DataConfig(dataset="lists", data_dir=args.work, train_list=str(path)), IMAGENET
    )


def open_prepared(args: argparse.Namespace) -> dict[str, float]:
    """Opens class folders of ILSVRC's length that were prepared as lists; see `measure_open`."""
    from input_pipeline.config import DataConfig
    from input_pipeline.sources import manifest
    from input_pipeline.system import atomic_files

    folder = pathlib.Path(args.work, "lists")
    folder.mkdir()
    (folder / "train.txt").write_bytes(_make_imagenet_list())
    entry = {"name": "train.txt", "sha256": atomic_files.sha256(folder / "train.txt")}
    splits = {"train": {"images": IMAGENET, "list": entry}}
    content = {"dataset": "folder", "storage": "lists", "root": "..", "splits": splits}
    manifest.write(folder, content | {"classes": _make_class_names()})
    return measure_open(DataConfig(dataset="folder", data_dir=str(folder)), IMAGENET)


def _make_class_names() -> list[str]:
    return [f"n{10**7 + c}" for c in range(1000)]


def open_tfrecord(args: argparse.Namespace) -> dict[str, float]:
    """Opens TFRecords of ILSVRC's length, with sparse files as shards; see `measure_open`."""
    import numpy as np

    from input_pipeline.config import DataConfig
    from input_pipeline.sources import manifest
    from input_pipeline.system import atomic_files

    folder = pathlib.Path(args.work, "imagenet")
    folder.mkdir()
    index = np.zeros(IMAGENET, manifest.INDEX_ROW)
    index["length"] = _RECORD_BYTES
    index["label"] = np.arange(IMAGENET) * 1000 // IMAGENET
    bounds = np.linspace(0, IMAGENET, SHARDS + 1).astype(int).tolist()
    shards = []
    for number, (first, last) in enumerate(itertools.pairwise(bounds)):
        index["offset"][first:last] = np.arange(last - first) * _RECORD_BYTES
        size = (last - first) * _RECORD_BYTES
        name = f"train-{number:05d}-of-{SHARDS:05d}.tfrecord"
        with open(folder / name, "wb") as file:
            file.truncate(size)  # takes no disk space
        shards.append({"name": name, "bytes": size, "sha256": "", "records": last - first})
    np.save(folder / "train.index.npy", index)
    del index
    (folder / "train.txt").write_bytes(_make_imagenet_list())
    split = {"images": IMAGENET, "shards": shards}
    for key, name in (("index", "train.index.npy"), ("list", "train.txt")):
        split[key] = {"name": name, "sha256": atomic_files.sha256(folder / name)}
    content = {"dataset": "folder", "storage": "tfrecord", "splits": {"train": split}}
    manifest.write(folder, content | {"classes": _make_class_names()})
    return measure_open(DataConfig(dataset="folder", data_dir=str(folder)), IMAGENET)


def measure_open(config: "DataConfig", num_images: int) -> dict[str, float]:
    """Opens the train split.

    Args:
      config: names the data set.
      num_images: its number of images, which is checked.

    Returns:
      A dict: seconds, peak_mb and kept_mb (memory in 10^6 bytes at the peak and afterwards).
    """
    import tensorflow as tf

    from input_pipeline.sources import source

    tf.constant(0)  # excludes the start of TensorFlow
    # Reset Linux's record of the peak, because the preparation has its own peak.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before, started = _resident_mb(), time.perf_counter()
    split = source.open_split(config, "train")
    seconds = time.perf_counter() - started
    status = pathlib.Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    kept = _resident_mb() - before
    if split.num_examples != num_images:
        raise RuntimeError(f"opened {split.num_examples} images, expected {num_images}")
    return {"seconds": seconds, "peak_mb": peak - before, "kept_mb": kept}


SIDES: dict[str, Callable[[argparse.Namespace], dict]] = {
    "prepare": prepare,
    "files": lambda args: measure_speed(_make_config(args, BATCH), args.seconds),
    "tfrecord": lambda args: measure_speed(_make_config(args, BATCH, True), args.seconds),
    "memory": measure_memory,
    "open_list": open_list,
    "open_prepared": open_prepared,
    "open_tfrecord": open_tfrecord,
}
