"""The models that `--ckpt` names, each with the preprocessing it was trained for."""

import dataclasses
import os
import pathlib

from input_pipeline.errors import UsageError
from input_pipeline.sources import manifest
from loops.checkpointing import checkpoint, restore, run_folder
from loops.config import dataset_flags, validation
from loops.config.config import MAY_CHANGE_ON_EVAL, Config, merge, replace
from loops.optimization import mixed_precision


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """One checkpoint of one run.

    Attributes:
      run_dir, step_dir: pathlib.Path.
      record: Record of the run.
      config: its Config, with this command's flags laid over it; the images are those of the
        first member, their size and normalisation its own.
    """

    run_dir: pathlib.Path
    step_dir: pathlib.Path
    record: run_folder.Record
    config: Config

    @property
    def step(self):
        """Number of training steps behind the weights."""
        return checkpoint.parse_step(self.step_dir)

    @property
    def has_ema(self):
        """Whether there is a moving average of the weights beside the weights."""
        return bool(self.record.config.optimization.ema)

    def restore(self, strategy, averaged=True, dtype=None):
        """Builds the net and reads its weights: keras.Model; see `restore.restore_model`.

        Without a dtype it computes in that of the config.
        """
        dtype = dtype or mixed_precision.resolve_compute_dtype(self.config.precision)
        return restore.restore_model(strategy, self.record, self.step_dir, dtype, averaged)


def make_evaluation_config(record, config, given):
    """The run's own config, but for what belongs to this evaluation and this machine."""
    own = {n: getattr(config, n) for n in ("evaluation", "prediction", "export", "distribution")}
    saved = dataclasses.replace(record.config, **own)
    may_change = MAY_CHANGE_ON_EVAL
    if record.weights:  # of images that are not recorded: any set with their classes will do
        config = dataclasses.replace(config, data=dataset_flags.resolve_dataset(config.data, given))
        may_change = may_change | {"dataset"}
        given = given | ({"dataset"} if manifest.exists(config.data.data_dir) else set())
    merged = merge(saved, given, config, may_change, "evaluate")
    # How training got its images: an evaluation passes over them once, by itself.
    of_training = {"data_service": "", "cache": "none"}
    merged = replace(merged, {k: v for k, v in of_training.items() if k not in given})
    dataset_flags.require_named_dataset(merged.data, given)
    return validation.fill_pixel_statistics(merged)


def find(config, given):
    """The members that `--ckpt` names, separated by commas.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.

    Returns:
      list of Member.

    Raises:
      UsageError: nothing intact there, or models of different classes.
    """
    members = []
    ckpt = config.evaluation.ckpt
    for name in [ckpt] if os.path.isdir(ckpt) else ckpt.split(","):
        run_dir, step_dir = run_folder.find_checkpoint(name)
        record = run_folder.read_record(run_dir)
        own = make_evaluation_config(record, config, given)
        if members:
            _require_same_classes(members[0], record, name)
            own = dataclasses.replace(
                own, data=_merge_data_configs(members[0].config.data, own.data)
            )
        validation.check(own)
        members.append(TrainedModel(run_dir, step_dir, record, own))
    return members


def _merge_data_configs(first, own):
    """DataConfig of the first member's images, made into inputs as a member is used to."""
    kept = ("image_size", "image_size_schedule", "crop_fraction", "interpolation", "mean", "std")
    return dataclasses.replace(first, **{name: getattr(own, name) for name in kept})


def _require_same_classes(first, record, name):
    theirs, ours = first.record.class_names, record.class_names
    if theirs == ours:
        return
    shared = min(len(theirs), len(ours))
    at = next((i for i in range(shared) if ours[i] != theirs[i]), shared)
    if len(theirs) != len(ours):
        foreign = sorted({*ours} ^ {*theirs})[0]
        reason = (
            f"has {len(ours)} classes, and {first.run_dir} has {len(theirs)}: {foreign!r} is of one"
            " alone"
        )
    elif set(theirs) == set(ours):
        reason = f"has the classes of {first.run_dir} in another order, from class {at} on"
    else:
        reason = f"class {at} is {ours[at]}, and {theirs[at]} in {first.run_dir}"
    raise UsageError(f"--ckpt={name}: {reason}; models of different classes have no average")
