"""Draws the built-in data set `shapes`: ten classes of simple objects, without a download.

It lets you try every mode, and test learning, within minutes on a CPU. Position, size, rotation
and color are random, and one object in four is darker than its background. A linear classifier on
the pixels therefore stays below 40 %. Only a model that recognizes shapes can score higher.
"""

import hashlib
import json
import os
import pathlib
import secrets
import shutil

import cv2
import numpy as np
import tqdm
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.system import regular_files

SPLIT_SIZES = {"train": 2000, "val": 500, "test": 500}
SOURCE_SIZE = 96
MANIFEST_FILENAME = "shapes.json"

# Raise this with any change that alters a pixel, so that folders of the old version are refused.
_FORMAT_VERSION = 2
_SEED = 20150512
_JPEG_QUALITY = 92
_SUPERSAMPLING = 4
_SUBPIXEL_BITS = 4
_MARGIN = 3.0  # px between the object and the border, so that resize-and-crop keeps the object
_LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, the luma of JPEG

# Sorted, so that labels from sorted folder names are the labels of `draw`.
CLASSES: tuple[str, ...] = ("arrow", "circle", "crescent", "cross", "ring", "spiral", "square")
CLASSES += ("star", "triangle", "zigzag")


def _polar_to_xy(angles: np.ndarray, radius: np.ndarray | float = 1.0) -> np.ndarray:
    """Returns points [P, 2] at angles [P] in radians."""
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=-1)


def _circle_angles(points: int) -> np.ndarray:
    """Returns evenly spaced angles [P] in radians."""
    return np.linspace(0.0, 2 * np.pi, points, endpoint=False)


