"""The built-in data set shapes: its files, reproducible pixels, and atomic creation."""

import collections
import json
import os
import pathlib
import subprocess
import sys
from concurrent import futures

import cv2
import numpy as np
import pytest

from input_pipeline.errors import UsageError
from input_pipeline.sources import shapes

SMALL = {"train": 20, "val": 10, "test": 10}


@pytest.fixture(scope="module")
def full_set(tmp_path_factory):
    root = tmp_path_factory.mktemp("full") / "shapes"
    shapes.make(str(root))
    return root


@pytest.fixture
def small(monkeypatch):
    """Reduces the data set to 40 images instead of 3,000."""
    monkeypatch.setattr(shapes, "SPLIT_SIZES", SMALL)


def _files(root: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def _state(root: pathlib.Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in [root, *root.rglob("*")]}


def _must_not_draw(label, seed):
    raise AssertionError("drew an image of a complete data set")


def test_classes_are_sorted_like_folders():
    assert list(shapes.CLASSES) == sorted(shapes.CLASSES)
    assert len(set(shapes.CLASSES)) == 10
    assert all(name.isalpha() and name.islower() for name in shapes.CLASSES)


def test_split_sizes_and_class_balance(full_set):
    assert shapes.SPLIT_SIZES == {"train": 2000, "val": 500, "test": 500}
    assert sorted(os.listdir(full_set)) == sorted([*shapes.SPLIT_SIZES, shapes.MANIFEST_FILENAME])
    for split, size in shapes.SPLIT_SIZES.items():
        assert sorted(os.listdir(full_set / split)) == list(shapes.CLASSES)
        for name in shapes.CLASSES:
            expected = [f"{i:05d}.jpg" for i in range(size // 10)]
            assert sorted(os.listdir(full_set / split / name)) == expected


def test_files_are_distinct_jpegs_of_source_size(full_set):
    images = {n: data for n, data in _files(full_set).items() if n.endswith(".jpg")}
    assert len(set(images.values())) == 3000
    for name, data in images.items():
        assert data[:3] == b"\xff\xd8\xff" and data[-2:] == b"\xff\xd9", name
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert image.shape == (shapes.SOURCE_SIZE, shapes.SOURCE_SIZE, 3), name


def test_manifest_matches_the_files(full_set):
    manifest = json.loads((full_set / shapes.MANIFEST_FILENAME).read_text())
    assert manifest["files"] == shapes.SPLIT_SIZES
    assert tuple(manifest["classes"]) == shapes.CLASSES
    assert manifest["sha256"] == shapes.fingerprint(str(full_set))


@pytest.mark.parametrize("label", range(10))
def test_draw_depends_only_on_its_arguments(label):
    before = np.random.get_state()[1].copy()
    first = shapes.draw(label, (3, label))
    shapes.draw(9 - label, 5)
    assert first.shape == (96, 96, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, shapes.draw(label, (3, label)))
    assert np.any(first != shapes.draw(label, (4, label)))
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_draw_is_the_same_in_threads():
    seeds = list(range(40))
    sequential = [shapes.draw(seed % 10, seed) for seed in seeds]
    with futures.ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda seed: shapes.draw(seed % 10, seed), seeds))
    np.testing.assert_array_equal(sequential, parallel)


@pytest.mark.parametrize("label", [-1, 10])
def test_draw_refuses_an_unknown_label(label):
    with pytest.raises(IndexError, match="is not in 0"):
        shapes.draw(label, 0)


@pytest.mark.parametrize("label", range(10))
def test_object_stands_out_from_its_background(label):
    # The background is measured in the corners. The margin keeps them free of objects.
    signs = collections.Counter()
    for seed in range(40):
        gray = cv2.cvtColor(shapes.draw(label, seed), cv2.COLOR_RGB2GRAY).astype(float)
        background = np.median([gray[:3, :3], gray[:3, -3:], gray[-3:, :3], gray[-3:, -3:]])
        foreground = np.abs(cv2.blur(gray, (3, 3)) - background) > 45
        assert 0.03 < foreground.mean() < 0.6, (seed, foreground.mean())
        signs[np.median(gray[foreground]) > background] += 1
    # One object in four is darker. The seed alone decides, so every class has the same 11 of 40.
    assert 4 <= signs[False] <= 18


def test_make_is_reproducible(tmp_path, small, full_set):
    shapes.make(str(tmp_path / "one"))
    shapes.make(str(tmp_path / "two"))
    one, two = _files(tmp_path / "one"), _files(tmp_path / "two")
    assert len(one) == sum(SMALL.values()) + 1
    assert one == two
    # An image depends only on its name, not on the images drawn before it.
    assert all(
        data == (full_set / name).read_bytes()
        for name, data in one.items()
        if name != shapes.MANIFEST_FILENAME
    )


def test_folder_name_is_the_class_of_its_images(full_set):
    for label, name in enumerate(shapes.CLASSES):
        data = cv2.imread(str(full_set / "val" / name / "00007.jpg"))[..., ::-1]
        drawn = shapes.draw(label, (20150512, 1, label, 7))  # the data set's seed; val is split 1
        # JPEG stores chroma at half size, so single pixels differ but mean colors do not.
        assert np.abs(data.mean((0, 1)) - drawn.mean((0, 1))).max() < 3


def test_fingerprint_detects_a_changed_byte(tmp_path, small):
    shapes.make(str(tmp_path / "set"))
    before = shapes.fingerprint(str(tmp_path / "set"))
    image = tmp_path / "set" / "test" / shapes.CLASSES[-1] / "00000.jpg"
    image.write_bytes(image.read_bytes()[:-1] + b"\x00")
    assert shapes.fingerprint(str(tmp_path / "set")) != before


def test_second_make_changes_nothing(full_set, monkeypatch):
    before = _state(full_set.parent)
    monkeypatch.setattr(shapes, "draw", _must_not_draw)
    shapes.make(str(full_set))
    assert _state(full_set.parent) == before


@pytest.mark.parametrize(
    ("error", "message"),
    [(KeyboardInterrupt, None), (OSError(30, "Read-only file system"), "--data_dir=.*Read-only")],
)
def test_interrupted_make_leaves_nothing(tmp_path, small, monkeypatch, error, message):
    root, draw, drawn = tmp_path / "set", shapes.draw, []

    def failing_draw(label, seed):
        assert not root.exists()  # before the last image is written
        drawn.append(seed)
        if len(drawn) == 30:
            raise error
        return draw(label, seed)

    monkeypatch.setattr(shapes, "draw", failing_draw)
    with pytest.raises(error if isinstance(error, type) else UsageError, match=message):
        shapes.make(str(root))
    assert not os.listdir(tmp_path)
    monkeypatch.setattr(shapes, "draw", draw)
    shapes.make(str(root))
    assert shapes.is_complete(str(root)) and os.listdir(tmp_path) == ["set"]


def test_killed_make_leaves_no_complete_data_set(tmp_path):
    program = (
        "import os, sys\nfrom input_pipeline.sources import shapes\n"
        "calls = []; draw = shapes.draw\n"
        "def dying_draw(label, seed):\n"
        "    calls.append(seed)\n"
        "    return os._exit(7) if len(calls) == 30 else draw(label, seed)\n"
        "shapes.draw = dying_draw; shapes.make(sys.argv[1])\n"
    )
    repository = pathlib.Path(shapes.__file__).parents[2]
    child = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "set")], cwd=repository, check=False
    )
    assert child.returncode == 7
    (temporary,) = os.listdir(tmp_path)
    assert temporary.startswith("set.tmp-")
    assert not shapes.is_complete(str(tmp_path / temporary))


