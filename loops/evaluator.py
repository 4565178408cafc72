"""The evaluation loop: one model over one split, every image once, on any number of replicas."""

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from input_pipeline import pipeline
from input_pipeline.arithmetic import ceil_div
from input_pipeline.augmentation import batch_augment
from input_pipeline.config import DataConfig
from input_pipeline.errors import DataError
from input_pipeline.sources.source import Source
from loops.config.config import Config
from loops.distribution import strategies, workers
from loops.metrics import classification, logits_reader
from loops.monitoring import progress_bar
from loops.runtime.out_of_memory import convert_out_of_memory

# Default number of views per batch: enough to keep a GPU busy, and few enough for one with little
# memory. A CPU is faster with fewer views, because their activations fit into its caches (by a
# quarter for ResNetV2-50 at 224 px).
_GPU_VIEWS_PER_BATCH = 250
_CPU_VIEWS_PER_BATCH = 50


class EvaluationInterrupted(Exception):
    """The caller's `stop` function requested that the evaluation end."""


def make_logits_fn(
    model: keras.Model, mean: Iterable[float], std: Iterable[float]
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function from views uint8 [B, V, S, S, 3] to float32 logits [B, V, C].

    Everything that evaluates a model uses this function.

    Args:
      model: from normalized images to logits.
      mean, std: mean and standard deviation of the training pixels, 0..255.
    """

    def compute_logits(views):
        batch, crops, size = views.shape[0], views.shape[1], views.shape[2]
        images = tf.reshape(views, [batch * crops, size, size, 3])  # [B * V, S, S, 3]
        outputs = model(batch_augment.normalize(images, mean, std), training=False)
        return tf.reshape(outputs, [batch, crops, -1])  # [B, V, C]

    return compute_logits


def choose_views_per_batch(replicas: int = 1) -> int:
    """Returns the default number of views per batch, over all replicas."""
    if tf.config.list_physical_devices("GPU"):
        return _GPU_VIEWS_PER_BATCH * replicas
    return _CPU_VIEWS_PER_BATCH  # the replicas share one CPU


class Evaluator:
    """Evaluates one model on one split, any number of times.

    Args:
      strategy: the distribution strategy that the model was built under.
      model: maps normalized images to logits.
      split: the images.
      data: DataConfig with its sizes resolved.
      crops: views per image, 1 or 10.
      batch_size: images per batch over all replicas, rounded up to a multiple of the number of
        replicas; 0 for the default.
    """

    @classmethod
    def from_config(
        cls, strategy: tf.distribute.Strategy, model: keras.Model, split: Source, config: Config
    ) -> "Evaluator":
        """Makes the Evaluator that `--crops` and `--eval_batch_size` ask for."""
        own = config.evaluation
        return cls(strategy, model, split, config.data, own.crops, own.eval_batch_size)

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        split: Source,
        data: DataConfig,
        crops: int,
        batch_size: int = 0,
    ):
        replicas = strategy.num_replicas_in_sync
        batch_size = batch_size or max(1, choose_views_per_batch(replicas) // crops)
        per_replica = ceil_div(min(batch_size, split.num_examples), replicas)
        self._split = split
        self._strategy = strategy
        self._batch_size = per_replica * replicas
        self._dataset = strategies.distribute(
            strategy,
            lambda: pipeline.eval_dataset(
                split, data, crops, per_replica, replicas, workers.get_replica_slice(strategy)
            ),
        )
        compute_logits = make_logits_fn(model, data.mean, data.std)
        self._step = tf.function(
            lambda batch: strategy.run(
                lambda b: {**b, "views": compute_logits(b["views"])}, args=(batch,)
            ),
            autograph=False,
        )
        self._is_compiled = False

    def __call__(
        self,
        max_batches: int | None = None,
        stop: Callable[[], bool] = lambda: False,
        keep: Callable[[np.ndarray], None] = lambda logits: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Evaluates the split.

        Args:
          max_batches: stop after this many batches.
          stop: called after each batch; if it returns true, the evaluation ends.
          keep: called with the logits of each batch, float32 [b, V, C], in the split's order.

        Returns:
          (probabilities float64 [N, C], labels int32 [N]).

        Raises:
          DataError: an image does not decode. An evaluation never leaves an image out.
          UsageError: a batch does not fit into memory.
          EvaluationInterrupted: `stop` returned true.
        """
        total = self._split.num_examples
        bar = progress_bar.Progress("eval", total)
        probabilities, labels = [], []
        num_images = 0
        if not self._is_compiled:
            bar.announce("compiling the evaluation")
        iterator = iter(self._dataset)
        out_of_memory = convert_out_of_memory(
            f"--eval_batch_size={self._batch_size}", lambda: "give a smaller --eval_batch_size"
        )
        try:
            with out_of_memory:
                while num_images < total and len(labels) != max_batches:
                    batch = workers.gather(self._strategy, self._step(next(iterator)))
                    is_real = batch["mask"]
                    logits = batch["views"][is_real]  # [b, V, C]
                    keep(logits)
                    probabilities.append(classification.mean_softmax(logits))
                    labels.append(batch["label"][is_real])
                    num_images += len(labels[-1])
                    self._is_compiled = True
                    bar.advance(len(labels[-1]))
                    if stop():
                        raise EvaluationInterrupted
        except tf.errors.UnavailableError:  # another worker has ended; no image is to blame
            raise
        except tf.errors.OpError as error:
            raise self._to_data_error(error, num_images) from error
        finally:
            bar.close()
        if max_batches is None and num_images != total:
            raise RuntimeError(f"evaluated {num_images} of {total} images")
        return np.concatenate(probabilities), np.concatenate(labels)

    def _to_data_error(self, error: Exception, first: int) -> Exception:
        """Returns the DataError that names the unreadable image, or the error itself."""
        last = min(first + 2 * self._batch_size, self._split.num_examples)
        unreadable = pipeline.find_first_unreadable(self._split, range(first, last))
        if unreadable is None:
            return error
        index, reason = unreadable
        return DataError(f"{self._split.describe(index)} does not decode: {reason}")


def predict_probabilities(
    evaluator: Evaluator,
    crops: int,
    keep: Callable[[np.ndarray], None] = lambda logits: None,
) -> dict[int, np.ndarray]:
    """Evaluates once; returns the probabilities over all views and of the center crop.

    Args:
      evaluator: an Evaluator with `crops` views per image.
      crops: number of views V.
      keep: see `Evaluator`.

    Returns:
      dict from the number of views, V and 1, to float64 [N, C].
    """
    center = []

    def keep_both(logits):
        keep(logits)
        if crops > 1:
            center.append(logits_reader.mean_softmax_of_crops(logits, 1))

    probs, _ = evaluator(keep=keep_both)
    return {crops: probs} | ({1: np.concatenate(center)} if center else {})
