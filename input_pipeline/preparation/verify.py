"""Verifies a data set (`--mode=verify`): reads and decodes every image and reports the problems."""

import collections
import concurrent.futures
import contextlib
import functools
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from input_pipeline import datasets
from input_pipeline.config import DataConfig, PrepareConfig
from input_pipeline.decoding import decode, exif
from input_pipeline.errors import DataError
from input_pipeline.preparation import all_images, label_order, reencode
from input_pipeline.sources import image_folders
from input_pipeline.system import regular_files
from input_pipeline.system.progress import NoProgress, ProgressFactory
from input_pipeline.text import pluralize
from input_pipeline.threads import available_cores

# Findings of these kinds make an image unusable. Findings of other kinds are informative.
FATAL_KINDS = (
    "missing",
    "empty",
    "foreign",
    "bomb",
    "truncated",
    "broken",
    "changed",
    "record",
    "shard",
)
_CHUNK = 256
CHECKSUMS_FILE = "SHA256SUMS"
_MAX_CHECKSUM_BYTES = 2**31
# Escapes of `sha256sum`. It also puts a backslash in front of a line with an escaped name.
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


class _Inspection(NamedTuple):
    """What is known about one image after reading and decoding it.

    Attributes:
      sha256: hash of its bytes, or "" if it cannot be read.
      size: in bytes.
      format: as `reencode.detect_format` returns it.
      problems: (kind, why) of each finding.
      is_turned: whether its EXIF data says that it is not stored upright.
      short_side: in pixels; 0 if it cannot be decoded.
    """

    sha256: str
    size: int
    format: str
    problems: list[tuple[str, str]]
    is_turned: bool = False
    short_side: int = 0


class _ImageKey(NamedTuple):
    """Identifies an image."""

    split: str
    name: str
    label: int


