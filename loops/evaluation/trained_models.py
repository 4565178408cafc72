"""The models that `--ckpt` names, each with the preprocessing that it was trained with."""

import dataclasses
import pathlib

import keras
import tensorflow as tf

from input_pipeline.config import PREPROCESSING_FIELDS, DataConfig
from input_pipeline.errors import UsageError
from input_pipeline.sources import manifest
from loops.checkpointing import checkpoint, restore, run_folder
from loops.config import dataset_flags, local_paths, resolve, validation
from loops.config.config import Config, merge, select_flags
from loops.optimization import mixed_precision


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """One checkpoint of one run.

    Attributes:
      run_dir: the run folder.
      step_dir: the step folder.
      record: Record of the run.
      config: config of the run with the flags of this command. If there are several models, all
        read the images of the first one, and each keeps its own image size and normalization.
    """

    run_dir: pathlib.Path
    step_dir: pathlib.Path
    record: run_folder.Record
    config: Config

    @property
    def step(self) -> int:
        """Number of training steps."""
        return checkpoint.parse_step(self.step_dir)

    @property
    def has_ema(self) -> bool:
        """Whether the checkpoint has averaged weights (EMA) as well as raw ones."""
        return bool(self.record.config.optimization.ema)

    def restore(
        self, strategy: tf.distribute.Strategy, averaged: bool = True, dtype: str | None = None
    ) -> keras.Model:
        """Builds the model and loads its weights, see `restore.restore_model`.

        Args:
          strategy: of the model.
          averaged: load the averaged weights if there are any.
          dtype: compute type; that of the config by default.
        """
        dtype = dtype or mixed_precision.resolve_compute_dtype(self.config.precision)
        return restore.restore_model(strategy, self.record, self.step_dir, dtype, averaged)


def make_evaluation_config(record: run_folder.Record, config: Config) -> Config:
    """Returns the config of a run with the flags of an evaluation.

    Args:
      record: Record of the run.
      config: config of the command line.

    Raises:
      UsageError: a typed flag conflicts with the run.
    """
    own = {n: getattr(config, n) for n in ("evaluation", "prediction", "export", "distribution")}
    saved = dataclasses.replace(record.config, **own)
    may_change = select_flags(on_eval=True)
    if record.weights:
        # Imported weights were trained on unknown images: any data set with their classes will do.
        named, config = config, dataset_flags.resolve_dataset(config)
        may_change = may_change | {"dataset"}
        if config.data.dataset != named.data.dataset or manifest.exists(config.data.data_dir):
            config = dataclasses.replace(config, typed=config.typed | {"dataset"})
    merged = merge(saved, config, may_change, "evaluate")
    # An evaluation reads each image once, in this process.
    reading = {"data_service": "", "cache": "none"}
    merged = merged.replace(**{k: v for k, v in reading.items() if k not in config.typed})
    dataset_flags.require_named_dataset(merged)
    return resolve.fill_pixel_statistics(merged)


def find_models(config: Config) -> list[TrainedModel]:
    """Returns the models that `--ckpt` names, separated by commas.

    Args:
      config: config of the command line.

    Raises:
      UsageError: there is no intact checkpoint, or the models have different classes.
    """
    models = []
    for name in local_paths.split(config.evaluation.ckpt):
        run_dir, step_dir = run_folder.find_checkpoint(name)
        record = run_folder.read_record(run_dir)
        own = make_evaluation_config(record, config)
        if models:
            _require_same_classes(models[0], record, name)
            own = dataclasses.replace(
                own, data=_merge_data_configs(models[0].config.data, own.data)
            )
        validation.check(own)
        models.append(TrainedModel(run_dir, step_dir, record, own))
    return models


def _merge_data_configs(first: DataConfig, own: DataConfig) -> DataConfig:
    """Returns the DataConfig of the first model with the preprocessing of another one."""
    names = (*PREPROCESSING_FIELDS, "image_size_schedule")
    return dataclasses.replace(first, **{name: getattr(own, name) for name in names})


def _require_same_classes(first: TrainedModel, record: run_folder.Record, name: str) -> None:
    """Raises UsageError if the classes of a run differ from those of the first model."""
    theirs, ours = first.record.class_names, record.class_names
    if theirs == ours:
        return
    shared = min(len(theirs), len(ours))
    index = next((i for i in range(shared) if ours[i] != theirs[i]), shared)
    if len(theirs) != len(ours):
        extra = sorted({*ours} ^ {*theirs})[0]
        reason = (
            f"has {len(ours)} classes, but {first.run_dir} has {len(theirs)}: only one of them has"
            f" {extra!r}"
        )
    elif set(theirs) == set(ours):
        reason = f"has the classes of {first.run_dir} in another order, from class {index} on"
    else:
        reason = f"class {index} is {ours[index]}, but {theirs[index]} in {first.run_dir}"
    raise UsageError(f"--ckpt={name}: {reason}; models with different classes cannot be averaged")