def _make_outline(name: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Returns closed contours, each [P, 2], of one class. Where two overlap is a hole."""
    match name:
        case "arrow":
            shaft, head, neck = rng.uniform([0.16, 0.55, 0.0], [0.22, 0.65, 0.2])
            upper = np.array([[-1, shaft], [neck, shaft], [neck, head], [1, 0]])
            return [np.concatenate([upper, upper[-2::-1] * [1, -1]])]  # both halves share the tip
        case "circle":
            return [_polar_to_xy(_circle_angles(96))]
        case "crescent":  # an arc, open to the right, closed by half an ellipse
            opening, thickness = rng.uniform([0.8, 0.5], [1.15, 0.65])
            tip_x, tip_y = np.cos(opening), np.sin(opening)
            outer = _polar_to_xy(np.linspace(opening, 2 * np.pi - opening, 64))
            inner = _polar_to_xy(np.linspace(1.5 * np.pi, 0.5 * np.pi, 49))
            return [np.concatenate([outer, inner * [1 + tip_x - thickness, tip_y] + [tip_x, 0]])]
        case "cross":
            w = rng.uniform(0.2, 0.3)
            arm, quarter = np.array([[1, -w], [1, w], [w, w]]), np.array([[0, 1], [-1, 0]])
            return [np.concatenate([arm @ np.linalg.matrix_power(quarter, k) for k in range(4)])]
        case "ring":
            return [
                _polar_to_xy(_circle_angles(96)),
                _polar_to_xy(_circle_angles(96), rng.uniform(0.5, 0.68)),
            ]
        case "spiral":
            turns = rng.uniform(1.9, 2.3)
            angles, middle = np.linspace(0.0, 2 * np.pi * turns, 160), np.linspace(0.06, 1.0, 160)
            half_width = rng.uniform(0.22, 0.27) / turns  # the arms touch at 0.47 / turns
            inner = _polar_to_xy(angles, np.maximum(middle - half_width, 0.0))
            return [np.concatenate([_polar_to_xy(angles, middle + half_width), inner[::-1]])]
        case "square":
            return [_polar_to_xy(_circle_angles(4))]
        case "star":
            return [_polar_to_xy(_circle_angles(10), np.tile([1.0, rng.uniform(0.4, 0.48)], 5))]
        case "triangle":
            return [_polar_to_xy(_circle_angles(3) + rng.uniform(-0.15, 0.15, 3))]
        case "zigzag":
            x, y = np.linspace(-1, 1, 5), rng.uniform(0.3, 0.42) * np.array([-1, 1, -1, 1, -1])
            h = rng.uniform(0.18, 0.24)
            return [np.concatenate([np.c_[x, y + h], np.c_[x, y - h][::-1]])]
    raise ValueError(f"no outline for {name!r}")


def _rasterize(outline: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Returns the coverage [S, S, 1] in 0..1 of the outline after a random affine transform."""
    # A stretch between two rotations stretches in an arbitrary direction.
    first_rotation, second_rotation = (
        _polar_to_xy(np.array([-a, np.pi / 2 - a])) for a in rng.uniform(0.0, 2 * np.pi, 2)
    )
    stretch = np.diag([1.0, rng.uniform(0.9, 1.0) * rng.choice([-1.0, 1.0])])
    contours = [c @ first_rotation @ stretch @ second_rotation for c in outline]
    # The enclosing circle sets the size, so that any rotation of any class fits the image.
    center, unit = cv2.minEnclosingCircle(np.concatenate(contours).astype(np.float32))
    radius = 0.5 * SOURCE_SIZE * rng.uniform(0.55, 0.80)
    place = rng.uniform(radius + _MARGIN, SOURCE_SIZE - radius - _MARGIN, 2)
    fine = _SUPERSAMPLING << _SUBPIXEL_BITS
    scale = radius / unit
    points = [np.rint(((c - center) * scale + place) * fine).astype(np.int32) for c in contours]
    canvas = np.zeros((SOURCE_SIZE * _SUPERSAMPLING,) * 2, np.uint8)
    cv2.fillPoly(canvas, points, 255, shift=_SUBPIXEL_BITS)
    mask = cv2.resize(canvas, (SOURCE_SIZE,) * 2, interpolation=cv2.INTER_AREA)
    return mask[..., np.newaxis].astype(np.float32) / 255


def _random_color(luma: float, rng: np.random.Generator) -> np.ndarray:
    """Returns a random RGB color [3] of exactly this luma, so that luma alone sets contrast."""
    tint = rng.standard_normal(3, np.float32)
    tint -= tint @ _LUMA_WEIGHTS
    tint *= rng.uniform(10, 90) / np.linalg.norm(tint)
    max_scale = np.where(tint > 0, 255 - luma, luma) / np.abs(tint)
    return (luma + tint * min(1.0, max_scale.min())).astype(np.float32)


def _random_ramp(rng: np.random.Generator) -> np.ndarray:
    """Returns a linear gradient [S, S] in a random direction, about -0.5..0.5."""
    angle = rng.uniform(0.0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, SOURCE_SIZE, dtype=np.float32)
    return np.float32(np.cos(angle)) * axis + np.float32(np.sin(angle)) * axis[:, np.newaxis]


def _random_texture(rng: np.random.Generator) -> np.ndarray:
    """Returns stripes, checks or cloudy blobs [S, S] in -1..1.

    They are soft, so that no edge looks like an object.
    """
    kind = rng.integers(3)
    if kind == 0:
        cells = rng.standard_normal((rng.integers(4, 10),) * 2, np.float32)
        return np.tanh(cv2.resize(cells, (SOURCE_SIZE,) * 2, interpolation=cv2.INTER_CUBIC))
    cycles, sharpness = 2 * np.pi * rng.uniform(3, 11), rng.uniform(1, 3)
    wave = np.sin(np.float32(cycles) * _random_ramp(rng) + np.float32(rng.uniform(0, 6)))
    if kind == 1:
        wave *= np.sin(np.float32(cycles) * _random_ramp(rng) + np.float32(rng.uniform(0, 6)))
    return np.tanh(np.float32(sharpness) * wave)


def _draw_distractors(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draws distractors into `image` (uint8), too thin or too small to be an object."""
    unit = 1 << _SUBPIXEL_BITS
    for _ in range(rng.integers(1, 5)):
        color = _random_color(rng.uniform(20, 235), rng).tolist()
        place, angle = rng.uniform(0, SOURCE_SIZE, 2), rng.uniform(0, 2 * np.pi)
        kind = rng.integers(3)
        if kind == 0:  # a stroke with a slight bend
            bend = angle + rng.uniform(-0.6, 0.6)
            one, two = _polar_to_xy(np.array([angle, bend]), rng.uniform(4, 11, 2))
            path = [((place + [0 * one, one, one + two]) * unit).astype(np.int32)]
            cv2.polylines(image, path, False, color, 1, cv2.LINE_AA, _SUBPIXEL_BITS)
        elif kind == 1:  # a dot
            center, radius = (place * unit).astype(int).tolist(), int(rng.uniform(0.8, 1.8) * unit)
            cv2.circle(image, center, radius, color, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
        else:  # a crumb: a lopsided polygon of a few pixels
            corners = (
                _polar_to_xy(_circle_angles(6) + angle, rng.uniform(1.2, 3.5, 6)) + place
            ) * unit
            cv2.fillPoly(image, [corners.astype(np.int32)], color, cv2.LINE_AA, _SUBPIXEL_BITS)


def draw(label: int, seed: tuple[int, ...] | int) -> np.ndarray:
    """Draws one image. The result depends only on the arguments.

    Args:
      label: index into `CLASSES`.
      seed: one or more integers >= 0. Images with the same seed have the same background.

    Returns:
      uint8 [96, 96, 3], RGB.

    Raises:
      IndexError: the label is not in 0..9.
    """
    if not 0 <= label < len(CLASSES):
        raise IndexError(f"label {label} is not in 0..{len(CLASSES) - 1}")
    rng = np.random.Generator(np.random.PCG64(seed))
    # Both lumas are spread evenly around mid-gray. If the object were always the lighter part, the
    # bright pixels alone would reveal the class (a linear classifier reached 49 %).
    gap = rng.uniform(110, 160)
    middle = rng.uniform(25 + gap / 2, 230 - gap / 2)
    polarity = rng.choice([-0.5, 0.5, 0.5, 0.5])
    background, foreground = middle - polarity * gap, middle + polarity * gap
    blend = (_random_ramp(rng) / 1.42 + 0.5)[..., np.newaxis]  # [S, S, 1], 0..1
    first, second = (_random_color(background + shift, rng) for shift in rng.uniform(-12, 12, 2))
    scene = first + blend * (second - first)  # [S, S, 3]
    scene += np.float32(rng.uniform(4, 14)) * _random_texture(rng)[..., np.newaxis]
    scene = np.clip(scene, 0, 255).astype(np.uint8)
    _draw_distractors(scene, rng)
    paint = (
        _random_color(foreground, rng)
        + np.float32(rng.uniform(0, 24)) * _random_ramp(rng)[..., np.newaxis]
    )
    scene = scene + _rasterize(_make_outline(CLASSES[label], rng), rng) * (paint - scene)
    # Noise comes last and covers everything, so that a smooth patch does not reveal the object.
    scene += np.float32(rng.uniform(2, 8)) * rng.standard_normal(scene.shape, np.float32)
    return np.rint(np.clip(scene, 0, 255)).astype(np.uint8)


def _list_images() -> list[tuple[str, int, tuple[int, ...]]]:
    """Returns (path below the root, label, seed) of every image."""
    return [
        (f"{split}/{name}/{i:05d}.jpg", label, (_SEED, s, label, i))
        for s, (split, size) in enumerate(SPLIT_SIZES.items())
        for label, name in enumerate(CLASSES)
        for i in range(size // len(CLASSES))
    ]


def fingerprint(root: str) -> str:
    """Returns the SHA-256 over the paths and bytes of all images in `root`, in hexadecimal."""
    images = (
        name.encode() + pathlib.Path(root, name).read_bytes() for name, _, _ in _list_images()
    )
    return hashlib.sha256(b"".join(images)).hexdigest()


def is_complete(root: str) -> bool:
    """Returns whether `root` has a manifest of this format and a file of every image's name."""
    try:
        manifest = regular_files.read_json(os.path.join(root, MANIFEST_FILENAME))
        is_current = manifest["format"] == _FORMAT_VERSION and manifest["files"] == SPLIT_SIZES
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return is_current and all(pathlib.Path(root, name).is_file() for name, _, _ in _list_images())


def _write_dataset(root: str) -> None:
    """Writes all splits and then the manifest into the folder `root`."""
    # A single thread: threads would wait for the GIL, and a fork can hang once TensorFlow has
    # started its threads.
    quality = (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)
    for name, label, seed in tqdm.tqdm(_list_images(), "drawing shapes", disable=None, unit="img"):
        _, jpeg = cv2.imencode(".jpg", draw(label, seed)[..., ::-1], quality)
        path = pathlib.Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg.tobytes())  # cv2.imwrite does not raise when the disk is full
    manifest = {"format": _FORMAT_VERSION, "files": SPLIT_SIZES, "classes": CLASSES}
    manifest |= {"sha256": fingerprint(root), "opencv": cv2.__version__, "numpy": np.__version__}
    pathlib.Path(root, MANIFEST_FILENAME).write_text(
        json.dumps(manifest, indent=2), encoding="utf-8"
    )


def make(root: str) -> None:
    """Writes 3,000 JPEG files, `root`/SPLIT/CLASS/00000.jpg, unless `root` is already complete.

    The data set is written to a sibling folder, which is then renamed. An interrupted run therefore
    leaves no `root`. If several processes write the same `root`, the first to finish wins. The same
    versions of OpenCV and NumPy always write the same bytes. `root` may be an empty folder.

    Raises:
      UsageError: `root` contains something other than a complete data set of this format, or
        cannot be written.
    """
    root = os.path.realpath(root)  # a link to an empty folder cannot be renamed over
    if is_complete(root):
        return
    if os.path.exists(root) and (not os.path.isdir(root) or os.listdir(root)):
        problem = "does not contain the built-in data set shapes; set --dataset to its type"
        if os.path.exists(os.path.join(root, MANIFEST_FILENAME)):
            problem = f"is not a complete shapes data set in format {_FORMAT_VERSION}; remove it"
        raise UsageError(f"{root}: {problem}, or choose another --data_dir")
    temporary = f"{root}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        _write_dataset(temporary)
        os.rename(temporary, root)
        logging.info("created the data set `shapes` in %s", root)
    except OSError as error:
        if not is_complete(root):  # otherwise another process has written the same bytes
            raise UsageError(
                f"--data_dir={root}: the built-in data set cannot be written there"
                f" ({error.strerror or error}); name"
                " another folder, as in --dataset=shapes --data_dir=DIR"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
