"""Lists parsed all at once: what a plain loop over the lines says, for odd lines too."""

import codecs
import os
import random

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.errors import DataError
from input_pipeline.sources import image_files, image_folders, path_table


def _by_lines(data):
    rows = [line.rpartition(b" ") for line in data.removesuffix(b"\n").split(b"\n")]
    return [path.decode() for path, _, _ in rows], [int(label) for _, _, label in rows]


def test_random_lists_equal_a_loop_over_lines():
    rng = random.Random(0)
    letters = "ab/. 7é"
    for _ in range(200):
        lines = []
        for _ in range(rng.randrange(1, 9)):
            name = "".join(rng.choice(letters) for _ in range(rng.randrange(0, 9))) + "x"
            lines.append(f"{name} {rng.choice([0, 7, 10, 99, 100, 1234567, 9999999])}")
        data = "\n".join(lines).encode() + rng.choice([b"", b"\n"])
        table, labels = path_table.parse(data)
        assert (list(table), labels.tolist()) == _by_lines(data), data
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
def test_a_line_of_another_form_is_left_to_the_slow_way(line, place):
    lines = ["a 1", "b 2"]
    lines.insert(place, line)
    assert path_table.parse("\n".join([*lines, ""]).encode()) is None


def test_the_path_of_an_index_in_the_graph(tmp_path):
    """TensorFlow would read `root/../b.jpg` beside a link, not beside where it leads."""
    names = ["b.jpg", "/absolute/c.jpg", "ü/d e.jpg"]
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "root")
    path = path_table.from_names(names, [0, 1, 12345]).make_lookup(f"{tmp_path}/link/")
    dataset = tf.data.Dataset.range(3).map(path)
    found = [name.decode() for name in dataset.as_numpy_iterator()]
    root = os.path.realpath(tmp_path / "root")
    assert found == [f"{root}/b.jpg", "/absolute/c.jpg", f"{root}/ü/d e.jpg"]


def test_a_byte_order_mark_is_no_part_of_the_first_path(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(codecs.BOM_UTF8 + b"a.jpg 3\n")
    table, labels = image_files.parse_list(str(path), "--train_list")
    assert list(table) == ["a.jpg"] and labels.tolist() == [3]


def test_a_label_beyond_reason_is_named(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.jpg 3\nb.jpg 1000001\n")
    with pytest.raises(DataError, match="line 2: label 1000001"):
        image_files.parse_list(str(path), "--train_list")


def test_files_that_macos_leaves_are_no_images():
    names = ["._a.jpg", "a.jpg", "_b.png", ".c.jpg"]
    assert [image_folders.is_image_name(n) for n in names] == [False, True, True, True]


def test_a_long_list():
    number = 200_000
    data = b"".join(b"n%08d/%d.JPEG %d\n" % (k, k, k % 1000) for k in range(number))
    table, labels = path_table.parse(data)
    assert len(table) == number and table[-1] == "n00199999/199999.JPEG"
    np.testing.assert_array_equal(labels, np.arange(number) % 1000)
