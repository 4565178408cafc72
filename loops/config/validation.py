"""Completes and checks a configuration: defaults of the data set, ranges, flags that conflict."""

import dataclasses
import math
import os
import pathlib

from absl import logging

from input_pipeline import datasets, pixel_statistics
from input_pipeline.augmentation import augment_spec
from input_pipeline.errors import UsageError
from input_pipeline.sources import source
from loops.config import flag_fields, flag_parsers
from loops.config.config import OUTPUT_FLAGS, leaves, replace
from loops.runtime import output_files
from nets import registry

# Per 256 images. Of sgd it comes with the dataset; lamb's is that of "ResNet strikes back", A3.
_LEARNING_RATES = {"lars": 0.6, "lamb": 1e-3, "adamw": 5e-4}

# Data sets without statistics of their own.
_STATISTICS_SOURCE = dict.fromkeys(
    ("folder", "lists"), "ImageNet, as --mode=stats has left none here"
)


def resolve(config):
    """Fills what the user left to the dataset and checks what several flags decide together.

    Raises:
      UsageError: flags that conflict or values out of range.
    """
    _check_choices(config)
    spec = datasets.get(config.data.dataset)
    values = dict(leaves(config))
    lengths = [name for name in ("epochs", "steps", "examples") if values[name] is not None]
    if len(lengths) > 1:
        raise UsageError(f"--{lengths[0]} and --{lengths[1]} are both given: give one of them")
    from_dataset = ["image_size", "batch_size", "min_crop_area", "learning_rate", "warmup_epochs"]
    from_dataset += [] if lengths else ["epochs"]
    of_optimizer = _LEARNING_RATES.get(config.optimization.optimizer)
    if of_optimizer is not None and values["learning_rate"] is None:
        config = replace(config, {"learning_rate": of_optimizer})
        from_dataset.remove("learning_rate")
    defaults = {n: getattr(spec, n) for n in from_dataset if values[n] is None}
    if registry.has_fixed_input_size(config.net.model):
        defaults["input_size"] = values["image_size"] or defaults["image_size"]
    config = replace(config, defaults)
    check(config)
    return fill_pixel_statistics(config)


def fill_pixel_statistics(config):
    """Fills in the mean and the deviation of the pixels, unless the run has recorded its own.

    Those that `--mode=stats` has left with the images come before those of the data set's table.
    """
    own = config.data
    recorded = (own.mean, own.std, own.pca_values, own.pca_vectors)
    if all(recorded):
        return config
    spec, found = datasets.get(own.dataset), pixel_statistics.load(source.get_data_dir(own))
    where = pixel_statistics.FILENAME if found else _STATISTICS_SOURCE.get(own.dataset, own.dataset)
    if found:
        vectors = tuple(number for row in found.pca_eigenvectors for number in row)
        known = (found.mean, found.std, found.pca_eigenvalues, vectors)
    else:
        known = (spec.mean, spec.std, spec.pca_values, spec.pca_vectors)
    if not (own.mean and own.std):
        shown = [", ".join(f"{number:.2f}" for number in numbers) for numbers in known[:2]]
        logging.info("pixels: mean (%s) and std (%s), those of %s", *shown, where)
    names = ("mean", "std", "pca_values", "pca_vectors")
    return replace(config, {n: a or b for n, a, b in zip(names, recorded, known, strict=True)})


def check(config):
    """Raises UsageError for a value that no run could use."""
    _check_choices(config)
    values = dict(leaves(config))
    check_ranges(values)
    if not 0.1 <= config.data.crop_fraction <= 1:
        raise UsageError(f"--crop_fraction={config.data.crop_fraction}: must be from 0.1 to 1")
    if not 0 <= config.optimization.ema < 1:
        raise UsageError(
            f"--ema={config.optimization.ema}: must be from 0 to below 1, as in 0.9999"
        )
    if config.data.data_service and config.data.cache == "ram":
        raise UsageError("--cache=ram and --data_service: its workers load the images; drop one")
    if config.precision.xla and config.net.sync_batch_norm:
        raise UsageError(
            "--xla and --sync_batch_norm: compiled replicas cannot meet; leave one out"
        )
    for name in ("label_smoothing", "min_crop_area", "momentum"):
        if not 0 <= values[name] <= 1:
            raise UsageError(f"--{name}={values[name]}: must be between 0 and 1")
    _check_net(config.net, config.data.image_size)
    augment_spec.parse(config.data.augment)
    augment_spec.parse_randaugment(config.data.randaugment)
    _check_image_size_schedule(config)
    for name in ("save_every", "eval_every", "log_every"):
        flag_parsers.parse_interval(values[name], 1, f"--{name}")
    if values["keep_every"] != "0":
        flag_parsers.parse_interval(values["keep_every"], 1, "--keep_every")
    flag_parsers.parse_profile_window(config.run.profile)
    flag_parsers.parse_top_ks(config.evaluation.top_k)
    flag_parsers.parse_test_sizes(config.evaluation.test_size)
    save_logits = config.evaluation.save_logits
    if save_logits and not save_logits.endswith(".npz"):
        raise UsageError(f"--save_logits={save_logits}: give FILE.npz")
    check_outputs(values)


