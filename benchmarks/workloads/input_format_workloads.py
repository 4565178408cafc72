"""The measurements of `benchmarks.input_formats`, each for a process of its own."""

import itertools
import pathlib
import time

BATCH, SIZE = 64, 224
MEMORY_BATCH = 256
IMAGENET = 1_281_167
_SHARDS = 300
_RECORD_BYTES = 30_000


def _list_files(folder):
    files = sorted(p for p in pathlib.Path(folder).rglob("*") if p.suffix.lower() == ".jpeg")
    if not files:
        raise SystemExit(f"{folder}: no .JPEG file in it")
    return files


def _make_config(args, batch_size, prepared=False):
    """The DataConfig of the files as a list, or of the prepared set."""
    from input_pipeline import datasets
    from input_pipeline.config import DataConfig

    names = pathlib.Path(args.work, "all.txt")
    lines = "".join(f"{path.resolve()} {k}\n" for k, path in enumerate(_list_files(args.data_dir)))
    names.write_text(lines)
    spec = datasets.get("lists")
    return DataConfig(
        dataset="lists",
        data_dir=str(pathlib.Path(args.work, "set")) if prepared else args.work,
        train_list=str(names),
        image_size=SIZE,
        batch_size=batch_size,
        min_crop_area=0.08,
        augment="classic",
        reader_threads=args.threads,
        mean=spec.mean,
        std=spec.std,
        pca_values=spec.pca_values,
        pca_vectors=spec.pca_vectors,
    )


def prepare(args):
    """Makes the TFRecords that the other side reads."""
    from input_pipeline.config import PrepareConfig
    from input_pipeline.preparation import prepare

    out = pathlib.Path(args.work, "set")
    facts = prepare.prepare(
        _make_config(args, BATCH), PrepareConfig(short_side=288), out, "tfrecord"
    )
    after = sum(shard["bytes"] for shard in facts["splits"]["train"]["shards"])
    before = sum(path.stat().st_size for path in _list_files(args.data_dir))
    return {"bytes_before": before, "bytes_after": after}


def _load_batches(config):
    """Endless normalised batches, as the training step gets them; yields the size of an epoch."""
    import tensorflow as tf

    from input_pipeline import pipeline
    from input_pipeline.augmentation import batch_augment
    from input_pipeline.sources import source

    prepare = tf.function(batch_augment.make_preprocess_fn(config, 0))
    split = source.open_split(config, "train")
    for batch in pipeline.train_dataset(split, config, 0, 0, config.batch_size):
        prepare(batch)[0].numpy()
        del batch  # or it would be kept while the next one is made
        yield split.num_examples


def _measure_speed(args, prepared):
    batches = _load_batches(_make_config(args, BATCH, prepared))
    for seconds in (args.seconds / 4, args.seconds):  # the first is to warm up
        started, images = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            next(batches)
            images += BATCH
        rate = images / (time.perf_counter() - started)
    return {"images_per_second": rate}


def measure_memory(args):
    """Resident memory in 10^6 bytes after each epoch, and the most there was."""
    from benchmarks import harness

    batches, done, after = _load_batches(_make_config(args, MEMORY_BATCH)), 0, []
    while len(after) < args.epochs:
        total = next(batches)
        done += MEMORY_BATCH
        while done >= (len(after) + 1) * total and len(after) < args.epochs:
            after.append(_resident_mb())
    return {"memory_mb": after, "peak_memory_mb": harness.peak_memory_mb()}


