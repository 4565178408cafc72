"""Checks a configuration: choices, ranges, flags that conflict, files that cannot be written."""

import math
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from input_pipeline import augment_spec, user_code
from input_pipeline.errors import UsageError
from loops.config import choices, flag_parsers
from loops.config.config import Config, all_flags, select_flags
from loops.runtime import output_files
from nets import registry

# Smaller numbers would make every output infinite.
_MIN_STD, _MIN_EPSILON = 1e-5, 1e-12
_PCA_TOLERANCE = 1e-3  # of published numbers and rounding


def check(config: Config) -> None:
    """Raises UsageError for a value that no run could use."""
    check_values(config)
    _require_resolved(config)
    if config.data.data_service and config.data.cache != "none":
        raise UsageError(
            f"--cache={config.data.cache} with --data_service: the workers of the service load the"
            " images; drop one"
        )
    if config.precision.xla and config.net.sync_batch_norm:
        raise UsageError("--xla does not support --sync_batch_norm; drop one")
    _check_net(config)
    _load((choices.METRICS, name) for name in config.evaluation.metrics.split(","))
    augment_spec.read(config.data)
    augment_spec.check_flags(config.data.augment, config.typed)
    _check_unused(config)
    _check_image_size_schedule(config)
    for name in ("save_every", "eval_every", "log_every", "keep_every"):
        interval = getattr(config.run, name)
        if name != "keep_every" or interval != "0":
            flag_parsers.parse_interval(interval, 1, f"--{name}")
    flag_parsers.parse_profile_window(config.run.profile)
    flag_parsers.parse_top_k(config.evaluation.top_k)
    flag_parsers.parse_test_sizes(config.evaluation.test_size)
    save_logits, features = config.evaluation.save_logits, config.prediction.features
    for flag, path in (("save_logits", save_logits), ("features", features)):
        if path and not path.endswith(".npz"):
            raise UsageError(f"--{flag}={path}: must end in .npz")
    check_outputs(config)


def check_values(config: Config) -> None:
    """Raises UsageError for a value that is wrong by itself; None is a value that is still open."""
    check_choices(config)
    check_ranges(config)
    _check_hidden_fields(config)


def check_choices(config: Config) -> None:
    """Raises UsageError for a flag whose value is not one of its choices."""
    values = config.leaves()
    for name, flag in all_flags().items():
        flag.check_choice(values[name])


def check_ranges(config: Config) -> None:
    """Raises UsageError for a number that is not finite, too small or too large."""
    flags = all_flags()
    for name, value in config.leaves().items():
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(n) for n in numbers if isinstance(n, float)):
            raise UsageError(f"{'--' if name in flags else ''}{name}={value}: must be finite")
        if name in flags:
            flags[name].check_range(value)


def _check_hidden_fields(config: Config) -> None:
    """Checks the fields that are not flags, which only a file can set."""
    data, net = config.data, config.net
    for name, length, low, high in (
        ("mean", 3, 0, 255),
        ("std", 3, _MIN_STD, 255),
        ("pca_values", 3, 0, 255**2 * 3),
        ("pca_vectors", 9, -1, 1),
    ):
        numbers = getattr(data, name)
        if numbers is None:
            continue
        tolerance = _PCA_TOLERANCE if name.startswith("pca") else 0.0
        if len(numbers) != length or not all(
            low - tolerance <= n <= high + tolerance for n in numbers
        ):
            prefix = "--" if name in all_flags() else ""
            raise UsageError(
                f"{prefix}{name}={numbers}: must be {length} numbers from {low} to {high}"
            )
    if "std" in config.typed and data.std is not None and max(data.std) <= 1:
        raise UsageError(
            f"--std={data.std}: is for pixels from 0 to 1; multiply --mean and --std by 255"
        )
    if not _MIN_EPSILON <= net.batch_norm_epsilon <= 1:
        raise UsageError(
            f"batch_norm_epsilon={net.batch_norm_epsilon}: must be from {_MIN_EPSILON} to 1"
        )
    if not 0 <= net.batch_norm_momentum <= 1:
        raise UsageError(f"batch_norm_momentum={net.batch_norm_momentum}: must be from 0 to 1")
    largest = all_flags()["image_size"].maximum
    if not 0 <= net.input_size <= largest:
        raise UsageError(f"input_size={net.input_size}: must be from 0 to {largest}")


