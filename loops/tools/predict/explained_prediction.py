"""Explains the prediction of one image as pixels and captions.

`html_report` and `figure` decide on the layout.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import TypedDict

import cv2
import numpy as np
import tensorflow as tf

from input_pipeline import datasets
from input_pipeline.augmentation import batch_augment, crops
from input_pipeline.text import pluralize
from loops.metrics import classification
from loops.tools.predict import ensemble, explain, overlays, seam_carving, views

# Larger images are shown with this long side, in pixels.
_MAX_PICTURE_SIDE = 640
# Side of the occluding patch as a fraction of the view, about as in Zeiler & Fergus.
_PATCH_FRACTION = 0.25

# A class of a prediction: its folder name or WordNet id, its readable name, its probability.
ClassProbability = TypedDict("ClassProbability", {"class": str, "name": str, "probability": float})


@dataclasses.dataclass(frozen=True)
class Panel:
    """A small image with a title and a note below it."""

    pixels: np.ndarray  # uint8 [h, w, 3], RGB
    title: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class ModelExplanation:
    """The prediction of one net: its name, its top classes, its views and its heat maps."""

    name: str
    top: list[ClassProbability]
    views: list[Panel]
    heat_maps: list[Panel]


@dataclasses.dataclass(frozen=True)
class ExplainedPrediction:
    """The prediction of one image by one net or several.

    Attributes:
      path: path of the file.
      picture: uint8 [h, w, 3], the image, made smaller if it is large.
      size: height and width of the file in pixels.
      top: the most probable classes, averaged over the nets.
      model_explanations: one for each net.
      carving: the steps of seam carving, and plain resizing for comparison; empty for a square.
      true_class: see `find_true_class`.
    """

    path: str
    picture: np.ndarray
    size: tuple[int, int]
    top: list[ClassProbability]
    model_explanations: list[ModelExplanation]
    carving: list[Panel]
    true_class: str | None = None

    @property
    def verdict(self) -> str:
        """Returns "right", "wrong", or "" if the true class is not known."""
        if self.true_class is None:
            return ""
        return "right" if self.top[0]["class"] == self.true_class else "wrong"


def find_true_class(path: str, class_names: Sequence[str]) -> str | None:
    """Returns the name of the image's folder if it is one of the classes, otherwise None."""
    name = os.path.basename(os.path.dirname(os.path.abspath(path)))
    return name if name in class_names else None


def top_classes(
    probabilities: np.ndarray, class_names: Sequence[str], max_classes: int
) -> list[ClassProbability]:
    """Returns the most probable classes of one image in descending order.

    Args:
      probabilities: float [C].
      class_names: C names.
      max_classes: number of classes to return.
    """
    order = np.argsort(-probabilities, kind="stable")[:max_classes]
    return [
        {
            "class": class_names[i],
            "name": datasets.display_name(class_names[i]),
            "probability": float(probabilities[i]),
        }
        for i in order
    ]


def explain_image(
    nets: ensemble.Ensemble, path: str, logits: np.ndarray, max_classes: int
) -> ExplainedPrediction:
    """Explains the prediction of one image.

    Args:
      nets: the nets that predicted the image.
      path: path of the image file.
      logits: float32 [M, V, C] from `Ensemble.predict`.
      max_classes: number of classes to show.
    """
    image = views.decode_file(path, nets.predictors[0].preprocessing.exif)
    probabilities = classification.probabilities(logits[:, None])[0]
    class_index = int(np.argmax(probabilities))
    model_explanations = [
        _explain_model(predictor, image, net_logits, nets.class_names, max_classes, class_index)
        for predictor, net_logits in zip(nets.predictors, logits, strict=True)
    ]
    return ExplainedPrediction(
        path=path,
        picture=shrink_to_fit(image.numpy(), _MAX_PICTURE_SIDE),
        size=tuple(image.shape[:2]),
        top=top_classes(probabilities, nets.class_names, max_classes),
        model_explanations=model_explanations,
        carving=_make_seam_carving_panels(image, nets.predictors[0].preprocessing),
        true_class=find_true_class(path, nets.class_names),
    )