def test_first_process_to_finish_wins(tmp_path, small, monkeypatch):
    root, other, draw = tmp_path / "set", tmp_path / "other", shapes.draw
    shapes.make(str(other))
    before = _files(other), other.stat().st_ino

    def overtaken_draw(label, seed):
        if other.exists():
            os.rename(other, root)
        return draw(label, seed)

    monkeypatch.setattr(shapes, "draw", overtaken_draw)
    shapes.make(str(root))
    assert (_files(root), root.stat().st_ino) == before
    assert os.listdir(tmp_path) == ["set"]


def test_make_fills_an_empty_folder_through_a_symlink(tmp_path, small):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    shapes.make(str(tmp_path / "link") + os.sep)
    assert (tmp_path / "link").is_symlink() and shapes.is_complete(str(tmp_path / "real"))


@pytest.mark.parametrize("damage", ["no manifest", "missing file", "format", "malformed manifest"])
def test_make_refuses_other_or_incomplete_folder(tmp_path, small, damage):
    root = tmp_path / "set"
    shapes.make(str(root))
    manifest = json.loads((root / shapes.MANIFEST_FILENAME).read_text())
    if damage == "no manifest":
        (root / shapes.MANIFEST_FILENAME).unlink()
    elif damage == "missing file":
        (root / "val" / shapes.CLASSES[3] / "00000.jpg").unlink()
    elif damage == "format":
        (root / shapes.MANIFEST_FILENAME).write_text(json.dumps(manifest | {"format": 0}))
    else:
        (root / shapes.MANIFEST_FILENAME).write_text("[]")
    before = _state(tmp_path)
    assert not shapes.is_complete(str(root))
    advice = "set --dataset to its type" if damage == "no manifest" else "remove it"
    with pytest.raises(UsageError, match=f"{advice}, or choose another --data_dir") as error:
        shapes.make(str(root))
    assert str(error.value).startswith(f"{root}: ") and "\n" not in str(error.value)
    assert _state(tmp_path) == before


def test_make_refuses_a_file_as_root(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=f"{tmp_path}/file: "):
        shapes.make(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"


def test_no_progress_bar_without_a_terminal(tmp_path, small, capfd):
    shapes.make(str(tmp_path / "set"))
    assert "drawing" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("colors", ["gray", "rgb"])
def test_linear_classifier_scores_low(full_set, colors):
    # If pixels alone revealed the class, training on this set would prove nothing about the model.
    # 32 x 32 is fast. 64 x 64 and 96 x 96 score the same.
    mode = cv2.IMREAD_GRAYSCALE if colors == "gray" else cv2.IMREAD_COLOR
    pixels, labels = {}, {}
    for split in ("train", "val"):
        paths = sorted((full_set / split).rglob("*.jpg"))
        small = [
            cv2.resize(cv2.imread(str(path), mode), (32, 32), interpolation=cv2.INTER_AREA)
            for path in paths
        ]
        pixels[split] = np.reshape(small, (len(paths), -1)).astype(np.float32)
        labels[split] = [shapes.CLASSES.index(path.parent.name) for path in paths]
    mean, deviation = pixels["train"].mean(0), pixels["train"].std(0)
    train, val = ((pixels[split] - mean) / deviation for split in ("train", "val"))
    # Ridge regression on one-hot classes, in its dual form: 2,000 images are fewer than the pixels.
    one_hot = np.eye(10, dtype=np.float32)[labels["train"]]
    gram = train @ train.T
    for strength in (1e4, 1e5):
        scores = val @ (train.T @ np.linalg.solve(gram + strength * np.eye(len(gram)), one_hot))
        top1 = np.mean(scores.argmax(1) == labels["val"])
        # It scores 25 to 29 %. If the object were always lighter, it would score 41 to 44 %.
        assert top1 < 0.35, f"top-1 {top1:.3f} on {colors} pixels with strength {strength}"