def _require_resolved(config: Config) -> None:
    """Raises UsageError for a value that is still open and that every run needs."""
    values = config.leaves()
    for name in ("image_size", "batch_size", "min_crop_area", "warmup_epochs", "learning_rate"):
        if values[name] is None:
            raise UsageError(f"--{name} is missing from the config of the run; give the flag")


def _check_unused(config: Config) -> None:
    """Raises UsageError for a flag that has no effect together with the others."""
    data, optimization = config.data, config.optimization
    flag_parsers.parse_milestones(optimization.milestones, 1)
    if optimization.milestones and optimization.schedule != "step":
        raise UsageError(
            f"--milestones={optimization.milestones}: --schedule={optimization.schedule} has none;"
            " give --schedule=step, or --milestones="
        )
    spec = augment_spec.read(data)
    if data.mixup_off_epoch and "mixup" not in spec and "cutmix" not in spec:
        raise UsageError(
            f"--mixup_off_epoch={data.mixup_off_epoch}: no image is mixed; give --mixup or"
            " --cutmix, or --mixup_off_epoch=0"
        )
    moments = {"beta1": optimization.beta1, "beta2": optimization.beta2}
    for name, value in {**moments, "epsilon": optimization.epsilon}.items():
        if value is not None and optimization.optimizer in ("sgd", "lars", "muon"):
            raise UsageError(
                f"--{name}={value}: --optimizer={optimization.optimizer} does not use it; leave it"
                " out"
            )


def check_outputs(config: Config) -> None:
    """Raises UsageError for an output file that could not be written."""
    values = config.leaves()
    for name in sorted(select_flags(is_output_file=True)):
        if values[name]:
            _check_output(f"--{name}={values[name]}", pathlib.Path(values[name]))


def _check_output(flag: str, path: pathlib.Path) -> None:
    """Checks now, and not after hours of work, that a file can be written."""
    if output_files.is_stream(path):
        return
    if path.is_dir():
        raise UsageError(f"{flag}: this is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"{flag}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():  # a device or a pipe is written to, not replaced
        if not os.access(path, os.W_OK):
            raise UsageError(f"{flag}: is not writable")
        return
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{flag}: the folder {path.parent} is not writable")


def _check_image_size_schedule(config: Config) -> None:
    """Checks that the net accepts every size of `--image_size_schedule`."""
    schedule, model = config.data.image_size_schedule, user_code.display_name(config.net.model)
    flag = f"--image_size_schedule={schedule}"
    sizes = [size for _, size in flag_parsers.parse_image_size_schedule(schedule, 1.0)]
    smallest, largest = registry.min_image_size(config.net.model), all_flags()["image_size"].maximum
    if sizes and min(sizes) < smallest:
        raise UsageError(f"{flag}: {model} needs at least {smallest} px")
    if sizes and max(sizes) > largest:
        raise UsageError(f"{flag}: sizes must be at most {largest} px")
    if sizes and registry.has_fixed_input_size(config.net.model):
        raise UsageError(f"{flag}: {model} has a fixed input size; leave the flag out")


def check_training_code(config: Config) -> None:
    """Loads the functions in files of the user's that only training needs.

    Now, and not after hours of work.
    """
    pairs: tuple[tuple[user_code.Registry[Any], str], ...] = (
        (choices.OPTIMIZERS, config.optimization.optimizer),
        (choices.LOSSES, config.optimization.loss),
        (choices.STEPS, config.optimization.step),
        (choices.METRICS, config.evaluation.best),
    )
    user_code.list_files(config.leaves().values())  # no two have the same name
    _load(pairs)
    augment_spec.read(config.data).load_functions("image", "batch")


def _load(pairs: Iterable[tuple[user_code.Registry[Any], str]]) -> None:
    for kind, value in pairs:
        if user_code.is_typed(value):
            kind.get(value)


def _check_net(config: Config) -> None:
    """Checks what depends on the architecture."""
    net, image_size = config.net, config.data.image_size
    name = user_code.display_name(net.model)
    smallest = registry.min_image_size(net.model)
    if image_size < smallest:
        raise UsageError(f"--image_size={image_size}: {name} needs at least {smallest} px")
    if registry.has_fixed_input_size(net.model) and image_size != net.input_size:
        raise UsageError(
            f"--image_size={image_size}: the dense layers of this {name} need images of"
            f" {net.input_size} px"
        )
    if not registry.is_residual(net.model):
        values = config.leaves()
        for flag in sorted(select_flags(is_residual_only=True)):
            if values[flag]:
                raise UsageError(f"--{flag}: {name} has no residual blocks; leave it out")
