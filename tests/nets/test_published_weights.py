"""Tests the table of published accuracies."""

import pathlib
import re

from nets import published_weights, registry, torch_names

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "pretrained.md"


def test_entries_are_unique_nets_that_can_be_imported():
    repositories = [entry.repository for entry in published_weights.TABLE]
    assert len(set(repositories)) == len(repositories) == 26
    for entry in published_weights.TABLE:
        timm_name = entry.repository.removeprefix("timm/")
        assert torch_names.find_model(timm_name) == entry.model
        assert entry.model in registry.names()


def test_figures_are_plausible():
    """A larger test image gains 0.6 to 2 points, and deeper nets of one recipe are better."""
    for entry in published_weights.TABLE:
        assert [f.image_size for f in entry.figures] in ([224], [224, 288])
        tops = [f.top1 for f in entry.figures]
        assert tops == sorted(tops) and max(tops) - min(tops) < 0.02
        assert all(0.69 < f.top1 < 0.84 and 0.89 < f.top5 < 0.966 for f in entry.figures)
    a1 = [published_weights.find(f"timm/resnet{n}.a1_in1k").figures[0] for n in (18, 34, 50, 101)]
    assert [f.top1 for f in a1] == sorted(f.top1 for f in a1)
    assert published_weights.find("timm/other") is None


def test_some_figures_are_those_of_timm():
    """Read from timm's table by hand."""
    figure = published_weights.find("timm/resnet50.a1_in1k").figures[1]
    assert figure == (288, 1.0, "bicubic", 0.8124, 0.95112)
    figure = published_weights.find("timm/resnet50.tv2_in1k").figures[0]
    assert figure == (224, 0.965, "bilinear", 0.80846, 0.9543)


def test_the_page_shows_the_table():
    rows = re.findall(r"^\| `(timm/\S+)` \| (.*) \|$", DOCS.read_text(), re.MULTILINE)
    expected = []
    for entry in published_weights.TABLE:
        cells = [f"`{entry.model}`"]
        for figure in entry.figures:
            text = f"{100 * figure.top1:.2f} / {100 * figure.top5:.2f}"
            cells.append(f"{text}, {figure.crop_fraction:g} {figure.interpolation}")
        cells += ["–"] * (3 - len(cells))
        expected.append((entry.repository, " | ".join([*cells, entry.license])))
    assert rows == expected
