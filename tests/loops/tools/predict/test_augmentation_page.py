"""The page of augmented images: its rows, their images, and the file."""

import numpy as np
import pytest

from input_pipeline.augmentation import rand_augment
from loops.config import resolve
from loops.tools.predict import augmentation_page
from tests.command_line import parse, refusal

AUGMENT = "vflip(1),randaugment(1,5),erasing(1),mixup(1)"


@pytest.fixture(scope="module")
def words(tiny_folder):
    data = ["--dataset=folder", f"--data_dir={tiny_folder}", "--image_size=32"]
    return ["--mode=preview", *data, f"--augment={AUGMENT}"]


@pytest.fixture(scope="module")
def rows(words):
    return list(augmentation_page._make_rows(resolve.resolve_training(parse(*words))))


def test_there_is_a_row_for_each_operation_and_rows_with_all(rows, tiny_folder):
    operations = [name for name in rand_augment.OPERATIONS if name != "identity"]
    assert [row.title for row in rows] == [
        *("crop and flip", "vflip", *operations, "erasing", "mixup"),
        *["all of them"] * 6,
    ]
    classes = {folder.name for folder in (tiny_folder / "train").iterdir()}
    for row in rows:
        original, *draws = row.panels
        assert original.note == "original" and original.title in classes
        assert [draw.pixels.shape for draw in draws] == [(32, 32, 3)] * 4


def test_each_row_shows_its_operation_only(rows):
    by_title = {row.title: [panel.pixels.astype(int) for panel in row.panels] for row in rows}
    _, first, *others = by_title["vflip"]
    assert all(np.array_equal(first, other) for other in others)  # no crop, no other operation
    _, *erased = by_title["erasing"]
    assert all(np.any(erased[0] != other) for other in erased[1:])
    stack = np.stack(erased)
    # Boxes of at most a third of the image: the median of four draws is mostly the image itself.
    changed = np.any(stack != np.median(stack, axis=0), axis=-1).mean((1, 2))
    assert changed.min() > 0.01 and changed.max() < 0.8
    (mixup,) = (row for row in rows if row.title == "mixup")
    assert any("%" in panel.title for panel in mixup.panels[1:])


def test_the_page_is_one_file(words, tmp_path, capsys):
    path = tmp_path / "page.html"
    augmentation_page.run(parse(*words, f"--report={path}"))
    text = path.read_text()
    assert text.count("<article>") == 23 and text.count("data:image/png;base64,") > 23 * 4
    assert "http" not in text.replace("http-equiv", "") and "<script" not in text
    assert str(path) in capsys.readouterr().out
    assert "--report is missing" in refusal(augmentation_page.run, parse(*words))
