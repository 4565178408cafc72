"""Numbers of things in words."""

from input_pipeline.wording import counted


def test_one_and_many():
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(n, "class") for n in (1, 100)] == ["1 class", "100 classes"]