def check_outputs(values):
    """Raises UsageError for a file, by the name of its flag, that could not be written."""
    for name in OUTPUT_FLAGS:
        if values[name]:
            _check_output(f"--{name}={values[name]}", pathlib.Path(values[name]))


def _check_output(flag, path):
    """Before hours of work: whether a file can be written there at its end."""
    if output_files.is_stream(path):
        return
    if path.is_dir():
        raise UsageError(f"{flag}: this is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"{flag}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():  # a device or a pipe is written, not replaced
        if not os.access(path, os.W_OK):
            raise UsageError(f"{flag}: cannot be written")
        return
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{flag}: the folder {path.parent} cannot be written")


def _check_image_size_schedule(config):
    """Checks that the net takes every size of `--image_size_schedule`."""
    flag = f"--image_size_schedule={config.data.image_size_schedule}"
    sizes = [
        size
        for _, size in flag_parsers.parse_image_size_schedule(config.data.image_size_schedule, 1.0)
    ]
    smallest = registry.min_image_size(config.net.model)
    if sizes and min(sizes) < smallest:
        raise UsageError(f"{flag}: {config.net.model} needs at least {smallest}")
    if sizes and registry.has_fixed_input_size(config.net.model):
        raise UsageError(f"{flag}: {config.net.model} takes images of one size only")


def _check_net(net, image_size):
    """Checks what depends on the architecture."""
    smallest = registry.min_image_size(net.model)
    if image_size < smallest:
        raise UsageError(f"--image_size={image_size}: {net.model} needs at least {smallest}")
    if registry.has_fixed_input_size(net.model) and image_size != net.input_size:
        raise UsageError(
            f"--image_size={image_size}: the dense layers of this {net.model} are made for"
            f" {net.input_size} px and take no other size"
        )
    for name, rate in (("dropout", net.dropout or 0.0), ("stochastic_depth", net.stochastic_depth)):
        if not 0 <= rate < 1:
            raise UsageError(f"--{name}={rate}: must be at least 0 and below 1")
    for name in ("zero_init_residual", "stochastic_depth", "recompute"):
        if getattr(net, name) and not registry.is_residual(net.model):
            raise UsageError(f"--{name}: {net.model} has no residual blocks; leave it out")


def check_ranges(values):
    """Raises UsageError for a number, by the name of its flag, that is too small or too large."""
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--{name}={value}: must be finite")
    least = {
        "epochs": 1e-9, "steps": 1, "examples": 1, "batch_size": 1, "learning_rate": 0, "keep": 1,
        "cpu_devices": 1, "weight_decay": 0, "eval_batch_size": 0, "reader_threads": 0, "seed": 0,
        "warmup_epochs": 0, "initial_loss_scale": 2.0**-5, "short_side": 0, "quality": 1,
        "shard_megabytes": 1, "mixup": 0, "cutmix": 0, "accumulate": 1, "clip_norm": 0,
        "clip_factor": 0, "final_learning_rate": 0, "watch_patience": 0, "calibration_images": 1,
        "bn_batches": 1,
    }  # fmt: skip
    for name, low in least.items():
        if values[name] is not None and values[name] < low:
            raise UsageError(f"--{name}={values[name]}: must be at least {low}")
    most = {"seed": 2**32 - 1, "quality": 100, "epochs": 1e9, "examples": 10**15, "steps": 10**12}
    for name, high in most.items():
        if values[name] is not None and values[name] > high:
            raise UsageError(f"--{name}={values[name]}: must be at most {high}")


def _check_choices(config):
    """Flags are checked as they are parsed; this is for a config.json from elsewhere."""
    for field in flag_fields.iter_fields(type(config)):
        value = getattr(config, field.name)
        if field.choices and value not in field.choices:
            raise UsageError(f"--{field.name}={value}: unknown value; see --help")
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(getattr(config, field.name)):
            _check_choices(getattr(config, field.name))