def _explain_model(
    predictor: ensemble.Predictor,
    image: tf.Tensor,
    logits: np.ndarray,
    class_names: Sequence[str],
    max_classes: int,
    class_index: int,
) -> ModelExplanation:
    """Explains the prediction of one net, given its logits [V, C]."""
    preprocessing = predictor.preprocessing
    pixels = views.preprocess_image(image, preprocessing).numpy()
    view_probabilities = classification.probabilities(logits[None, :, None])  # [V, C]
    panels = []
    for view, name, probabilities in zip(
        pixels, preprocessing.view_names, view_probabilities, strict=True
    ):
        (top1,) = top_classes(probabilities, class_names, 1)
        percent = overlays.format_percent(top1["probability"])
        panels.append(Panel(view, name, f"{top1['name']} {percent}"))
    return ModelExplanation(
        name=f"{predictor.record.config.net.model}, {predictor.step_dir}",
        top=top_classes(view_probabilities.mean(axis=0), class_names, max_classes),
        views=panels,
        heat_maps=_make_heat_map_panels(
            predictor, pixels[preprocessing.view_names.index("center")], class_names, class_index
        ),
    )


def _make_heat_map_panels(
    predictor: ensemble.Predictor, view: np.ndarray, class_names: Sequence[str], class_index: int
) -> list[Panel]:
    """Makes the panels of the center view, its Grad-CAM and its occlusion map."""
    data, size = predictor.config.data, len(view)
    name = datasets.display_name(class_names[class_index])
    images = batch_augment.normalize(tf.constant(view[None]), data.mean, data.std)
    (cam,) = predictor.grad_cam(images, class_index)
    window = max(1, round(_PATCH_FRACTION * size))
    drop, starts = explain.occlusion(predictor.float32_logits, view, class_index, window, data.mean)
    pixel_drop = explain.project_to_pixels(drop, starts, window, size)
    max_drop = max(0.0, float(drop.max()))
    cam_note = f"{cam.shape[0]} × {cam.shape[1]} map" if cam.max() > 0 else "no positive evidence"
    return [
        Panel(view, "center view", f"explained class: {name}"),
        Panel(overlays.draw_heat_map(view, cam), "Grad-CAM", cam_note),
        Panel(
            overlays.draw_heat_map(view, np.maximum(pixel_drop, 0)),
            "occlusion",
            f"a patch lowers the probability by up to {100 * max_drop:.1f} points",
        ),
    ]


def _make_seam_carving_panels(image: tf.Tensor, preprocessing: views.Preprocessing) -> list[Panel]:
    """Makes the panels of seam carving, and of plain resizing to the same square.

    There are none for an image from which no seam is removed.
    """
    size, interpolation = preprocessing.size, preprocessing.interpolation
    resized = seam_carving.resize_short_side(image, size, interpolation).numpy()
    num_seams = max(resized.shape[:2]) - size
    if not num_seams:
        return []
    removed = seam_carving.find_removed_pixels(resized, size)
    plain = crops.resize(image, size, size, interpolation).numpy()
    for_comparison = "for comparison, not a view"
    return [
        Panel(
            overlays.highlight_pixels(resized, removed),
            "seams to remove",
            pluralize(num_seams, "seam"),
        ),
        Panel(
            seam_carving.carve(resized, size),
            "seam carving",
            "one of the views" if preprocessing.seam_carving else for_comparison,
        ),
        Panel(plain, "plain resizing", for_comparison),
    ]


def shrink_to_fit(image: np.ndarray, max_side: int) -> np.ndarray:
    """Shrinks uint8 [H, W, 3] so that no side is longer than `max_side`."""
    scale = max_side / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