def _resident_mb():
    import resource

    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _make_imagenet_list():
    """A list as long as ILSVRC 2012's, with names like its."""
    rows = ((k * 1000 // IMAGENET, k % 1300) for k in range(IMAGENET))
    names = (f"train/n{10**7 + c}/n{10**7 + c}_{n}.JPEG {c}\n" for c, n in rows)
    return "".join(names).encode()


def open_list(args):
    """Opens a list of ILSVRC's length: seconds, and how much memory that took at its peak."""
    from input_pipeline.config import DataConfig

    path, lines = pathlib.Path(args.work, "imagenet.txt"), _make_imagenet_list()
    path.write_bytes(lines)
    first = pathlib.Path(args.work, lines.split(b" ", 1)[0].decode())
    first.parent.mkdir(parents=True, exist_ok=True)
    first.touch()  # a list of which nothing is there is refused
    return _measure_open(DataConfig(dataset="lists", data_dir=args.work, train_list=str(path)))


def open_prepared(args):
    """Opens class folders of ILSVRC's length that were prepared as lists, by their manifest."""
    from input_pipeline.config import DataConfig
    from input_pipeline.sources import manifest
    from input_pipeline.system import atomic_files

    folder = pathlib.Path(args.work, "lists")
    folder.mkdir()
    (folder / "train.txt").write_bytes(_make_imagenet_list())
    entry = {"name": "train.txt", "sha256": atomic_files.sha256(folder / "train.txt")}
    splits = {"train": {"images": IMAGENET, "list": entry}}
    facts = {"dataset": "folder", "storage": "lists", "root": "..", "splits": splits}
    manifest.write(folder, facts | {"classes": _make_class_names()})
    return _measure_open(DataConfig(dataset="folder", data_dir=str(folder)))


def _make_class_names():
    return [f"n{10**7 + c}" for c in range(1000)]


def open_tfrecord(args):
    """Opens a TFRecord set of ILSVRC's length; its shards are hollow files of the right size."""
    import numpy as np

    from input_pipeline.config import DataConfig
    from input_pipeline.sources import manifest
    from input_pipeline.system import atomic_files

    folder = pathlib.Path(args.work, "imagenet")
    folder.mkdir()
    index = np.zeros(IMAGENET, manifest.INDEX_ROW)
    index["length"] = _RECORD_BYTES
    index["label"] = np.arange(IMAGENET) * 1000 // IMAGENET
    bounds = np.linspace(0, IMAGENET, _SHARDS + 1).astype(int).tolist()
    shards = []
    for number, (first, last) in enumerate(itertools.pairwise(bounds)):
        index["offset"][first:last] = np.arange(last - first) * _RECORD_BYTES
        size = (last - first) * _RECORD_BYTES
        name = f"train-{number:05d}-of-{_SHARDS:05d}.tfrecord"
        with open(folder / name, "wb") as file:
            file.truncate(size)  # takes no room on the disk
        shards.append({"name": name, "bytes": size, "sha256": "", "records": last - first})
    np.save(folder / "train.index.npy", index)
    del index
    (folder / "train.txt").write_bytes(_make_imagenet_list())
    of_split = {"images": IMAGENET, "shards": shards}
    for key, name in (("index", "train.index.npy"), ("list", "train.txt")):
        of_split[key] = {"name": name, "sha256": atomic_files.sha256(folder / name)}
    facts = {"dataset": "folder", "storage": "tfrecord", "splits": {"train": of_split}}
    manifest.write(folder, facts | {"classes": _make_class_names()})
    return _measure_open(DataConfig(dataset="folder", data_dir=str(folder)))


def _measure_open(config):
    import tensorflow as tf

    from input_pipeline.sources import source

    tf.constant(0)  # TensorFlow's own start is not counted
    # Linux begins its record of the peak anew: the preparations above had a peak of their own.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before, started = _resident_mb(), time.perf_counter()
    split = source.open_split(config, "train")
    seconds = time.perf_counter() - started
    status = pathlib.Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    kept = _resident_mb() - before
    if split.num_examples != IMAGENET:
        raise RuntimeError(f"opened {split.num_examples} images")
    return {"seconds": seconds, "peak_mb": peak - before, "kept_mb": kept}


SIDES = {
    "prepare": prepare,
    "files": lambda args: _measure_speed(args, prepared=False),
    "tfrecord": lambda args: _measure_speed(args, prepared=True),
    "memory": measure_memory,
    "open_list": open_list,
    "open_prepared": open_prepared,
    "open_tfrecord": open_tfrecord,
}
