"""`--mode=export`: a checkpoint in a form that other programs read, compared before it is kept."""

import dataclasses
import itertools
import math
import os
import pathlib
import re
import shutil

import numpy as np
import tensorflow as tf

from input_pipeline import pipeline
from input_pipeline.augmentation import crops
from input_pipeline.decoding import decode
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import source
from input_pipeline.text import pluralize
from loops.distribution import strategies
from loops.evaluation import trained_models
from loops.evaluator import make_logits_fn
from loops.monitoring import console
from loops.runtime import output_files
from loops.tools.weights import sidecar
from loops.tools.weights.export_formats import FORMATS, Export

_NUM_IMAGES = 32
_MAX_DIFFERENCE = 1e-4  # of logits, relative to the largest where that is above 1
_MIN_EQUAL_FRACTION = 30 / 32  # top-1 of int8

# What a read-only folder or a full disk raises, from Python, h5py and TensorFlow.
_WRITE_ERRORS = (OSError, tf.errors.ResourceExhaustedError, tf.errors.PermissionDeniedError)


def run(config):
    """Exports the checkpoint that `--ckpt` names.

    Args:
      config: Config of the command line.

    Returns:
      dict of facts, as at `--json`: format, out, difference, equal_top1, num_images and more.

    Raises:
      UsageError: flags that do not fit, a path that is taken, or a library that is missing.
      DataError: the export, read again, disagrees with the model; it is removed.
    """
    # A GPU would round what its convolutions multiply, and a sound export would disagree.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    form = config.export.format if "format" in config.typed else "saved_model"
    path = _resolve_output_path(form, config.export)
    found = trained_models.find(config)
    if len(found) > 1:
        raise UsageError(f"--ckpt={config.evaluation.ckpt}: name one; ensembles are not exported")
    member = _to_float32(found[0])
    one = dataclasses.replace(config.distribution, strategy="one")
    strategy = strategies.make_strategy(one)
    export = Export(
        model=member.restore(strategy),
        record=member.record,
        data=member.config.data,
        int8=config.export.quantize == "int8",
        calibration=lambda: _load_calibration_images(member, config.export.calibration_images),
    )
    folder = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        folder.mkdir()
        facts = _write_and_verify(form, export, member, folder / path.name)
        os.replace(folder / path.name, path)
        beside = sidecar.path_for(path)
        os.replace(folder / beside.name, beside)
    except _WRITE_ERRORS as error:
        raise UsageError(f"--out={path}: cannot be written ({_describe_error(error)})") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    facts = {"out": str(path), "model": str(member.step_dir), **facts}
    output_files.write_json_output(config.evaluation.json, facts)
    console.print_summary(str(path), _make_summary_rows(facts))
    return facts


def _resolve_output_path(form, export):
    """The path of the export, which must not be there yet."""
    if form not in FORMATS:
        raise UsageError(f"--format={form}: --mode=export takes {', '.join(FORMATS)}")
    suffix = FORMATS[form].suffix
    path = pathlib.Path(export.out)
    if not export.out:
        raise UsageError(f"--out is missing: name what to export to, as in --out=model{suffix}")
    if export.quantize != "none" and form != "tflite":
        raise UsageError(f"--quantize={export.quantize} with --format={form}: only tflite")
    others = [name for name, other in FORMATS.items() if path.name.endswith(other.suffix or " ")]
    if not suffix and others:
        raise UsageError(f"--out={path}: the name of a {others[0]} file; give --format={others[0]}")
    if not path.name.endswith(suffix):
        raise UsageError(f"--out={path}: the name of a {form} file ends in {suffix}")
    if not path.parent.is_dir():
        raise UsageError(f"--out={path}: there is no folder {path.parent}")
    for beside in (lambda p: p, sidecar.path_for):  # "." has no name to add to
        if (taken := beside(path)).exists():
            raise UsageError(f"--out={path}: {taken} is there already; remove it or name another")
    return path


def _describe_error(error):
    """Why a file cannot be written, in the system's own words."""
    if isinstance(error, tf.errors.OpError):
        return error.message.split("; ")[-1].split(" [Op:")[0]
    of_h5py = re.search(r"error message = '([^']*)'", str(error))
    return of_h5py[1] if of_h5py else error.strerror or str(error).splitlines()[0]


