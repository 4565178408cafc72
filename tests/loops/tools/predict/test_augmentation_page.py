"""The page of augmented images: its rows, their images, and the file."""

import numpy as np
import pytest

from input_pipeline.augmentation import rand_augment
from loops.config import resolve
from loops.tools.predict import augmentation_page
from tests.command_line import parse

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


OWN = """
from input_pipeline.augmentation import augmentations

@augmentations.image
def invert(image, draws):
    return 255 - image

@augmentations.batch
def dark(images, draws, low, high=1.0):
    return images * (low + (high - low) * draws.uniform(1)[:, :, None, None])
"""


def test_functions_of_files_have_rows(words, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    own = f"--augment=none,{tmp_path}/own.py:dark(0,high=0.5),{tmp_path}/own.py:invert"
    rows = list(augmentation_page._make_rows(resolve.resolve_training(parse(*words[:-1], own))))
    plain, invert, dark, *together = rows
    assert [row.title for row in rows[1:3]] == ["invert", "dark"] and len(together) == 6
    assert [invert.note, dark.note] == ["own.py:invert", "own.py:dark(low=0,high=0.5)"]
    for row in (invert, dark):
        assert {panel.pixels.shape for panel in row.panels[1:]} == {(32, 32, 3)}
    means = [panel.pixels.mean() for panel in dark.panels[1:]]
    assert len(set(means)) == 4 and max(means) < 127
    first = [panel.pixels for panel in invert.panels[1:]]
    assert all(np.array_equal(first[0], other) for other in first[1:])
    assert plain.panels[1].pixels.dtype == np.uint8


def test_the_page_is_one_file(words, tmp_path, capsys):
    path = tmp_path / "page.html"
    augmentation_page.run(parse(*words, f"--report={path}"))
    text = path.read_text()
    assert text.count("<article>") == 23 and text.count("data:image/png;base64,") > 23 * 4
    assert "http" not in text.replace("http-equiv", "") and "<script" not in text
    assert str(path) in capsys.readouterr().out
