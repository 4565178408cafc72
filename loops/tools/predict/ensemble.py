"""Predicts images with one net or an ensemble.

Each net has its own preprocessing. All have the same classes.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline.text import pluralize
from loops.config.config import Config
from loops.distribution import strategies
from loops.evaluation import trained_models
from loops.evaluator import choose_views_per_batch, make_logits_fn
from loops.monitoring import progress_bar
from loops.runtime.out_of_memory import convert_out_of_memory
from loops.tools.predict import explain, views


@dataclasses.dataclass(frozen=True)
class Predictor(trained_models.TrainedModel):
    """A trained model that predicts images. Its weights are read on first use.

    Attributes:
      strategy: the strategy to build the net in.
    """

    strategy: "tf.distribute.Strategy"

    @property
    def preprocessing(self) -> views.Preprocessing:
        """The preprocessing that the net was trained for."""
        data = self.config.data
        crops, seam_carving = self.config.evaluation.crops, self.config.prediction.seam_carving
        return views.Preprocessing(
            data.image_size,
            data.crop_fraction,
            data.interpolation,
            crops,
            seam_carving,
            data.torchvision_rounding,
            data.exif,
        )

    @functools.cached_property
    def logits(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """The net as a function from uint8 views [B, V, S, S, 3] to float32 logits [B, V, C]."""
        return self._compile_logits_fn(self.restore(self.strategy))

    @functools.cached_property
    def logits_and_features(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Like `logits`, but to float32 [B, V, C + D]: the D inputs of the classifier follow."""
        model = self.restore(self.strategy)
        features = keras.ops.cast(model.get_layer("logits").input, "float32")
        outputs = keras.ops.concatenate([model.output, features], axis=-1)
        return self._compile_logits_fn(keras.Model(model.input, outputs))

    @functools.cached_property
    def float32_model(self) -> keras.Model:
        """The net in float32, also after mixed-precision training, for accurate gradients."""
        return self.restore(self.strategy, dtype="float32")

    @functools.cached_property
    def float32_logits(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """Like `logits`, but computed by `float32_model`."""
        return self._compile_logits_fn(self.float32_model)

    @functools.cached_property
    def grad_cam(self) -> Callable[[tf.Tensor, int], np.ndarray]:
        """The Grad-CAM function of `float32_model`, see `explain.make_grad_cam`."""
        return explain.make_grad_cam(self.float32_model, self.config.data.image_size)

    def _compile_logits_fn(self, model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
        data = self.config.data
        return tf.function(
            make_logits_fn(model, data.mean, data.std), reduce_retracing=True, autograph=False
        )


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """One net or several with the same classes.

    Attributes:
      predictors: one for each net.
      class_names: name of each class, by label.
    """

    predictors: tuple[Predictor, ...]
    class_names: tuple[str, ...]

    @property
    def preprocessings(self) -> tuple[views.Preprocessing, ...]:
        """The different kinds of preprocessing of the nets."""
        return tuple(dict.fromkeys(predictor.preprocessing for predictor in self.predictors))

    def load_float32_models(self) -> None:
        """Reads the float32 weights now, because training may remove the checkpoints later."""
        for predictor in self.predictors:
            _ = predictor.float32_model

    def predict(
        self,
        paths: Sequence[str],
        keep_features: Callable[[str, list[np.ndarray]], None] | None = None,
    ) -> Iterator[tuple[str, np.ndarray | None]]:
        """Runs all nets on image files, which are decoded in parallel and in batches.

        Args:
          paths: paths of the files.
          keep_features: called with the path of each decoded file and the inputs of the classifier
            of each net, float32 [D], averaged over the views.

        Yields:
          (path, float32 logits [M, V, C]) for each file, in order. The logits are None for a file
          that does not decode.

        Raises:
          UsageError: a batch does not fit into memory.
        """
        config, preprocessings = self.predictors[0].config, self.preprocessings
        max_batch_size = (
            config.evaluation.eval_batch_size
            or choose_views_per_batch() // preprocessings[0].num_views
        )
        batch_size = min(max_batch_size, len(paths))
        dataset = views.load_batches(paths, preprocessings, batch_size, config.data.reader_threads)
        bar = progress_bar.Progress("predict", len(paths))
        out_of_memory = convert_out_of_memory(
            f"--eval_batch_size={batch_size}", lambda: "give a smaller one"
        )
        with contextlib.closing(bar), out_of_memory:
            for number, (batch, decoded) in enumerate(dataset):
                inputs = [batch[preprocessings.index(p.preprocessing)] for p in self.predictors]
                # Start all nets before waiting for the first result.
                outputs = [
                    (p.logits_and_features if keep_features else p.logits)(x)
                    for p, x in zip(self.predictors, inputs, strict=True)
                ]
                arrays = [output.numpy() for output in outputs]
                num_classes = len(self.class_names)
                logits = np.stack([a[..., :num_classes] for a in arrays], axis=1)  # [B, M, V, C]
                batch_paths = paths[number * batch_size : (number + 1) * batch_size]
                images = zip(batch_paths, decoded.numpy(), logits, strict=False)
                for index, (path, is_decoded, image_logits) in enumerate(images):
                    if keep_features and is_decoded:
                        keep_features(
                            path, [a[index, :, num_classes:].mean(axis=0) for a in arrays]
                        )
                    yield path, image_logits if is_decoded else None
                bar.advance(len(batch_paths))


def load(config: Config) -> Ensemble:
    """Finds the models that `--ckpt` names and makes a strategy for them.

    Args:
      config: config of the command line.

    Raises:
      UsageError: see `trained_models.find_models`.
    """
    models = trained_models.find_models(config)
    strategy = strategies.make_strategy(strategies.to_single_process(config.distribution))
    class_names = models[0].record.class_names
    logging.debug("%s, %s", pluralize(len(models), "net"), pluralize(len(class_names), "class"))
    predictors = tuple(Predictor(**vars(model), strategy=strategy) for model in models)
    return Ensemble(predictors, class_names)
