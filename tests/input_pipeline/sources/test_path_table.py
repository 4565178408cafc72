"""The vectorized list parser equals a loop over the lines, also for unusual lines."""

import codecs
import os
import random

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.errors import DataError
from input_pipeline.sources import image_files, image_folders, path_table


def _parse_in_loop(data):
    parts = [line.rpartition(b" ") for line in data.removesuffix(b"\n").split(b"\n")]
    return [path.decode() for path, _, _ in parts], [int(label) for _, _, label in parts]


def test_parse_of_random_lists_equals_loop():
    rng = random.Random(0)
    letters = "ab/. 7é"
    for _ in range(200):
        lines = []
        for _ in range(rng.randrange(1, 9)):
            name = "".join(rng.choice(letters) for _ in range(rng.randrange(0, 9))) + "x"
            lines.append(f"{name} {rng.choice([0, 7, 10, 99, 100, 1234567, 9999999])}")
        data = "\n".join(lines).encode() + rng.choice([b"", b"\n"])
        table, labels = path_table.parse(data)
        assert (list(table), labels.tolist()) == _parse_in_loop(data), data
        again = path_table.from_names(list(table), labels.tolist())
        assert again.lines == table.lines and list(again) == list(table)


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "x ",
        "x y",
        " 7",
        "7",
        "",
        "x  7",
        "x 07",
        "x 7 ",
        "x -1",
        "x 1.5",
        "x 12345678",
        "x\t7",
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_parse_returns_none_for_unusual_line(line, place):
    lines = ["a 1", "b 2"]
    lines.insert(place, line)
    assert path_table.parse("\n".join([*lines, ""]).encode()) is None


def test_lookup_of_path_in_graph(tmp_path):
    """Links in the root are resolved, because TensorFlow would misread `link/../b.jpg`."""
    names = ["b.jpg", "/absolute/c.jpg", "ü/d e.jpg"]
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "root")
    path = path_table.from_names(names, [0, 1, 12345]).make_lookup(f"{tmp_path}/link/")
    dataset = tf.data.Dataset.range(3).map(path)
    paths = [name.decode() for name in dataset.as_numpy_iterator()]
    root = os.path.realpath(tmp_path / "root")
    assert paths == [f"{root}/b.jpg", "/absolute/c.jpg", f"{root}/ü/d e.jpg"]


def test_byte_order_mark_is_removed(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(codecs.BOM_UTF8 + b"a.jpg 3\n")
    table, labels = image_files.parse_list(str(path), "--train_list")
    assert list(table) == ["a.jpg"] and labels.tolist() == [3]


def test_error_names_implausibly_large_label(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.jpg 3\nb.jpg 1000001\n")
    with pytest.raises(DataError, match="line 2: label 1000001"):
        image_files.parse_list(str(path), "--train_list")


def test_macos_metadata_files_are_not_images():
    names = ["._a.jpg", "a.jpg", "_b.png", ".c.jpg"]
    assert [image_folders.is_image_name(n) for n in names] == [False, True, True, True]


def test_parse_of_long_list():
    num_lines = 200_000
    data = b"".join(b"n%08d/%d.JPEG %d\n" % (k, k, k % 1000) for k in range(num_lines))
    table, labels = path_table.parse(data)
    assert len(table) == num_lines and table[-1] == "n00199999/199999.JPEG"
    np.testing.assert_array_equal(labels, np.arange(num_lines) % 1000)
