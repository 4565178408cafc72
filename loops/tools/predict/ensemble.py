"""The nets that predict together: each with its own preprocessing, all with the same classes."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.text import pluralize, tf_error_message
from loops.config.config import Config
from loops.distribution import strategies
from loops.evaluation import trained_models
from loops.evaluator import choose_views_per_batch, make_logits_fn
from loops.monitoring import progress_bar
from loops.tools.predict import explain, views


@dataclasses.dataclass(frozen=True)
class Predictor(trained_models.TrainedModel):
    """A member that predicts pictures; its weights are read when they are first wanted.

    Attributes:
      strategy: tf.distribute.Strategy.
    """

    strategy: object

    @property
    def preprocessing(self):
        """How this net sees a picture."""
        data = self.config.data
        crops, seams = self.config.evaluation.crops, self.config.prediction.seam_carving
        return views.Preprocessing(
            data.image_size, data.crop_fraction, data.interpolation, crops, seams
        )

    @functools.cached_property
    def logits(self):
        """The net as a function from uint8 views [B, V, S, S, 3] to float32 logits [B, V, C]."""
        return self._compile_logits_fn(self.restore(self.strategy))

    @functools.cached_property
    def float32_model(self):
        """The net in float32, whatever it was trained in: gradients are looked at closely."""
        return self.restore(self.strategy, dtype="float32")

    @functools.cached_property
    def float32_logits(self):
        """As `logits`, by `float32_model`."""
        return self._compile_logits_fn(self.float32_model)

    @functools.cached_property
    def grad_cam(self):
        """Where `float32_model` sees a class, see `explain.make_grad_cam`."""
        return explain.make_grad_cam(self.float32_model, self.config.data.image_size)

    def _compile_logits_fn(self, model):
        data = self.config.data
        return tf.function(
            make_logits_fn(model, data.mean, data.std), reduce_retracing=True, autograph=False
        )


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """One net or several.

    Attributes:
      members: tuple of Predictor.
      class_names: of all of them, by label.
    """

    members: tuple
    class_names: tuple

    @property
    def preprocessings(self):
        """The different ways in which they see a picture: tuple of Sight."""
        return tuple(dict.fromkeys(member.preprocessing for member in self.members))

    def load_float32_models(self):
        """Reads the weights in float32 as well, while the checkpoints are there."""
        for member in self.members:
            _ = member.float32_model

    def predict(self, paths):
        """Runs every net on every file, with batches of files decoded in parallel.

        Args:
          paths: list of str.

        Yields:
          (path, float32 logits [M, V, C]) for each file, in order; None in place of the logits of
          a file that does not decode.
        """
        config, sights = self.members[0].config, self.preprocessings
        most = config.evaluation.eval_batch_size or choose_views_per_batch() // sights[0].num_views
        batch_size = min(most, len(paths))
        dataset = views.make_dataset(paths, sights, batch_size, config.data.reader_threads)
        bar = progress_bar.Progress("predict", len(paths))
        try:
            for number, (batch, decoded) in enumerate(dataset):
                looks = [batch[sights.index(member.preprocessing)] for member in self.members]
                calls = [m.logits(look) for m, look in zip(self.members, looks, strict=True)]
                logits = np.stack([call.numpy() for call in calls], axis=1)  # [B, M, V, C]
                here = paths[number * batch_size : (number + 1) * batch_size]
                for path, good, of_image in zip(here, decoded.numpy(), logits, strict=False):
                    yield path, of_image if good else None
                bar.advance(len(here))
        except tf.errors.ResourceExhaustedError as error:
            raise UsageError(
                f"--eval_batch_size={batch_size}: out of memory; give a smaller one"
                f" ({tf_error_message(error)[:100]})"
            ) from None
        finally:
            bar.close()


def load(config: Config) -> Ensemble:
    """Finds the models that `--ckpt` names and makes a strategy for them.

    Args:
      config: config of the command line.

    Raises:
      UsageError: see `trained_models.find`.
    """
    models = trained_models.find(config)
    strategy = strategies.make_strategy(strategies.to_single_process(config.distribution))
    class_names = models[0].record.class_names
    logging.info("%s, %s", pluralize(len(models), "net"), pluralize(len(class_names), "class"))
    members = tuple(Predictor(**vars(model), strategy=strategy) for model in models)
    return Ensemble(members, class_names)
