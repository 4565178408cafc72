"""Timing of the input pipeline's stages."""

import shutil

import pytest

from input_pipeline.errors import DataError
from input_pipeline.sources import source
from loops.tools.benchmark import input_stages
from tests.command_line import resolve


def test_error_names_an_image_that_does_not_decode(tiny_folder, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(tiny_folder, folder)
    bad = sorted((folder / "train").glob("*/*"))[4]
    bad.write_bytes(bad.read_bytes()[:100])
    words = ("--dataset=folder", f"--data_dir={folder}", "--image_size=32", "--batch_size=23")
    data = resolve(*words).data
    with pytest.raises(DataError, match=f"{bad.name} does not decode: .*stages cannot be timed"):
        input_stages.measure(source.open_split(data, "train"), data, 0, 0.01)