def verify(
    config: DataConfig,
    prepare_config: PrepareConfig,
    checksums: str | os.PathLike[str] = "",
    progress: ProgressFactory = NoProgress,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Reads and decodes every image of every split.

    Args:
      config: names a raw or a prepared data set.
      prepare_config: contains devkit and split_csv.
      checksums: path of a file of `sha256  name` lines from an earlier run to compare with, or "".
      progress: creates the progress bars.

    Returns:
      (report, checksums): a dict for JSON, and the sha256 by name. The checksums are those of the
      file, and those of images that are not in the file.

    Raises:
      UsageError: there is no such data set.
      DataError: the labels are inconsistent, or a file of the data set is malformed.
    """
    image_set = all_images.find(config, prepare_config, progress)
    splits = image_set.splits
    labels = {split: [(i.name, i.label) for i in images] for split, images in splits.items()}
    numbering = label_order.detect(labels, by_folder=config.dataset == "folder")
    scan = _Scan(read_checksums(checksums), image_set.classes)
    num_images = sum(map(len, splits.values()))
    threads = config.reader_threads or available_cores()
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    with pool, contextlib.closing(progress(num_images)) as bar:
        for split, images in splits.items():
            for first in range(0, len(images), _CHUNK):
                chunk = images[first : first + _CHUNK]
                for image, inspection in zip(chunk, pool.map(_inspect_image, chunk), strict=True):
                    scan.add(split, image, inspection)
                bar.advance(len(chunk))
    findings = [_make_finding("shard", *fault) for fault in image_set.faults]
    findings += scan.findings
    why = "the image has no label"
    findings += [_make_finding("unlabeled", "", path, why) for path in image_set.unlabeled]
    why = f"the file no longer exists; if you removed it, delete its line from {CHECKSUMS_FILE}"
    moved, deleted = scan.find_missing(config.data_dir)
    findings += [_make_finding("moved", "", old, f"is {new} now") for old, new in moved.items()]
    findings += [_make_finding("gone", "", name, why) for name in deleted]
    report = _make_report(config, image_set, numbering, scan, findings)
    known = {name: d for name, d in scan.known_checksums.items() if name not in moved}
    return report, scan.checksums | known


def _make_report(
    config: DataConfig,
    image_set: all_images.ImageSet,
    numbering: str,
    scan: "_Scan",
    findings: list[dict[str, str]],
) -> dict[str, Any]:
    counts = collections.Counter(finding["kind"] for finding in findings)
    return {
        "dataset": config.dataset,
        "images": {split: len(images) for split, images in image_set.splits.items()},
        "classes": len(image_set.classes),
        "images_of_class": scan.summarize_class_sizes(len(image_set.classes)),
        "bytes": scan.num_bytes,
        "formats": dict(scan.formats.most_common()),
        "short_side": scan.summarize_short_sides(),
        "turned_by_exif": scan.num_turned,
        "label_map": numbering,
        "label_map_says": label_order.DESCRIPTIONS[numbering],
        "numeric_folders_out_of_order": label_order.has_misordered_numeric_names(image_set.classes),
        "counts": dict(counts.most_common()),
        "bad": sum(counts[kind] for kind in FATAL_KINDS),
        "skipped": image_set.skipped,
        "missing": _find_missing(config.dataset, image_set),
        "lookalikes": image_folders.find_lookalikes(image_set.classes),
        "duplicates_across_splits": scan.count_cross_split_duplicates(),
        "findings": findings,
    }


def _find_missing(dataset: str, image_set: all_images.ImageSet) -> list[str]:
    """Describes what training needs, or the full data set has, and this data set does not have."""
    missing = []
    labels = {split: {i.label for i in images} for split, images in image_set.splits.items()}
    for split in ("train", "val"):
        if split not in labels:
            missing.append(f"there is no {split} split")
    missing += [f"the {split} split has no labeled image" for split in labels if not labels[split]]
    train = labels.get("train", set())
    gaps = {"train": set(range(len(image_set.classes))) - train}
    gaps["val"] = train - labels["val"] if labels.get("val") else set()
    for split, absent in gaps.items():
        if absent and train:
            names = [image_set.classes[label] for label in sorted(absent)]
            examples = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            classes = pluralize(len(names), "class")
            missing.append(f"the {split} split has no image of {classes}: {examples}")
    for split, size in datasets.get(dataset).split_sizes.items():
        num_images = len(image_set.splits.get(split, ()))
        if split in labels and num_images != size:
            missing.append(f"the {split} split has {num_images} images; the full one has {size}")
    return missing


def read_checksums(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads a file of `sha256  name` lines.

    Returns:
      dict from name to sha256; empty if there is no file.

    Raises:
      DataError: a line is malformed.
    """
    if not path or not os.path.isfile(path):
        return {}
    try:
        data = regular_files.read_bytes(path, _MAX_CHECKSUM_BYTES)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; remove it to write it again") from None
    text = data.decode(errors="surrogateescape")
    checksums = {}
    for line in filter(None, text.split("\n")):
        digest, _, name = line.removeprefix("\\").partition("  ")
        if len(digest) != 64 or not name:
            raise DataError(
                f"{path}: contains a line that is not `sha256  name`; remove the file to write it"
                " again"
            )
        checksums[_unescape(name) if line.startswith("\\") else name] = digest
    return checksums


def format_checksums(checksums: Mapping[str, str]) -> bytes:
    """Returns the content of a checksum file that `sha256sum --check` accepts."""
    lines = []
    for name, digest in checksums.items():
        escaped = "".join(_ESCAPES.get(character, character) for character in name)
        lines.append(("\\" if escaped != name else "") + f"{digest}  {escaped}\n")
    return "".join(lines).encode(errors="surrogateescape")


def _unescape(name: str) -> str:
    plain = {escaped: character for character, escaped in _ESCAPES.items()}
    return re.sub(r"\\[\\nr]", lambda match: plain[match[0]], name)


class _Scan:
    """Collects the inspections of all images, to find duplicates and changed files.

    Args:
      known_checksums: sha256 by name, from an earlier run.
      classes: names of the classes by label.

    Attributes:
      known_checksums: see Args.
      checksums: sha256 by name, from this run.
      findings: findings about images, for the report.
      formats: number of images of each format.
      num_bytes: size of all images.
      num_turned: number of images that are not stored upright.
    """

    def __init__(self, known_checksums: dict[str, str], classes: Sequence[str]) -> None:
        self.known_checksums = known_checksums
        self._classes = classes
        self.checksums: dict[str, str] = {}
        self.findings: list[dict[str, str]] = []
        self.formats: collections.Counter[str] = collections.Counter()
        self.num_bytes = 0
        self.num_turned = 0
        self._short_sides: collections.Counter[int] = collections.Counter()
        self._first_with_hash: dict[str, _ImageKey] = {}
        self._images_per_label: collections.Counter[int] = collections.Counter()
        self._repeated: dict[str, dict[str, str]] = {}

    def add(self, split: str, image: all_images.Image, inspection: _Inspection) -> None:
        """Adds one image."""
        self.num_bytes += inspection.size
        self.num_turned += inspection.is_turned
        self.formats[inspection.format or "none"] += 1
        self._short_sides[inspection.short_side] += bool(inspection.short_side)
        self._images_per_label[image.label] += 1
        self.findings += [
            _make_finding(kind, split, image.name, why) for kind, why in inspection.problems
        ]
        if not inspection.size:
            return
        digest = inspection.sha256
        name = self._make_distinct(image.name, digest)
        self.checksums[name] = digest
        if self.known_checksums.get(name, digest) != digest:
            why = (
                f"its bytes differ from its line in {CHECKSUMS_FILE}; if you changed it, delete it"
            )
            self.findings.append(_make_finding("changed", split, image.name, why))
        if (first := self._first_with_hash.get(digest)) is None:
            self._first_with_hash[digest] = _ImageKey(split, image.name, image.label)
        else:
            why = f"same bytes as {first.name}"
            if first.label != image.label:
                theirs, ours = (self._classes[label] for label in (first.label, image.label))
                why += f", which is of class {theirs}, not {ours}"
            finding = _make_finding("duplicate", split, image.name, why)
            self.findings.append({**finding, "of": first.name, "of_split": first.split})

    def _make_distinct(self, name: str, digest: str) -> str:
        """Returns the name, with a number if another image has it: the shards may repeat names."""
        if self.checksums.get(name, digest) == digest:
            return name
        names = self._repeated.setdefault(name, {})
        return names.setdefault(digest, f"{name} ({len(names) + 2})")

    def find_missing(self, root: str | os.PathLike[str]) -> tuple[dict[str, str], list[str]]:
        """Finds the files of an earlier run that are not in the data set and no longer exist.

        A file that exists is not reported: another list may contain it.

        Returns:
          (new name of files whose bytes are those of a new file, names of the others).
        """
        unseen = self.known_checksums.keys() - self.checksums.keys()
        missing = sorted(n for n in unseen if not os.path.exists(os.path.join(root, n)))
        new = {d: n for n, d in self.checksums.items() if n not in self.known_checksums}
        digests = {name: self.known_checksums[name] for name in missing}
        moved = {name: new[digest] for name, digest in digests.items() if digest in new}
        return moved, [name for name in missing if name not in moved]

    def count_cross_split_duplicates(self) -> int:
        """Returns the number of images whose bytes are in another split too."""
        duplicates = [f for f in self.findings if f["kind"] == "duplicate"]
        return sum(f["of_split"] != f["split"] for f in duplicates)

    def summarize_short_sides(self) -> dict[str, int]:
        """Returns the smallest, the median and the largest short side in pixels; empty if none."""
        sides = sorted(self._short_sides.elements())
        if not sides:
            return {}
        return {"smallest": sides[0], "median": sides[len(sides) // 2], "largest": sides[-1]}

    def summarize_class_sizes(self, num_classes: int) -> dict[str, int]:
        """Returns the fewest and most images of a class, and the number of empty classes."""
        counts = [self._images_per_label[label] for label in range(num_classes)] or [0]
        return {"fewest": min(counts), "most": max(counts), "none": counts.count(0)}


def _make_finding(kind: str, split: str, name: str, why: str) -> dict[str, str]:
    return {"kind": kind, "split": split, "file": name, "why": why}


def _inspect_image(image: all_images.Image) -> _Inspection:
    """Reads and decodes one image."""
    try:
        data = image.read()
    except FileNotFoundError:
        return _Inspection("", 0, "", [("missing", "no such file")])
    except tf.errors.OpError as error:
        return _Inspection("", 0, "", [("record", decode.describe_error(error))])
    except DataError as error:
        return _Inspection("", 0, "", [("record", str(error))])
    except OSError as error:
        return _Inspection("", 0, "", [("missing", error.strerror)])
    image_format = reencode.detect_format(data)
    problems, orientation, short_side = [], 1, 0
    if reason := reencode.find_format_mismatch(image.name, data):
        problems.append(("unlike its name", reason))
    try:
        orientation, short_side = map(int, _get_inspection_fn()(tf.constant(data)))
    except tf.errors.OpError as error:
        problems.append(_classify_decode_error(data, image_format, decode.describe_error(error)))
    digest = hashlib.sha256(data).hexdigest()
    return _Inspection(digest, len(data), image_format, problems, orientation != 1, short_side)


def _classify_decode_error(data: bytes, image_format: str, reason: str) -> tuple[str, str]:
    """Returns (kind, why) of the finding for an image that does not decode."""
    if not data:
        return "empty", "the file is empty"
    if not image_format:
        return "foreign", "not a JPEG, PNG, GIF, BMP or WebP file"
    if "too many pixels" in reason:
        return "bomb", reason
    if image_format == "JPEG" and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        return "truncated", reason
    return "broken", reason


@functools.cache
def _get_inspection_fn() -> tf.types.experimental.PolymorphicFunction:
    """Returns the function that decodes an image: its EXIF orientation and its short side."""

    def read(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        short_side = tf.reduce_min(tf.shape(decode.decode_image(data))[:2])
        with tf.control_dependencies([short_side]):
            return exif.read_orientation(data), short_side

    return tf.function(read, input_signature=[tf.TensorSpec([], tf.string)])
