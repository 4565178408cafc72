"""The measurements of `benchmarks.input_layouts`; each runs in a new process.

A writer gets images one after the other, sorted by class. An image is its bytes, or a number of
bytes that are skipped: the file then has a hole, which takes no space on the disk.
"""

import argparse
import itertools
import os
import pathlib
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from benchmarks.workloads import input_format_workloads

if TYPE_CHECKING:
    from input_pipeline.config import DataConfig

_HOLLOW_BYTES = 109_000  # mean size of the training images of ILSVRC 2012
# Of Parquet files, indexing reads the images. They have no holes, so they are small.
_PARQUET_BYTES = 1000
_IMAGES_PER_SHARD = 1251
_ROW_GROUP = 100  # as Hugging Face writes them
_TAR_BLOCK = 512
_TAR_END = bytes(2 * _TAR_BLOCK)


class Image(NamedTuple):
    """An image to write.

    Attributes:
      wnid: WordNet id of its class.
      label: number of its class.
      name: name of its file.
      data: its bytes, or their number.
    """

    wnid: str
    label: int
    name: str
    data: bytes | int

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.data if isinstance(self.data, int) else len(self.data)


def _write_data(file: BinaryIO, image: Image) -> None:
    if isinstance(image.data, int):
        file.seek(image.data, os.SEEK_CUR)
    else:
        file.write(image.data)


def _shards(images: Iterable[Image]) -> Iterator[list[Image]]:
    images = iter(images)
    return iter(lambda: list(itertools.islice(images, _IMAGES_PER_SHARD)), [])


def write_class_folders(root: pathlib.Path, images: Iterable[Image]) -> None:
    """Writes train/WNID/NAME."""
    for wnid, group in itertools.groupby(images, lambda image: image.wnid):
        folder = root / "train" / wnid
        folder.mkdir(parents=True)
        for image in group:
            with open(folder / image.name, "wb") as file:
                _write_data(file, image)
                file.truncate(image.size)


def _tar_header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> int:
    return -size % _TAR_BLOCK


def write_tar_of_tars(root: pathlib.Path, images: Iterable[Image]) -> None:
    """Writes ILSVRC2012_img_train.tar."""
    root.mkdir()
    with open(root / "ILSVRC2012_img_train.tar", "wb") as file:
        for wnid, group in itertools.groupby(images, lambda image: image.wnid):
            members = list(group)
            sizes = [_TAR_BLOCK + image.size + _padding(image.size) for image in members]
            file.write(_tar_header(f"{wnid}.tar", sum(sizes) + len(_TAR_END)))
            for image in members:
                file.write(_tar_header(image.name, image.size))
                _write_data(file, image)
                file.seek(_padding(image.size), os.SEEK_CUR)
            file.write(_TAR_END)
        file.write(_TAR_END)


def write_webdataset(root: pathlib.Path, images: Iterable[Image]) -> None:
    """Writes tar files of KEY.jpg and KEY.cls."""
    root.mkdir()
    for number, shard in enumerate(_shards(images)):
        with open(root / f"imagenet1k-train-{number:04d}.tar", "wb") as file:
            for image in shard:
                key, text = image.name.removesuffix(".JPEG"), str(image.label).encode()
                file.write(_tar_header(f"{key}.cls", len(text)))
                file.write(text + bytes(_padding(len(text))))
                file.write(_tar_header(f"{key}.jpg", image.size))
                _write_data(file, image)
                file.seek(_padding(image.size), os.SEEK_CUR)
            file.write(_TAR_END)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def _field(number: int, content: bytes, rest: int = 0) -> bytes:
    """Returns a field of a protocol buffer, except for its last `rest` bytes."""
    return bytes([number << 3 | 2]) + _varint(len(content) + rest) + content


def _example_before_image(image: Image) -> bytes:
    """Returns the `tf.train.Example` of an image without the bytes of the image, its last ones."""
    texts = {"synset": image.wnid, "text": "a name"}
    features = [
        (f"image/class/{key}", _field(1, _field(1, v.encode()))) for key, v in texts.items()
    ]
    features.append(("image/filename", _field(1, _field(1, image.name.encode()))))
    features.append(("image/class/label", _field(3, _field(1, _varint(image.label + 1)))))
    content = b"".join(_field(1, _field(1, k.encode()) + _field(2, v)) for k, v in features)
    encoded = _field(1, b"", image.size)
    encoded = _field(2, _field(1, encoded, image.size), image.size)
    content += _field(1, _field(1, b"image/encoded") + encoded, image.size)
    return _field(1, content, image.size)


def write_tfrecords(root: pathlib.Path, images: Iterable[Image]) -> None:
    """Writes the TFRecords of tensorflow/models."""
    root.mkdir()
    paths = []
    for number, shard in enumerate(_shards(images)):
        paths.append(root / f"{number:05d}")
        _write_tfrecord(paths[-1], shard)
    for path in paths:
        path.rename(path.with_name(f"train-{path.name}-of-{len(paths):05d}"))


