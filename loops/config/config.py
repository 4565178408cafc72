"""The whole configuration: the tree that flags build, and what may change later."""

import dataclasses
from typing import Annotated, Literal

from input_pipeline.config import DataConfig, PrepareConfig, ServiceConfig
from input_pipeline.errors import UsageError
from loops.config.tools import (
    BenchmarkConfig,
    EvalConfig,
    ExportConfig,
    ImportConfig,
    PredictConfig,
)
from loops.config.training import (
    DistributionConfig,
    FineTuningConfig,
    LengthConfig,
    OptimizationConfig,
    PrecisionConfig,
    RunConfig,
)
from nets import registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything a mode needs, made once from the command line."""

    mode: Annotated[
        Literal[
            *("train", "eval", "predict", "import", "export", "average"),
            *("prepare", "verify", "stats", "data_service", "benchmark", "repro"),
        ],
        "What to do. train: start or resume a run; eval: judge checkpoints; predict: classes of "
        "pictures; import, export: weights from and for other programs; average: one net of "
        "several checkpoints; prepare, verify, stats: make, check and measure a data set; "
        "data_service: load images for trainers; benchmark: measure speed; repro: replay the "
        "first steps of a run, exit code 3 where they depart.",
    ] = "train"
    net: registry.NetConfig = dataclasses.field(default_factory=registry.NetConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    length: LengthConfig = dataclasses.field(default_factory=LengthConfig)
    optimization: OptimizationConfig = dataclasses.field(default_factory=OptimizationConfig)
    precision: PrecisionConfig = dataclasses.field(default_factory=PrecisionConfig)
    distribution: DistributionConfig = dataclasses.field(default_factory=DistributionConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    evaluation: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    prediction: PredictConfig = dataclasses.field(default_factory=PredictConfig)
    importing: ImportConfig = dataclasses.field(default_factory=ImportConfig)
    fine_tuning: FineTuningConfig = dataclasses.field(default_factory=FineTuningConfig)
    prepare: PrepareConfig = dataclasses.field(default_factory=PrepareConfig)
    export: ExportConfig = dataclasses.field(default_factory=ExportConfig)
    service: ServiceConfig = dataclasses.field(default_factory=ServiceConfig)
    measurement: BenchmarkConfig = dataclasses.field(default_factory=BenchmarkConfig)


# Files that a command is told to write.
OUTPUT_FLAGS = ("json", "csv", "report", "save_logits")

# What may differ when a run is resumed: its length, paths, devices, and what is written when.
MAY_CHANGE_ON_RESUME = frozenset(
    ("mode", "epochs", "steps", "examples", "checkpoint_dir", "run_name", "keep", "json")
    + ("save_every", "eval_every", "log_every", "crops", "top_k", "eval_batch_size")
    + ("data_dir", "train_list", "val_list", "test_list", "class_names", "reader_threads")
    + ("strategy", "cpu_devices", "recompute", "keep_every", "log_norms", "profile")
    + ("cache", "data_service")
)
# What may differ when a run is evaluated: besides, the images' size and split, and the precision.
MAY_CHANGE_ON_EVAL = MAY_CHANGE_ON_RESUME.union(
    ("ckpt", "split", "image", "image_size", "mixed_precision", "half_dtype", "deterministic")
    + ("crop_fraction", "interpolation")
    + ("seam_carving", "explain", "report", "csv")
    + ("test_size", "real_labels", "save_logits", "logits", "members", "watch", "watch_patience")
    + ("format", "out", "quantize", "calibration_images", "bn_batches")
)


def leaves(config):
    """Yields (flag name, value) of every field that has a flag, depth first."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value)
        else:
            yield field.name, value


def replace(config, values):
    """Returns the config with the named leaves replaced, wherever in the tree they are."""
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = replace(value, values)
        elif field.name in values:
            changes[field.name] = values[field.name]
    return dataclasses.replace(config, **changes)


def merge(saved, given, values, may_change, mode):
    """A saved run's config with the flags of this command laid over it.

    Args:
      saved: Config from the run's config.json.
      given: names of the flags that the user typed.
      values: Config of this command.
      may_change: names of the flags that may differ from the saved ones.
      mode: what is being done, for the message.

    Raises:
      UsageError: a flag that the user typed conflicts with the run.
    """
    old, new = dict(leaves(saved)), dict(leaves(values))
    for name in sorted(given - may_change):
        if new[name] != old[name]:
            raise UsageError(
                f"--{name}={new[name]} conflicts with the run, which has {old[name]}: leave the"
                f" flag out to {mode} it, or start a new run"
            )
    # A file that an earlier command was told to write is no wish of this one.
    changed = dict.fromkeys(OUTPUT_FLAGS, "")
    changed |= {name: new[name] for name in given if name in old}
    if given & {"epochs", "steps", "examples"}:
        changed = {"epochs": None, "steps": None, "examples": None, **changed}
    return replace(saved, changed)
