"""Completes and checks a configuration: defaults of the data set, ranges, flags that conflict."""

import dataclasses
import math
import pathlib

from input_pipeline import augment_flag, datasets
from input_pipeline.errors import UsageError
from loops import flag_fields
from loops.config import leaves, replace
from nets import registry


def resolve(config):
    """Fills what the user left to the dataset and checks what several flags decide together.

    Raises:
      UsageError: flags that conflict or values out of range.
    """
    spec = datasets.get(config.data.dataset)
    values = dict(leaves(config))
    lengths = [name for name in ("epochs", "steps", "examples") if values[name] is not None]
    if len(lengths) > 1:
        raise UsageError(f"--{lengths[0]} and --{lengths[1]} are both given: give one of them")
    from_dataset = ["image_size", "batch_size", "min_crop_area", "learning_rate", "warmup_epochs"]
    from_dataset += [] if lengths else ["epochs"]
    defaults = {n: getattr(spec, n) for n in from_dataset if values[n] is None}
    config = with_statistics(replace(config, defaults))
    check(config)
    return config


def with_statistics(config):
    """Fills in the statistics of the data set's pixels, unless the run has its own."""
    spec = datasets.get(config.data.dataset)
    own = config.data
    return replace(
        config,
        {
            "mean": own.mean or spec.mean,
            "std": own.std or spec.std,
            "pca_values": own.pca_values or spec.pca_values,
            "pca_vectors": own.pca_vectors or spec.pca_vectors,
        },
    )


def check(config):
    """Raises UsageError for a value that no run could use."""
    _check_choices(config)
    values = dict(leaves(config))
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"--{name}={value}: must be finite")
    least = {
        "epochs": 1e-9, "steps": 1, "examples": 1, "batch_size": 1, "learning_rate": 0, "keep": 1,
        "cpu_devices": 1, "weight_decay": 0, "eval_batch_size": 0, "reader_threads": 0, "seed": 0,
        "warmup_epochs": 0, "initial_loss_scale": 2.0**-5, "mixup": 0, "cutmix": 0,
    }  # fmt: skip
    for name, low in least.items():
        if values[name] is not None and values[name] < low:
            raise UsageError(f"--{name}={values[name]}: must be at least {low}")
    if values["seed"] >= 2**32:
        raise UsageError(f"--seed={values['seed']}: must be below 2**32")
    if not 0.1 <= config.data.crop_fraction <= 1:
        raise UsageError(f"--crop_fraction={config.data.crop_fraction}: must be from 0.1 to 1")
    for name in ("label_smoothing", "min_crop_area", "momentum"):
        if not 0 <= values[name] <= 1:
            raise UsageError(f"--{name}={values[name]}: must be between 0 and 1")
    augment_flag.parse(config.data.augment)
    augment_flag.layers_and_magnitude(config.data.randaugment)
    smallest = registry.smallest_image(config.net.model)
    if config.data.image_size < smallest:
        raise UsageError(
            f"--image_size={config.data.image_size}: {config.net.model} needs at least {smallest}"
        )
    for name in ("save_every", "eval_every", "log_every"):
        interval(values[name], 1, f"--{name}")
    top_ks(config.evaluation.top_k)
    json_folder = pathlib.Path(config.evaluation.json).parent
    if not json_folder.is_dir():
        raise UsageError(f"--json={config.evaluation.json}: there is no folder {json_folder}")


def _check_choices(config):
    """Flags are checked as they are parsed; this is for a config.json from elsewhere."""
    for field in flag_fields.of(type(config)):
        value = getattr(config, field.name)
        if field.choices and value not in field.choices:
            raise UsageError(f"--{field.name}={value}: unknown value; see --help")
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(getattr(config, field.name)):
            _check_choices(getattr(config, field.name))


def interval(text, steps_per_epoch, flag):
    """Steps of an interval given as `500` or `2epochs`; at least one.

    Raises:
      UsageError: neither form.
    """
    number, is_epochs = (text[: -len("epochs")], True) if text.endswith("epochs") else (text, False)
    try:
        value = float(number) if is_epochs else int(number)
    except ValueError:
        value = 0
    if not 0 < value < math.inf:
        raise UsageError(f"{flag}={text}: give steps as in 500, or epochs as in 2epochs")
    return max(1, round(value * steps_per_epoch)) if is_epochs else value


def total_steps(length, num_examples, batch_size):
    """Optimizer steps of a whole run; the one place that turns a duration into steps."""
    if length.steps:
        return length.steps
    examples = length.examples or length.epochs * num_examples
    return max(1, -(-round(examples) // batch_size))


def top_ks(text):
    """The ks of `--top_k` as a sorted tuple of ints."""
    try:
        ks = tuple(sorted({int(k) for k in text.split(",")}))
    except ValueError:
        ks = (0,)
    if ks[0] < 1:
        raise UsageError(f"--top_k={text}: give numbers from 1, separated by commas")
    return ks
