"""Training input: reports of images that do not decode."""

import re
import shutil

import pytest

from input_pipeline import pipeline
from input_pipeline.config import DataConfig
from input_pipeline.errors import DataError
from input_pipeline.sources import source
from loops.train_input import TrainInput


def test_unreadable_image_is_searched_for_once(
    tiny_folder, tmp_path, one_device, monkeypatch, caplog
):
    """A search decodes all images of the steps while training waits, so later epochs skip it."""
    folder = tmp_path / "data"
    shutil.copytree(tiny_folder, folder)
    bad = sorted((folder / "train").glob("*/*"))[4]
    bad.write_bytes(bad.read_bytes()[:100])
    config = DataConfig(dataset="folder", data_dir=str(folder), image_size=32, batch_size=1)
    train_input = TrainInput(one_device, source.open_split(config, "train"), config, seed=1)
    searches = []
    find = pipeline.find_first_unreadable
    monkeypatch.setattr(
        pipeline, "find_first_unreadable", lambda *args: searches.append(args[1]) or find(*args)
    )
    monkeypatch.setattr("loops.train_input.MAX_REPLACED_FRACTION", 0.05)
    epoch = 23  # steps, of one image each
    for number in range(3):
        train_input.report_replaced_images(number * epoch, (number + 1) * epoch, number + 1, 1)
    assert len(re.findall(rf"replaced .*{bad.name}: ", caplog.text)) == 1
    assert len(searches) == 1 and len(searches[0]) == epoch
    with pytest.raises(DataError, match=rf"5 of 92 training samples do not decode.*{bad.name}"):
        train_input.report_replaced_images(3 * epoch, 4 * epoch, 5, 1)