def _to_float32(member):
    precision = dataclasses.replace(member.config.precision, mixed_precision=False)
    return dataclasses.replace(
        member, config=dataclasses.replace(member.config, precision=precision)
    )


def _write_and_verify(form, export, member, path):
    """Writes an export and its hashes, reads it again and compares: facts.

    Raises:
      DataError: it disagrees with the model.
    """
    FORMATS[form].write(export, path)
    hashes = {
        "format": form,
        "tensors": sidecar.hash_tensors(export.tensors()),
        "files": sidecar.hash_files(path),
        "trained_for": sidecar.describe_preprocessing(export.data, member.record.class_names),
    }
    output_files.write_json(sidecar.path_for(path), hashes)
    images = _load_val_images(member)
    net = make_logits_fn(export.model, export.data.mean, export.data.std)
    live = net(tf.constant(images[:, None])).numpy()[:, 0]  # [N, C]
    again = FORMATS[form].read(export, path)(images.astype(np.float32))
    facts = {"format": form, "int8": export.int8, **compare_logits(live, again)}
    facts["num_bytes"] = sum(p.stat().st_size for p in [path, *path.rglob("*")] if p.is_file())
    facts["num_tensors"] = len(hashes["tensors"])
    least = math.ceil(_MIN_EQUAL_FRACTION * len(images))
    if export.int8 and facts["equal_top1"] < least:
        raise DataError(
            f"--quantize=int8: {facts['equal_top1']} of {len(images)} images keep their top-1"
            f" class, at least {least} must; nothing is exported; more --calibration_images help"
        )
    if not export.int8 and not facts["difference"] <= _MAX_DIFFERENCE:
        raise DataError(
            f"--format={form}: logits differ from the model's by {facts['difference']:.3g},"
            f" more than {_MAX_DIFFERENCE}; nothing is exported"
        )
    return facts


def compare_logits(live, again):
    """How far an export's logits are from the model's.

    Args:
      live, again: float [N, C].

    Returns:
      dict: difference (the largest one, over the largest logit where that is above 1),
      equal_top1 and num_images.
    """
    scale = max(1.0, float(np.abs(live).max()))
    return {
        "difference": float(np.abs(live - again).max()) / scale,
        "equal_top1": int((live.argmax(1) == again.argmax(1)).sum()),
        "num_images": len(live),
    }


def _load_val_images(member):
    """Centre crops of images spread over the val split: uint8 [N, S, S, 3]."""
    data = member.config.data
    split = source.open_split(data, "val", member.record.class_names)
    count = min(_NUM_IMAGES, split.num_examples)
    found = []
    for index in np.linspace(0, split.num_examples - 1, count).round().astype(np.int64):
        size = (data.image_size, 1, data.crop_fraction, data.interpolation)
        try:
            encoded, _ = split.read(tf.constant(index))
            found.append(crops.extract_views(decode.decode_image(encoded), *size)[0].numpy())
        except tf.errors.OpError as error:
            name = split.describe(int(index))
            raise DataError(f"{name} does not decode: {decode.describe_error(error)}") from None
    return np.stack(found)


def _load_calibration_images(member, count):
    """Augmented training images, one at a time: float32 [1, S, S, 3], 0..255."""
    config = member.config
    split = source.open_split(config.data, "train", member.record.class_names)
    batches = pipeline.train_dataset(split, config.data, config.length.seed, 0, 1)
    for batch in itertools.islice(batches, count):
        yield batch["image"].numpy().astype(np.float32)


def _make_summary_rows(facts):
    rows = [("format", facts["format"] + (", int8" if facts["int8"] else ""))]
    rows.append(
        ("size", f"{facts['num_bytes'] / 1e6:.1f} MB, {pluralize(facts['num_tensors'], 'tensor')}")
    )
    rows.append(("difference", f"{facts['difference']:.2g} (largest, of logits)"))
    rows.append(
        ("same top-1", f"{facts['equal_top1']} of {pluralize(facts['num_images'], 'image')}")
    )
    return rows
