"""Test sets: the severities of ImageNet-C, and accuracy among the classes that a set has."""

import numpy as np
import pytest

from loops.evaluation import test_sets
from tests.input_pipeline.files import put


def test_severities_of_imagenet_c_are_found_at_any_depth(tmp_path):
    for name in ("blur/defocus_blur", "noise/gaussian_noise", "extra"):
        for severity in (1, 2, 5):
            put(tmp_path / "c" / name / str(severity) / "n01440764" / "1.JPEG")
    found = test_sets.find(str(tmp_path / "c"))
    names = [f"{name} {k}" for name in ("defocus_blur", "extra", "gaussian_noise") for k in "125"]
    assert sorted(test_set.name for test_set in found) == names
    assert [s.name for s in test_sets.find(str(tmp_path / "c/extra"))] == [
        *("extra 1", "extra 2", "extra 5")
    ]


@pytest.mark.parametrize("names", [("0", "1", "2"), ("1", "2"), ("n01440764",)])
def test_other_class_folders_are_one_set(tmp_path, names):
    """ImageNet-V2 has the folders 0 to 999 of images."""
    for name in names:
        put(tmp_path / "v2" / name / "1.jpeg")
    (found,) = test_sets.find(str(tmp_path / "v2"))
    assert (found.name, found.folder, found.corruption) == ("v2", str(tmp_path / "v2"), "")


def test_accuracy_among_present_classes():
    # Class 1 is not in the set. It wins for the first image, which then is right without it.
    probs = np.array([[0.3, 0.5, 0.2], [0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    results = test_sets.score_present_classes(probs, np.array([0, 2, 2]), (1,))
    assert results["num_present_classes"] == 2
    assert results["present_top1"] == pytest.approx(2 / 3)
    low, high = (results[f"present_top1_{end}"] for end in ("low", "high"))
    assert low == pytest.approx(0.2077, abs=1e-4) and high == pytest.approx(0.9385, abs=1e-4)


def test_mean_of_severities_has_the_interval_of_paired_images():
    # Every image is right at two of four severities: the mean does not vary between images.
    correct = [np.array([k, 1 - k] * 10, bool) for k in (0, 1, 0, 1)]
    mean = test_sets.average_severities("fog", correct)
    assert mean["name"] == "fog, mean of 4"
    assert (mean["top1"], mean["top1_low"], mean["top1_high"]) == (0.5, 0.5, 0.5)
    assert "top1_low" not in test_sets.average_severities("fog", [correct[0], correct[1][:4]])
