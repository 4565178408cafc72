"""`--mode=verify`: reads and decodes every image of a set once, and says what is wrong with it."""

import collections
import concurrent.futures
import contextlib
import functools
import hashlib
import os
import pathlib
import re

import tensorflow as tf

from input_pipeline.decoding import decode
from input_pipeline.errors import DataError
from input_pipeline.preparation import all_images, label_order, reencode
from input_pipeline.system.progress import NoProgress
from input_pipeline.threads import available_cores

# Kinds of findings that make an image useless; the others are worth knowing.
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


def verify(config, prepare_config, checksums="", progress=NoProgress):
    """Looks at every image of every split.

    Args:
      config: DataConfig: a raw set, or `--data_dir` of a prepared one.
      prepare_config: PrepareConfig: devkit and split_csv.
      checksums: path of a file of `sha256  name` lines of an earlier run to compare with, or "".
      progress: function from the number of images to what counts them, as `Silent`.

    Returns:
      (report, sums): a dict for JSON, and the checksums by name: those of the file of an earlier
      run, and of images that it does not know.

    Raises:
      UsageError: there is no such set.
      DataError: labels of several numberings.
    """
    found = all_images.find(config, prepare_config, progress)
    splits = found.splits
    rows = {split: [(i.name, i.label) for i in images] for split, images in splits.items()}
    numbering = label_order.detect(rows, by_folder=config.dataset == "folder")
    scan = _Scan(read_checksums(checksums))
    total = sum(map(len, splits.values()))
    threads = config.reader_threads or available_cores()
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    with pool, contextlib.closing(progress(total)) as bar:
        for split, images in splits.items():
            for first in range(0, len(images), _CHUNK):
                part = images[first : first + _CHUNK]
                for image, seen in zip(part, pool.map(_inspect_image, part), strict=True):
                    scan.add(split, image, *seen)
                bar.advance(len(part))
    why = "no label says what it shows"
    findings = [_make_finding("shard", split, name, fault) for split, name, fault in found.faults]
    findings += scan.findings
    findings += [_make_finding("unlabelled", "", path, why) for path in found.unlabelled]
    why = f"not there any more; if it is meant to be gone, take its line from {CHECKSUMS_FILE}"
    findings += [
        _make_finding("gone", "", name, why) for name in scan.find_deleted(config.data_dir)
    ]
    return _make_report(config, found, numbering, scan, findings), scan.sums | scan.known


def _make_report(config, found, numbering, scan, findings):
    counts = collections.Counter(finding["kind"] for finding in findings)
    return {
        "dataset": config.dataset,
        "images": {split: len(images) for split, images in found.splits.items()},
        "classes": len(found.classes),
        "images_of_class": scan.of_classes(len(found.classes)),
        "bytes": scan.bytes,
        "formats": dict(scan.formats.most_common()),
        "label_map": numbering,
        "label_map_says": label_order.DESCRIPTIONS[numbering],
        "numeric_folders_out_of_order": label_order.has_misordered_numeric_names(found.classes),
        "counts": dict(counts.most_common()),
        "bad": sum(counts[kind] for kind in FATAL_KINDS),
        "duplicates_across_splits": scan.count_cross_split_duplicates(),
        "findings": findings,
    }


def read_checksums(path):
    """dict from name to sha256 of a file of `sha256  name` lines; empty where there is none."""
    if not path or not os.path.isfile(path):
        return {}
    text = pathlib.Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    found = {}
    for line in filter(None, text.split("\n")):
        digest, _, name = line.removeprefix("\\").partition("  ")
        if len(digest) != 64 or not name:
            raise DataError(f"{path}: not lines of `sha256  name`; remove it to write it anew")
        found[_unescape(name) if line.startswith("\\") else name] = digest
    return found


def format_checksums(sums):
    """The bytes of a file of checksums, as `sha256sum` writes and checks them."""
    lines = []
    for name, digest in sums.items():
        escaped = "".join(_ESCAPES.get(character, character) for character in name)
        lines.append(("\\" if escaped != name else "") + f"{digest}  {escaped}\n")
    return "".join(lines).encode(errors="surrogateescape")