def _write_tfrecord(path: pathlib.Path, images: Sequence[Image]) -> None:
    from input_pipeline.sources import tfrecord

    if not isinstance(images[0].data, int):
        tfrecord.write_shard(path, (_example_before_image(i) + i.data for i in images))
        return
    with open(path, "wb") as file:
        for image in images:
            head = _example_before_image(image)
            length = (len(head) + image.size).to_bytes(8, "little")
            file.write(length + tfrecord.masked_crc32c(length).to_bytes(4, "little") + head)
            _write_data(file, image)
            file.write(bytes(4))  # a checksum that is not read


def write_parquet(root: pathlib.Path, images: Iterable[Image]) -> None:
    """Writes the Parquet files of Hugging Face."""
    import numpy as np
    import pyarrow
    from pyarrow import parquet

    root.mkdir()
    rng = np.random.default_rng(0)
    for number, shard in enumerate(_shards(images)):
        columns = {
            "image": [
                {
                    "bytes": i.data if isinstance(i.data, bytes) else rng.bytes(_PARQUET_BYTES),
                    "path": i.name,
                }
                for i in shard
            ],
            "label": [image.label for image in shard],
        }
        path = root / f"train-{number:05d}.parquet"
        parquet.write_table(pyarrow.table(columns), path, row_group_size=_ROW_GROUP)


WRITERS = {
    "class folders": write_class_folders,
    "tar of tars": write_tar_of_tars,
    "WebDataset": write_webdataset,
    "TFRecords": write_tfrecords,
    "Parquet": write_parquet,
}


def _hollow_images(count: int) -> Iterator[Image]:
    from input_pipeline import datasets

    wnids = datasets.load_wnids("ilsvrc2012")
    for number in range(count):
        label = number * len(wnids) // count
        name = f"{wnids[label]}_{number}.JPEG"
        yield Image(wnids[label], label, name, _HOLLOW_BYTES)


def _copies(folder: str, count: int) -> Iterator[Image]:
    """Yields at least `count` photographs: those of a folder, each as often as the others."""
    from input_pipeline import datasets

    wnids = datasets.load_wnids("ilsvrc2012")
    files = input_format_workloads.list_files(folder)
    for number, file in enumerate(files):
        data = file.read_bytes()
        # In the order of their names, which are not class names in every folder.
        label = number * len(wnids) // len(files)
        for copy in range(-(-count // len(files))):
            yield Image(wnids[label], label, f"{wnids[label]}_{number}{copy:04d}.JPEG", data)


def _folder(args: argparse.Namespace, layout: str) -> pathlib.Path:
    return pathlib.Path(args.work, layout.replace(" ", "_"))


def _config(args: argparse.Namespace, layout: str, **changes: object) -> "DataConfig":
    from input_pipeline.config import DataConfig

    return DataConfig(dataset="ilsvrc2012", data_dir=str(_folder(args, layout)), **changes)  # type: ignore[arg-type]


def write_hollow(args: argparse.Namespace, layout: str) -> dict[str, float]:
    """Writes a data set of `--images` images without content."""
    WRITERS[layout](_folder(args, layout), _hollow_images(args.images))
    return {}


def open_layout(args: argparse.Namespace, layout: str) -> dict[str, float]:
    """Opens a data set, and indexes it if it is not indexed yet; see `measure_open`."""
    return input_format_workloads.measure_open(_config(args, layout), args.images)


def write_copies(args: argparse.Namespace, layout: str) -> dict[str, float]:
    """Writes and indexes a data set of `--entries` photographs."""
    from input_pipeline.sources import source

    WRITERS[layout](_folder(args, layout), _copies(args.data_dir, args.entries))
    return {"images": source.open_split(_config(args, layout), "train").num_examples}


def measure_speed(args: argparse.Namespace, layout: str) -> dict[str, float]:
    """Returns the images per second of `classic` up to a normalized batch."""
    fields = input_format_workloads.get_classic_fields("ilsvrc2012", args.threads)
    config = _config(args, layout, batch_size=input_format_workloads.BATCH, **fields)
    return input_format_workloads.measure_speed(config, args.seconds)


_MEASUREMENTS: dict[str, Callable[[argparse.Namespace, str], dict[str, float]]] = {
    "write": write_hollow,
    "open": open_layout,
    "copy": write_copies,
    "speed": measure_speed,
}
SIDES = [f"{what} {layout}" for what in _MEASUREMENTS for layout in WRITERS]


def run_side(args: argparse.Namespace) -> dict[str, float]:
    """Runs the measurement that `--side` names."""
    what, _, layout = args.side.partition(" ")
    return _MEASUREMENTS[what](args, layout)
