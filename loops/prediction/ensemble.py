"""The nets that predict together: each with its own preprocessing, all with the same classes."""

import dataclasses
import functools
import os

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from loops import explain, validation
from loops.config import Config
from loops.evaluate import VIEWS_PER_BATCH, evaluation_config, logits_fn
from loops.prediction import views
from loops.run import progress, restored_net, run_folder
from loops.step import distribution, precision


@dataclasses.dataclass(frozen=True)
class Member:
    """One net of an ensemble.

    Attributes:
      step_dir: the step folder that its weights are from.
      record: Record of its run.
      config: the run's Config with the flags of this command laid over it.
      strategy: tf.distribute.Strategy.
    """

    step_dir: object
    record: run_folder.Record
    config: Config
    strategy: object

    @property
    def sight(self):
        """How this net sees a picture."""
        data = self.config.data
        crops, seams = self.config.evaluation.crops, self.config.prediction.seam_carving
        return views.Sight(data.image_size, data.crop_fraction, data.interpolation, crops, seams)

    @functools.cached_property
    def logits(self):
        """The net as a function from uint8 views [B, V, S, S, 3] to float32 logits [B, V, C]."""
        model = self._restored(precision.compute_dtype(self.config.precision))
        return self._traced(model)

    @functools.cached_property
    def float32_model(self):
        """The net in float32, whatever it was trained in: gradients are looked at closely."""
        return self._restored("float32")

    @functools.cached_property
    def float32_logits(self):
        """As `logits`, by `float32_model`."""
        return self._traced(self.float32_model)

    @functools.cached_property
    def grad_cam(self):
        """Where `float32_model` sees a class, see `explain.make_grad_cam`."""
        return explain.make_grad_cam(self.float32_model, self.config.data.image_size)

    def _restored(self, dtype):
        return restored_net.restore(self.strategy, self.record, self.step_dir, dtype)

    def _traced(self, model):
        data = self.config.data
        return tf.function(logits_fn(model, data.mean, data.std), reduce_retracing=True)


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """One net or several.

    Attributes:
      members: tuple of Member.
      class_names: of all of them, by label.
    """

    members: tuple
    class_names: tuple

    @property
    def sights(self):
        """The different ways in which they see a picture: tuple of Sight."""
        return tuple(dict.fromkeys(member.sight for member in self.members))

    def predict(self, paths):
        """Runs every net on every file, with batches of files decoded in parallel.

        Args:
          paths: list of str.

        Yields:
          (path, float32 logits [M, V, C]) for each file, in order; None in place of the logits of
          a file that does not decode.
        """
        config, sights = self.members[0].config, self.sights
        most = config.evaluation.eval_batch_size or VIEWS_PER_BATCH // sights[0].num_views
        batch_size = min(most, len(paths))
        dataset = views.of_files(paths, sights, batch_size, config.data.reader_threads)
        bar = progress.Progress("predict", len(paths))
        try:
            for number, (batch, decoded) in enumerate(dataset):
                looks = [batch[sights.index(member.sight)] for member in self.members]
                calls = [m.logits(look) for m, look in zip(self.members, looks, strict=True)]
                logits = np.stack([call.numpy() for call in calls], axis=1)  # [B, M, V, C]
                here = paths[number * batch_size : (number + 1) * batch_size]
                for path, good, of_image in zip(here, decoded.numpy(), logits, strict=False):
                    yield path, of_image if good else None
                bar.advance(len(here))
        finally:
            bar.close()


def load(config, given):
    """Finds the nets that `--ckpt` names; their weights are read when they are first wanted.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.

    Returns:
      Ensemble.

    Raises:
      UsageError: a folder without a checkpoint, nets of different classes, flags that conflict.
    """
    ckpt = config.evaluation.ckpt
    names = [ckpt] if os.path.isdir(ckpt) else ckpt.split(",")
    found = [run_folder.find_checkpoint(name) for name in names]
    records = [run_folder.read_record(run_dir) for run_dir, _ in found]
    for name, record in zip(names, records, strict=True):
        if record.class_names != records[0].class_names:
            raise UsageError(f"--ckpt={name}: {_difference(record, records[0], names[0])}")
    configs = [evaluation_config(record, config, given) for record in records]
    for of_run in configs:
        validation.check(of_run)
    strategy = distribution.make_strategy(config.distribution)
    members = tuple(
        Member(step_dir, record, of_run, strategy)
        for (_, step_dir), record, of_run in zip(found, records, configs, strict=True)
    )
    logging.info("%d net(s), %d classes", len(members), len(records[0].class_names))
    return Ensemble(members, records[0].class_names)


def _difference(record, first, first_name):
    """What keeps two runs from being averaged."""
    ours, theirs = record.class_names, first.class_names
    mend = "average runs of the same classes"
    if set(ours) == set(theirs):
        return f"its classes have another order than those of {first_name}; {mend}"
    foreign = sorted(set(ours) ^ set(theirs))[0]
    return (
        f"its {len(ours)} classes are not the {len(theirs)} of {first_name}, {foreign!r} is of one"
        f" alone; {mend}"
    )
