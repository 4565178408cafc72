"""`--mode=export`: converts a checkpoint to a format that other programs read.

The export is read back and compared with the model before it gets its final name.
"""

import dataclasses
import itertools
import math
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from input_pipeline import pipeline
from input_pipeline.augmentation import crops
from input_pipeline.decoding import decode
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import source
from input_pipeline.system import atomic_files
from input_pipeline.text import escape_non_utf8, pluralize
from loops.config.config import Config
from loops.config.tools import ExportConfig
from loops.distribution import strategies
from loops.evaluation import trained_models
from loops.evaluation.trained_models import TrainedModel
from loops.evaluator import make_logits_fn
from loops.monitoring import console
from loops.runtime import output_files
from loops.tools.weights import sidecar
from loops.tools.weights.export_formats import FORMATS, Export

# Images of the val split that the export is compared on.
_NUM_IMAGES = 32
_MAX_DIFFERENCE = 1e-4  # of logits, divided by the largest logit if that is above 1
_MIN_EQUAL_FRACTION = 30 / 32  # images whose top-1 class int8 must keep

# Raised by Python, h5py and TensorFlow for a read-only folder or a full disk.
_WRITE_ERRORS = (OSError, tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError)


def run(config: Config) -> dict:
    """Exports the checkpoint that `--ckpt` names.

    Args:
      config: config of the command line.

    Returns:
      dict as in the JSON file: format, out, difference, equal_top1, num_images and more.

    Raises:
      UsageError: conflicting flags, a path that already exists, or a library that is missing.
      DataError: the export differs from the model; it is removed.
    """
    # TF32 rounds the inputs of convolutions on a GPU, so a correct export would seem to differ.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    format_name = config.export.format if "format" in config.typed else "saved_model"
    path = _resolve_output_path(format_name, config.export)
    trained = trained_models.find_models(config)
    if len(trained) > 1:
        raise UsageError(f"--ckpt={config.evaluation.ckpt}: name one; ensembles are not exported")
    trained_model = trained[0]
    one_device = dataclasses.replace(config.distribution, strategy="one")
    strategy = strategies.make_strategy(one_device)
    num_calibration_images = config.export.calibration_images
    export = Export(
        model=trained_model.restore(strategy, dtype="float32"),
        record=trained_model.record,
        data=trained_model.config.data,
        int8=config.export.quantize == "int8",
        calibration=lambda: _load_calibration_images(trained_model, num_calibration_images),
    )
    temporary = atomic_files.temporary_path(path.parent)
    try:
        temporary.mkdir()
        results = _write_and_verify(format_name, export, trained_model, temporary / path.name)
        os.replace(temporary / path.name, path)
        sidecar_path = sidecar.path_for(path)
        os.replace(temporary / sidecar_path.name, sidecar_path)
    except _WRITE_ERRORS as error:
        raise UsageError(f"--out={path}: cannot be written ({_describe_error(error)})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    results = {"out": str(path), "model": str(trained_model.step_dir), **results}
    output_files.write_json_output(config.evaluation.json, results)
    console.print_summary(str(path), _make_summary_rows(results))
    return results


def _resolve_output_path(format_name: str, config: ExportConfig) -> pathlib.Path:
    """Returns the path of the export, which does not exist yet.

    Raises:
      UsageError: the format or `--out` is not valid.
    """
    if format_name not in FORMATS:
        raise UsageError(f"--format={format_name}: --mode=export writes {', '.join(FORMATS)}")
    suffix = FORMATS[format_name].suffix
    path = pathlib.Path(config.out)
    if not config.out:
        raise UsageError(
            f"--out is missing: name the file or folder to write, as in --out=model{suffix}"
        )
    if config.out != escape_non_utf8(config.out):
        raise UsageError(
            f"--out={path}: is not UTF-8, but TensorFlow requires it of paths; rename it"
        )
    if config.quantize != "none" and format_name != "tflite":
        raise UsageError(
            f"--quantize={config.quantize} with --format={format_name}: quantization needs"
            " --format=tflite"
        )
    matching = [
        name
        for name, file_format in FORMATS.items()
        if file_format.suffix and path.name.endswith(file_format.suffix)
    ]
    if not suffix and matching:
        name = matching[0]
        raise UsageError(f"--out={path}: the name of a {name} file; give --format={name}")
    if not path.name.endswith(suffix):
        raise UsageError(f"--out={path}: the name of a {format_name} file ends in {suffix}")
    if not path.parent.is_dir():
        raise UsageError(f"--out={path}: there is no folder {path.parent}")
    # In this order, because `sidecar.path_for` fails for ".", which always exists.
    for make_path in (pathlib.Path, sidecar.path_for):
        if (existing := make_path(path)).exists():
            raise UsageError(
                f"--out={path}: {existing} already exists; remove it or choose another"
            )
    return path


def _describe_error(error: OSError | tf.errors.OpError) -> str:
    """Returns the system's reason why a file cannot be written."""
    if isinstance(error, tf.errors.OpError):
        return error.message.split("; ")[-1].split(" [Op:")[0]
    h5py_reason = re.search(r"error message = '([^']*)'", str(error))
    return h5py_reason[1] if h5py_reason else error.strerror or str(error).splitlines()[0]


def _write_and_verify(
    format_name: str, export: Export, trained_model: TrainedModel, path: pathlib.Path
) -> dict:
    """Writes an export and its sidecar, reads it back and compares it with the model.

    Returns:
      dict of results for the JSON file.

    Raises:
      DataError: the export differs from the model.
    """
    FORMATS[format_name].write(export, path)
    class_names = trained_model.record.class_names
    metadata = {
        "format": format_name,
        "tensors": sidecar.hash_tensors(export.tensors()),
        "files": sidecar.hash_files(path),
        "trained_for": sidecar.describe_preprocessing(export.data, class_names),
    }
    output_files.write_json(sidecar.path_for(path), metadata)
    images = _load_val_images(trained_model)
    compute_logits = make_logits_fn(export.model, export.data.mean, export.data.std)
    logits = compute_logits(tf.constant(images[:, None])).numpy()[:, 0]  # [N, C]
    export_logits = FORMATS[format_name].read(export, path)(images.astype(np.float32))
    results: dict[str, Any] = {
        "format": format_name,
        "int8": export.int8,
        **compare_logits(logits, export_logits),
    }
    results["num_bytes"] = sum(p.stat().st_size for p in [path, *path.rglob("*")] if p.is_file())
    results["num_tensors"] = len(metadata["tensors"])
    min_equal = math.ceil(_MIN_EQUAL_FRACTION * len(images))
    if export.int8 and results["equal_top1"] < min_equal:
        raise DataError(
            f"--quantize=int8: {results['equal_top1']} of {len(images)} images keep their top-1"
            f" class, and at least {min_equal} must; nothing is exported; try more"
            " --calibration_images"
        )
    if not export.int8 and not results["difference"] <= _MAX_DIFFERENCE:
        raise DataError(
            f"--format={format_name}: logits differ from the model's by"
            f" {results['difference']:.3g}, more than {_MAX_DIFFERENCE}; nothing is exported"
        )
    return results


def compare_logits(logits: np.ndarray, export_logits: np.ndarray) -> dict[str, float | int]:
    """Compares the logits of an export with those of the model.

    Args:
      logits, export_logits: float [N, C].

    Returns:
      dict: difference (the largest one, divided by the largest logit if that is above 1),
      equal_top1 and num_images.
    """
    scale = max(1.0, float(np.abs(logits).max()))
    return {
        "difference": float(np.abs(logits - export_logits).max()) / scale,
        "equal_top1": int((logits.argmax(1) == export_logits.argmax(1)).sum()),
        "num_images": len(logits),
    }


def _load_val_images(trained_model: TrainedModel) -> np.ndarray:
    """Returns center crops of images spread evenly over the val split: uint8 [N, S, S, 3]."""
    data = trained_model.config.data
    split = source.open_split(data, "val", trained_model.record.class_names)
    count = min(_NUM_IMAGES, split.num_examples)
    images = []
    for index in np.linspace(0, split.num_examples - 1, count).round().astype(np.int64):
        how = (data.image_size, 1, data.crop_fraction, data.interpolation)
        try:
            encoded, _ = split.read(tf.constant(index))
            image = decode.decode_image(encoded, data.exif)
            view = crops.extract_views(image, *how, data.torchvision_rounding)
            images.append(view[0].numpy())
        except tf.errors.OpError as error:
            name = split.describe(int(index))
            raise DataError(f"{name} does not decode: {decode.describe_error(error)}") from None
    return np.stack(images)


def _load_calibration_images(trained_model: TrainedModel, count: int) -> Iterator[np.ndarray]:
    """Yields augmented training images, one at a time: float32 [1, S, S, 3], 0..255."""
    config = trained_model.config
    split = source.open_split(config.data, "train", trained_model.record.class_names)
    batches = pipeline.train_dataset(split, config.data, config.length.seed, 0, 1)
    for batch in itertools.islice(batches, count):
        yield batch["image"].numpy().astype(np.float32)


def _make_summary_rows(results: dict) -> list[tuple[str, str]]:
    num_tensors = pluralize(results["num_tensors"], "tensor")
    num_images = pluralize(results["num_images"], "image")
    return [
        ("format", results["format"] + (", int8" if results["int8"] else "")),
        ("size", f"{results['num_bytes'] / 1e6:.1f} MB, {num_tensors}"),
        ("difference", f"{results['difference']:.2g} (largest, of logits)"),
        ("same top-1", f"{results['equal_top1']} of {num_images}"),
    ]