# With a backslash before the line, as `sha256sum` has it.
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}


def _unescape(name):
    plain = {escaped: character for character, escaped in _ESCAPES.items()}
    return re.sub(r"\\[\\nr]", lambda found: plain[found[0]], name)


class _Scan:
    """What has been seen so far; duplicates show only over all images."""

    def __init__(self, known):
        self.known = known
        self._first = {}  # sha256 -> (split, name, label)
        self._images_per_label = collections.Counter()
        self.findings = []
        self.formats = collections.Counter()
        self.sums = {}
        self.bytes = 0

    def add(self, split, image, digest, size, kind, findings):
        self.bytes += size
        self.formats[kind or "none"] += 1
        self._images_per_label[image.label] += 1
        self.findings += [_make_finding(what, split, image.name, why) for what, why in findings]
        if not size:
            return
        self.sums[image.name] = digest
        if self.known.get(image.name, digest) != digest:
            why = "its bytes are not those of the earlier checksum"
            self.findings.append(_make_finding("changed", split, image.name, why))
        if (first := self._first.get(digest)) is None:
            self._first[digest] = split, image.name, image.label
        else:
            other = (
                "" if first[2] == image.label else f", under label {first[2]}, not {image.label}"
            )
            found = _make_finding(
                "duplicate", split, image.name, f"same bytes as {first[1]}{other}"
            )
            self.findings.append({**found, "of": first[1], "of_split": first[0]})

    def find_deleted(self, root):
        """Names with a checksum of an earlier run that no list or folder names now, and that are
        not there: what another list names is none of ours."""
        unseen = self.known.keys() - self.sums.keys()
        return sorted(name for name in unseen if not os.path.exists(os.path.join(root, name)))

    def count_cross_split_duplicates(self):
        """Number of images whose bytes are in another split too."""
        copies = [f for f in self.findings if f["kind"] == "duplicate"]
        return sum(f["of_split"] != f["split"] for f in copies)

    def of_classes(self, number):
        """Fewest and most images of a class, and how many have none."""
        counts = [self._images_per_label[label] for label in range(number)] or [0]
        return {"fewest": min(counts), "most": max(counts), "none": counts.count(0)}


def _make_finding(kind, split, name, why):
    return {"kind": kind, "split": split, "file": name, "why": why}


def _inspect_image(image):
    """Reads and decodes one image: (sha256, size, format, findings as (kind, why))."""
    try:
        data = image.read()
    except FileNotFoundError:
        return "", 0, "", [("missing", "there is no such file")]
    except tf.errors.OpError as error:
        return "", 0, "", [("record", decode.describe_error(error))]
    except DataError as error:
        return "", 0, "", [("record", str(error))]
    except OSError as error:
        return "", 0, "", [("missing", error.strerror)]
    digest, kind = hashlib.sha256(data).hexdigest(), reencode.detect_format(data)
    findings = []
    if reason := reencode.find_format_mismatch(image.name, data):
        findings.append(("unlike its name", reason))
    try:
        _decoded_shape_fn()(tf.constant(data))
    except tf.errors.OpError as error:
        findings.append(_classify_decode_error(data, kind, decode.describe_error(error)))
    return digest, len(data), kind, findings


def _classify_decode_error(data, kind, reason):
    """Kind of finding for an image that does not decode, and why."""
    if not data:
        return "empty", "the file is empty"
    if not kind:
        return "foreign", "not a JPEG, PNG, GIF, BMP or WebP file"
    if "too many pixels" in reason:
        return "bomb", reason
    if kind == "JPEG" and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
        return "truncated", reason
    return "broken", reason


@functools.cache
def _decoded_shape_fn():
    return tf.function(
        lambda data: tf.shape(decode.decode_image(data)),
        input_signature=[tf.TensorSpec([], tf.string)],
    )
