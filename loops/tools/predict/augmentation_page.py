"""`--mode=preview`: draws what each augmentation does to training images, and all of them together.

The draws are those of training: functions of the seed and of sample numbers.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import tensorflow as tf

from input_pipeline import augment_spec, datasets, sample_order, user_code
from input_pipeline.augmentation import (
    augmentations,
    batch_augment,
    image_augment,
    rand_augment,
)
from input_pipeline.config import DataConfig
from input_pipeline.decoding import decode
from input_pipeline.sources import source
from loops.checkpointing import run_folder
from loops.config import resolve
from loops.config.config import Config
from loops.distribution import strategies
from loops.monitoring import console
from loops.runtime import output_files
from loops.tools.predict import figure, html_report
from loops.tools.predict.explained_prediction import Panel

_DRAWS = 4  # of one image
_WHOLE_IMAGES = 6  # shown with all augmentations together


class _Row(NamedTuple):
    """One row of the page: a heading, and an image followed by its augmented versions."""

    title: str
    note: str
    panels: list[Panel]


def run(config: Config) -> None:
    """Writes the page of `--report`.

    Args:
      config: config of the command line.

    Raises:
      UsageError: a flag is wrong.
    """
    strategies.hide_gpus()
    path = config.prediction.report
    config = resolve.resolve_training(config)
    augment = user_code.display_name(config.data.augment)
    parts = [
        f"<header><h1>Augmented images of {html_report.escape(config.data.dataset)}</h1>",
        f"<p>--augment={html_report.escape(augment)}</p></header>",
    ]
    for row in _make_rows(config):
        heading = f"{html_report.escape(row.title)}<small>{html_report.escape(row.note)}</small>"
        panels = html_report.render_panels(row.panels)
        parts.append(f"<article><h2>{heading}</h2>{panels}</article>")
    page = html_report.render_document("Augmented images", parts).encode("utf-8", "replace")
    output_files.write_flag_output("--report", path, page, output_files.write_bytes)
    console.print_summary("augmented images", [("page", path)])


def show(run: str | pathlib.Path) -> figure.Figure:
    """Draws the augmentation of a run's training images, for `predict.ipynb`.

    Args:
      run: run folder, RUN/best or step folder. Of several, separated by commas, the first.

    Returns:
      a figure that Jupyter displays.
    """
    run_dir, _ = run_folder.find_checkpoint(str(run).split(",")[0])
    rows = _make_rows(run_folder.read_record(run_dir).config)
    return figure.draw_rows([(row.title, row.note, row.panels) for row in rows])


def _make_rows(config: Config) -> Iterator[_Row]:
    """Yields a row for each operation, then rows with all augmentations."""
    data, seed = config.data, config.length.seed
    train = source.open_split(data, "train")
    names = tuple(datasets.display_name(name) for name in train.class_names)
    together = ("all of them", "", _make_apply_all(data, seed))
    stages = [*_iter_stages(data, seed), *[together] * _WHOLE_IMAGES]
    for number, (title, note, apply) in enumerate(stages):
        # Two images, mostly of different classes: those of a pair are mixed.
        first = number * train.num_examples // len(stages)
        indices = [first, (first + train.num_examples // 2) % train.num_examples]
        files, labels = zip(*(train.read(tf.constant(i, tf.int64)) for i in indices), strict=True)
        samples = np.arange(2 * _DRAWS) + 2 * _DRAWS * number
        images, captions = apply(_Images(files, labels, samples, names, data, seed))
        original = decode.decode_image(files[0]).numpy()
        scale = min(1.0, 2 * data.image_size / max(original.shape[:2]))
        size = [max(1, round(side * scale)) for side in original.shape[1::-1]]
        original = cv2.resize(original, size, interpolation=cv2.INTER_AREA)
        panels = [Panel(original, names[int(labels[0])], "original")]
        panels += [Panel(*panel) for panel in zip(images, captions, strict=True)]
        yield _Row(title, note, panels)


class _Images(NamedTuple):
    """Two images, and the sample numbers with which they are augmented in turn."""

    files: tuple[tf.Tensor, ...]
    labels: tuple[tf.Tensor, ...]
    samples: np.ndarray
    class_names: tuple[str, ...]
    data: DataConfig
    seed: int

    def seeds(self) -> list[tf.Tensor]:
        """Returns the seed of each second sample, those of the first image."""
        return [sample_order.sample_seed(self.seed, int(n)) for n in self.samples[::2]]

    def crop(self, file: tf.Tensor) -> tf.Tensor:
        """Returns the center crop of an image."""
        return image_augment.crop_center(file, tf.zeros([2], tf.int64), self.data)


# Maps images to the augmented versions of the first one, and a caption for each.
_Apply = Callable[[_Images], tuple[list[np.ndarray], list[str]]]


def _iter_stages(data: DataConfig, seed: int) -> Iterator[tuple[str, str, _Apply]]:
    """Yields name, arguments and function of each operation, in the order of application.

    The functions in users' files follow the others.
    """
    spec = augment_spec.read(data)
    window = [name for name in ("classic", "crop", "flip", "none") if name in spec]
    calls = [augment_spec.format_given(name, spec[name]) for name in window]
    yield " and ".join(window), ", ".join(calls), _apply_window
    for name in spec.arguments:
        call = augment_spec.format_given(name, spec[name])
        if name in augment_spec.POLICIES:
            for operation in rand_augment.OPERATIONS:
                if operation != "identity":
                    yield operation, f"of {name}", _apply_operation(name, operation, spec[name])
        elif name in augment_spec.names("image"):
            yield name, call, _apply_image_stage(name, spec[name])
        elif name in augment_spec.names("batch", "pairs"):
            yield name, call, _apply_batch_stage(data, call, seed)
    for name, (function, arguments) in spec.load_functions("image").items():
        call = user_code.display_name(augment_spec.format_given(name, arguments))
        yield user_code.function_names(name), call, _apply_function(name, function, arguments)
    for name, (_, arguments) in spec.load_functions("batch").items():
        call = augment_spec.format_given(name, arguments)
        title, note = user_code.function_names(name), user_code.display_name(call)
        yield title, note, _apply_batch_stage(data, call, seed)


def _apply_window(images: _Images) -> tuple[list[np.ndarray], list[str]]:
    crop = image_augment.CROP_FUNCTIONS[augment_spec.read(images.data).window]
    results = [crop(images.files[0], seed, images.data).numpy() for seed in images.seeds()]
    return results, [""] * len(results)


def _apply_image_stage(name: str, arguments: dict[str, float]) -> _Apply:
    def apply(images: _Images) -> tuple[list[np.ndarray], list[str]]:
        image = images.crop(images.files[0])
        return [
            image_augment.apply_stage(name, image, seed, arguments).numpy()
            for seed in images.seeds()
        ], [""] * _DRAWS

    return apply


def _apply_function(name: str, function: Callable[..., Any], arguments: dict[str, float]) -> _Apply:
    # As a graph, since that is how training calls it.
    @tf.function(autograph=False)
    def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        return augmentations.apply_function(name, function, arguments, image, seed[0], seed[1])

    def apply(images: _Images) -> tuple[list[np.ndarray], list[str]]:
        image = images.crop(images.files[0])
        return [augment(image, seed).numpy() for seed in images.seeds()], [""] * _DRAWS

    return apply


def _apply_operation(policy: str, operation: str, arguments: dict[str, float]) -> _Apply:
    def apply(images: _Images) -> tuple[list[np.ndarray], list[str]]:
        image = images.crop(images.files[0])
        draw = rand_augment.STRENGTHS[policy]
        strengths = [draw(seed, arguments) for seed in images.seeds()]
        results = [
            rand_augment.apply_operation(operation, image, strength, arguments).numpy()
            for strength in strengths
        ]
        return results, [f"strength {float(strength):+.2f}" for strength in strengths]

    return apply


def _apply_batch_stage(data: DataConfig, call: str, seed: int) -> _Apply:
    """Applies the stage of a value of `--augment` alone."""
    alone = dataclasses.replace(data, augment=call, mixup=0.0, cutmix=0.0)
    preprocess = batch_augment.make_preprocess_fn(alone, seed)

    def apply(images: _Images) -> tuple[list[np.ndarray], list[str]]:
        crops = [images.crop(file) for file in images.files]
        return _preprocess(images, crops * _DRAWS, preprocess)

    return apply


def _make_apply_all(data: DataConfig, seed: int) -> _Apply:
    preprocess = batch_augment.make_preprocess_fn(data, seed)

    def apply(images: _Images) -> tuple[list[np.ndarray], list[str]]:
        seeds = [sample_order.sample_seed(seed, int(sample)) for sample in images.samples]
        pixels = [
            image_augment.augment(images.files[k % 2], sample_seed, data)
            for k, sample_seed in enumerate(seeds)
        ]
        return _preprocess(images, pixels, preprocess)

    return apply


def _preprocess(
    images: _Images, pixels: list[tf.Tensor], preprocess: Callable
) -> tuple[list[np.ndarray], list[str]]:
    """Runs the stages of a batch; returns the images at even positions, and captions."""
    batch = {
        "image": tf.stack(pixels),
        "label": tf.stack(images.labels * _DRAWS),
        "sample": tf.constant(images.samples),
    }
    results, targets = preprocess(batch)
    results = batch_augment.denormalize(results, images.data.mean, images.data.std).numpy()[::2]
    targets = batch_augment.Targets(*(np.asarray(target)[::2] for target in targets))
    return list(results), batch_augment.format_captions(targets, images.class_names)
