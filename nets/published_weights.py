"""Published accuracies of weights that can be imported.

They are those of `results/results-imagenet.csv` of huggingface/pytorch-image-models at aa4b585: the
50,000 validation images of ILSVRC 2012, center crop.
"""

from typing import NamedTuple


class Figure(NamedTuple):
    """A published accuracy.

    Attributes:
      image_size: side of the crop in pixels.
      crop_fraction: the short side of the resized image is image_size / crop_fraction, rounded
        down.
      interpolation: of the resize.
      top1, top5: accuracies as fractions.
    """

    image_size: int
    crop_fraction: float
    interpolation: str
    top1: float
    top5: float


class PublishedWeights(NamedTuple):
    """Weights on the Hugging Face Hub.

    Attributes:
      repository: name of the repository.
      model: our name of the net.
      figures: the accuracies, first the one at the size of the card.
      license: as on the card.
    """

    repository: str
    model: str
    figures: tuple[Figure, ...]
    license: str = "Apache-2.0"


def _make(
    name: str,
    model: str,
    top1: float,
    top5: float,
    crop: str = "0.95 bicubic",
    larger: tuple[float, float, float] | None = None,
    license_name: str = "Apache-2.0",
) -> PublishedWeights:
    """Makes an entry from percentages at 224 px, and (top-1, top-5, crop fraction) at 288 px."""
    fraction, interpolation = crop.split()
    rows = [(224, float(fraction), top1, top5)]
    if larger is not None:
        rows.append((288, larger[2], *larger[:2]))
    # Percentages have three decimals. 81.24 / 100 must not become 0.8123999.
    figures = [
        Figure(size, crop_fraction, interpolation, round(top1 / 100, 5), round(top5 / 100, 5))
        for size, crop_fraction, top1, top5 in rows
    ]
    return PublishedWeights(f"timm/{name}", model, tuple(figures), license_name)


_BILINEAR, _BILINEAR_V2 = "0.875 bilinear", "0.965 bilinear"
_TORCHVISION, _NON_COMMERCIAL = "BSD-3-Clause", "CC-BY-NC-4.0"
TABLE = (
    _make("resnet18.a1_in1k", "resnet_18", 71.504, 90.086, larger=(73.164, 91.054, 1.0)),
    _make("resnet18.tv_in1k", "resnet_18", 69.752, 89.082, _BILINEAR, None, _TORCHVISION),
    _make(
        *("resnet18.fb_swsl_ig1b_ft_in1k", "resnet_18", 73.286, 91.754),
        *(_BILINEAR, None, _NON_COMMERCIAL),
    ),
    _make("resnet34.a1_in1k", "resnet_34", 76.420, 92.896, larger=(77.930, 93.758, 1.0)),
    _make("resnet34.tv_in1k", "resnet_34", 73.298, 91.422, _BILINEAR, None, _TORCHVISION),
    _make(
        *("resnet34.ra4_e3600_r224_in1k", "resnet_34", 77.492, 93.498),
        *("0.9 bicubic", (78.972, 94.454, 1.0)),
    ),
    _make("resnet50.a1_in1k", "resnet_50", 80.382, 94.598, larger=(81.240, 95.112, 1.0)),
    _make("resnet50.a2_in1k", "resnet_50", 79.828, 94.560, larger=(80.774, 94.978, 1.0)),
    _make("resnet50.a3_in1k", "resnet_50", 78.052, 93.780),
    _make("resnet50.a1h_in1k", "resnet_50", 80.654, 95.312, "1.0 bicubic"),
    _make("resnet50.tv_in1k", "resnet_50", 76.156, 92.866, _BILINEAR, None, _TORCHVISION),
    _make("resnet50.tv2_in1k", "resnet_50", 80.846, 95.430, _BILINEAR_V2, None, _TORCHVISION),
    _make("resnet50.gluon_in1k", "resnet_50", 77.580, 93.704, "0.875 bicubic"),
    _make(
        *("resnet50.ram_in1k", "resnet_50", 79.034, 94.386),
        *("0.875 bicubic", (79.982, 95.038, 0.95)),
    ),
    _make(
        *("resnet50.fb_swsl_ig1b_ft_in1k", "resnet_50", 81.146, 95.980),
        *(_BILINEAR, None, _NON_COMMERCIAL),
    ),
    _make("resnet101.a1h_in1k", "resnet_101", 81.950, 95.760, larger=(82.796, 96.324, 1.0)),
    _make("resnet101.tv2_in1k", "resnet_101", 81.906, 95.768, _BILINEAR_V2, None, _TORCHVISION),
    _make("resnet101.a1_in1k", "resnet_101", 81.494, 95.164, larger=(82.326, 95.630, 1.0)),
    _make("resnet152.a1h_in1k", "resnet_152", 82.818, 96.124, larger=(83.494, 96.522, 1.0)),
    _make("resnet152.tv2_in1k", "resnet_152", 82.294, 96.000, _BILINEAR_V2, None, _TORCHVISION),
    _make(
        *("seresnet50.ra2_in1k", "resnetse_50", 80.260, 95.068),
        *("0.875 bicubic", (81.288, 95.652, 0.95)),
    ),
    _make("seresnet50.a1_in1k", "resnetse_50", 80.012, 94.704, larger=(81.114, 95.122, 1.0)),
    _make("resnetv2_50.a1h_in1k", "resnetv2_50", 80.410, 95.082, larger=(81.406, 95.712, 1.0)),
    _make("resnetv2_101.a1h_in1k", "resnetv2_101", 82.042, 95.866, larger=(83.002, 96.444, 1.0)),
    _make(
        *("resnetv2_18.ra4_e3600_r224_in1k", "resnetv2_18", 73.572, 91.356),
        *("0.9 bicubic", (75.364, 92.692, 1.0)),
    ),
    _make(
        *("resnetv2_34.ra4_e3600_r224_in1k", "resnetv2_34", 77.626, 93.518),
        *("0.9 bicubic", (79.070, 94.560, 1.0)),
    ),
)


def find(repository: str) -> PublishedWeights | None:
    """Returns the entry of a repository, or None."""
    return next((entry for entry in TABLE if entry.repository == repository), None)
