"""All there is to show of one predicted picture, as pixels and captions.

How it is laid out is not decided here: see `page` for HTML and `figure` for one image.
"""

import dataclasses

import cv2
import numpy as np
import tensorflow as tf

from input_pipeline import datasets
from input_pipeline.augmentation import batch_augment, crops
from input_pipeline.text import pluralize
from loops.metrics import classification
from loops.tools.predict import explain, overlays, seam_carving, views

# Long side in pixels up to which the picture itself is shown.
_MAX_PICTURE_SIDE = 640
# Side of the patch of an occlusion map over that of the view, about Zeiler and Fergus's.
_PATCH_FRACTION = 0.25


@dataclasses.dataclass(frozen=True)
class Panel:
    """A small image with a title under it and, below that, a note."""

    pixels: np.ndarray  # uint8 [h, w, 3], RGB
    title: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class ModelExplanation:
    """How one net sees the picture: its name, its best classes, its views, its heat maps."""

    name: str
    top: list
    views: list
    heat_maps: list


@dataclasses.dataclass(frozen=True)
class ExplainedPrediction:
    """One picture: its path, itself, the best classes of all nets, their looks, the carving."""

    path: str
    picture: np.ndarray
    size: tuple  # height and width of the file's pixels
    top: list
    model_explanations: list
    carving: list


def top_classes(probabilities, class_names, most):
    """The most probable classes of one image.

    Args:
      probabilities: float [C].
      class_names: C names.
      most: how many to return.

    Returns:
      list of dicts: `class`, `name` (readable), `probability`; the most probable first.
    """
    order = np.argsort(-probabilities, kind="stable")[:most]
    return [
        {
            "class": class_names[i],
            "name": datasets.display_name(class_names[i]),
            "probability": float(probabilities[i]),
        }
        for i in order
    ]


def explain_image(ensemble, path, logits, most):
    """Puts together what can be shown of a picture.

    Args:
      ensemble: Ensemble.
      path: the picture's file.
      logits: float32 [M, V, C], as `Ensemble.predict` yields them.
      most: how many classes to show.

    Returns:
      Exhibit.
    """
    image = views.decode_file(path)
    probabilities = classification.probabilities(logits[:, None])[0]
    class_index = int(np.argmax(probabilities))
    looks = [
        _explain_model(member, image, of_member, ensemble.class_names, most, class_index)
        for member, of_member in zip(ensemble.members, logits, strict=True)
    ]
    return ExplainedPrediction(
        path=path,
        picture=_shrink_to_fit(image.numpy(), _MAX_PICTURE_SIDE),
        size=tuple(image.shape[:2]),
        top=top_classes(probabilities, ensemble.class_names, most),
        looks=looks,
        carving=_make_seam_carving_panels(image, ensemble.members[0].preprocessing),
    )


def _explain_model(member, image, logits, class_names, most, class_index):
    """The Look of one net; logits [V, C]."""
    sight = member.preprocessing
    pixels = views.preprocess_image(image, sight).numpy()
    of_views = classification.probabilities(logits[None, :, None])  # [V, C]
    panels = []
    for view, name, shares in zip(pixels, sight.names, of_views, strict=True):
        (first,) = top_classes(shares, class_names, 1)
        panels.append(
            Panel(view, name, f"{first['name']} {overlays.format_percent(first['probability'])}")
        )
    return ModelExplanation(
        name=f"{member.record.config.net.model}, {member.step_dir}",
        top=top_classes(of_views.mean(axis=0), class_names, most),
        views=panels,
        heat_maps=_make_heat_map_panels(
            member, pixels[sight.names.index("centre")], class_names, class_index
        ),
    )


def _make_heat_map_panels(member, view, class_names, class_index):
    """The centre view, and over it where the net sees the class and what it cannot do without."""
    data, size = member.config.data, len(view)
    name = datasets.display_name(class_names[class_index])
    images = batch_augment.normalize(tf.constant(view[None]), data.mean, data.std)
    (cam,) = member.grad_cam(images, class_index)
    window = max(1, round(_PATCH_FRACTION * size))
    drop, starts = explain.occlusion(member.float32_logits, view, class_index, window, data.mean)
    hidden = explain.project_to_pixels(drop, starts, window, size)
    worst = max(0.0, float(drop.max()))
    speaks = f"{cam.shape[0]} × {cam.shape[1]} map" if cam.max() > 0 else "nothing speaks for it"
    return [
        Panel(view, "centre view", f"explained: {name}"),
        Panel(overlays.draw_heat_map(view, cam), "Grad-CAM", speaks),
        Panel(
            overlays.draw_heat_map(view, np.maximum(hidden, 0)),
            "occlusion",
            f"a hidden patch costs up to {100 * worst:.1f} points",
        ),
    ]


def _make_seam_carving_panels(image, sight):
    """Seam carving beside plain resizing to the same square."""
    resized = seam_carving.resize_short_side(image, sight.size, sight.interpolation).numpy()
    gone = seam_carving.find_removed_pixels(resized, sight.size)
    plain = crops.resize(image, sight.size, sight.size, sight.interpolation).numpy()
    seams = max(resized.shape[:2]) - sight.size
    use = "one of the views" if sight.seams else "for comparison, not a view"
    return [
        Panel(
            overlays.highlight_pixels(resized, gone), "seams to remove", pluralize(seams, "seam")
        ),
        Panel(seam_carving.carve(resized, sight.size), "seam carving", use),
        Panel(plain, "plain resizing", "for comparison, not a view"),
    ]


def _shrink_to_fit(image, side):
    """uint8 [H, W, 3] shrunk so that no side is longer."""
    scale = side / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
