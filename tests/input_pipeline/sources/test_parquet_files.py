"""Reading single images of Parquet files of every compression, with values written by pyarrow."""

import json

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.config import DataConfig
from input_pipeline.errors import DataError
from input_pipeline.sources import packed_images, parquet_files, source

pyarrow = pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
parquet = pytest.importorskip("pyarrow.parquet")


def _images():
    """Random, repetitive and empty values of several sizes; two are equal."""
    rng = np.random.default_rng(3)
    values = [rng.bytes(size) for size in (1, 50_000, 65_536, 131_072, 200_000, 7, 90_001)]
    values += [b"abcdefgh" * 20_000, values[1], b"", rng.bytes(40_000), bytes(100_000)]
    return values


def _write(path, images, **options):
    rows = {
        "image": [{"bytes": data, "path": f"{k}.jpg"} for k, data in enumerate(images)],
        "label": [k % 3 for k in range(len(images))],
    }
    parquet.write_table(pyarrow.table(rows), path, row_group_size=5, **options)


@pytest.mark.parametrize(
    ("options", "fewest_alone"),
    [
        ({"compression": "snappy"}, 8),
        ({"compression": "snappy", "use_dictionary": False}, 8),
        ({"compression": "none"}, 11),
        ({"compression": "zstd"}, 0),
        ({"compression": "snappy", "data_page_version": "2.0"}, 0),
    ],
)
def test_each_row_has_the_bytes_that_were_written(tmp_path, options, fewest_alone):
    images, path = _images(), tmp_path / "train.parquet"
    _write(path, images, **options)
    columns = parquet_files.find_columns(path)
    assert columns == ("image.bytes", "image.path", "label", ())
    rows = parquet_files.list_rows(path, columns)
    assert [(row.name, row.number) for row in rows] == [(f"{k}.jpg", k % 3) for k in range(12)]
    storage = f"{packed_images.PARQUET}:{columns.image}"
    for row, image in zip(rows, images, strict=True):
        data = packed_images.read_image(storage, str(path), row.offset, row.size, row.place)
        assert data == image
        if row.place[0] >= 0:
            stored = path.read_bytes()[row.offset : row.offset + row.size]
            in_graph = parquet_files.extract_in_graph(tf.constant(stored), tf.constant(row.place))
            assert in_graph.numpy() == image
    alone = [row for row in rows if row.place[0] >= 0]
    assert len(alone) >= fewest_alone
    # A row that is read alone reads at most one block more at each of its ends.
    assert all(row.size < row.place[2] + 3 * 65_536 for row in alone)


def test_damaged_image_is_not_returned(tmp_path):
    path = tmp_path / "train.parquet"
    _write(path, [np.random.default_rng(0).bytes(100_000)], compression="snappy")
    (row,) = parquet_files.list_rows(path, parquet_files.find_columns(path))
    data = path.read_bytes()
    path.write_bytes(data[: row.offset] + bytes(20) + data[row.offset + 20 :])
    with pytest.raises(DataError, match=r"train\.parquet: is damaged at byte"):
        parquet_files.read_image(str(path), row.offset, row.size, row.place, "image.bytes")


def test_damaged_row_group_is_named(tmp_path):
    path = tmp_path / "train.parquet"
    _write(path, [np.random.default_rng(0).bytes(100_000)], compression="zstd")
    (row,) = parquet_files.list_rows(path, parquet_files.find_columns(path))
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes(50_000) + data[50_004:])
    with pytest.raises(DataError, match=r"train\.parquet: is damaged in row group 0"):
        parquet_files.read_image(str(path), row.offset, row.size, row.place, "image.bytes")


def test_other_columns_are_named(tmp_path):
    parquet.write_table(pyarrow.table({"text": ["a"], "label": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"no column of images .* it has text \(BYTE_ARRAY\)"):
        parquet_files.find_columns(tmp_path / "a.parquet")


@pytest.mark.parametrize("names", [["b"], "abc", [1, 2], [["a"]], {"a": 1}, None, ["\ud800", "b"]])
def test_wrong_class_names_of_a_file_are_not_used(tmp_path, names):
    facts = json.dumps({"info": {"features": {"label": {"names": names}}}})
    table = pyarrow.table({"image": [b"a", b"b", b"c"], "label": [0, 1, -1]})
    table = table.replace_schema_metadata({"huggingface": facts})
    parquet.write_table(table, tmp_path / "train.parquet")
    columns = parquet_files.find_columns(tmp_path / "train.parquet")
    assert columns.class_names == (("b",) if names == ["b"] else ())
    config = DataConfig(dataset="folder", data_dir=str(tmp_path))
    if names == ["b"]:  # number 1 has no name
        with pytest.raises(DataError, match="has class number 1, but there are 1 classes"):
            source.open_split(config, "train")
        return
    split = source.open_split(config, "train")
    assert split.class_names == ("0", "1") and split.labels.tolist() == [0, 1]


def test_class_number_without_a_name_is_not_a_class(tmp_path):
    """-1 is no label, and is not the last name either."""
    facts = json.dumps({"info": {"features": {"label": {"names": ["n01443537", "n01440764"]}}}})
    table = pyarrow.table({"image": [b"a", b"b", b"c"], "label": [0, 1, -1]})
    table = table.replace_schema_metadata({"huggingface": facts})
    parquet.write_table(table, tmp_path / "train.parquet")
    config = DataConfig(dataset="ilsvrc2012", data_dir=str(tmp_path))
    assert source.open_split(config, "train").labels.tolist() == [0, 1]
    table = table.set_column(1, "label", [[0, 1, 2]])
    parquet.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(DataError, match="has class number 2"):
        source.open_split(config, "train")


@pytest.mark.parametrize("seed", range(3))
def test_damaged_pages_are_data_errors(tmp_path, seed):
    path = tmp_path / "train.parquet"
    _write(path, _images(), compression="snappy")
    columns = parquet_files.find_columns(path)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    rng = np.random.default_rng(seed)
    for position in range(4, 60, 4):  # in the headers of the first pages
        damaged = data.copy()
        damaged[position : position + 4] = rng.integers(0, 256, 4)
        path.write_bytes(damaged.tobytes())
        try:
            rows = parquet_files.list_rows(path, columns)
        except DataError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        else:
            assert len(rows) == 12
