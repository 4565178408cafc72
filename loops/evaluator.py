"""One net over one split: every image once, on any number of replicas."""

import numpy as np
import tensorflow as tf

from input_pipeline import pipeline
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import DataError, UsageError
from input_pipeline.text import tf_error_message
from loops.distribution import strategies, workers
from loops.metrics import classification, logits_reader
from loops.monitoring import progress_bar

# Views of one batch where the user names no batch size: fills a GPU, fits a small one. A CPU is
# faster with fewer, whose activations stay closer to it (ResNetV2-50 at 224 px: by a quarter).
_GPU_VIEWS_PER_BATCH = 250
_CPU_VIEWS_PER_BATCH = 50


class Interrupted(Exception):
    """The caller's `stop` asked for an end."""


def make_logits_fn(model, mean, std):
    """The seam between a net and all that judges it.

    Args:
      model: keras.Model from normalised images to logits.
      mean, std: of the training pixels, 0..255.

    Returns:
      function from views uint8 [B, V, S, S, 3] to float32 logits [B, V, C].
    """

    def logits(views):
        batch, crops, size = views.shape[0], views.shape[1], views.shape[2]
        images = tf.reshape(views, [batch * crops, size, size, 3])  # [B * V, S, S, 3]
        outputs = model(batch_augment.normalize(images, mean, std), training=False)
        return tf.reshape(outputs, [batch, crops, -1])  # [B, V, C]

    return logits


def choose_views_per_batch(replicas=1):
    """Views of one batch on so many replicas, where the user names no batch size."""
    if tf.config.list_physical_devices("GPU"):
        return _GPU_VIEWS_PER_BATCH * replicas
    return _CPU_VIEWS_PER_BATCH  # which its replicas share


class Evaluator:
    """Evaluates one net on one split, as often as wanted.

    Args:
      strategy: tf.distribute.Strategy of the model.
      model: keras.Model.
      split: Source.
      data: DataConfig with its sizes resolved.
      crops: views per image, 1 or 10.
      batch_size: images per batch over all replicas; rounded up to share evenly; 0 chooses.
    """

    def __init__(self, strategy, model, split, data, crops, batch_size=0):
        replicas = strategy.num_replicas_in_sync
        batch_size = batch_size or max(1, choose_views_per_batch(replicas) // crops)
        per_replica = -(-min(batch_size, split.num_examples) // replicas)
        self._split = split
        self._strategy = strategy
        self._batch_size = per_replica * replicas
        self._dataset = strategies.distribute(
            strategy,
            lambda: pipeline.eval_dataset(
                split, data, crops, per_replica, replicas, workers.get_replica_slice(strategy)
            ),
        )
        logits = make_logits_fn(model, data.mean, data.std)
        self._step = tf.function(
            lambda batch: strategy.run(lambda b: {**b, "views": logits(b["views"])}, args=(batch,)),
            autograph=False,
        )

    def __call__(self, max_batches=None, stop=lambda: False, keep=lambda logits: None):
        """Evaluates the split.

        Args:
          max_batches: only the first so many batches.
          stop: asked between batches.
          keep: called with the logits of each batch, float32 [b, V, C], in the split's order.

        Returns:
          (probabilities float64 [N, C], labels int32 [N]).

        Raises:
          DataError: an image that does not decode; an evaluation never leaves one out.
          UsageError: a batch does not fit into memory.
          Interrupted: `stop` returned true.
        """
        total = self._split.num_examples
        bar = progress_bar.Progress("eval", total)
        probabilities, labels = [], []
        done = 0
        iterator = iter(self._dataset)
        try:
            while done < total and len(labels) != max_batches:
                batch = self._gather(self._step(next(iterator)))
                real = batch["mask"]
                logits = batch["views"][real]  # [b, V, C]
                keep(logits)
                probabilities.append(classification.mean_softmax(logits))
                labels.append(batch["label"][real])
                done += len(labels[-1])
                bar.advance(len(labels[-1]))
                if stop():
                    raise Interrupted
        except tf.errors.UnavailableError:  # another worker has ended: no image is to blame
            raise
        except tf.errors.ResourceExhaustedError as error:
            raise UsageError(
                f"--eval_batch_size={self._batch_size}: out of memory; give a smaller one"
                f" ({tf_error_message(error)[:100]})"
            ) from None
        except tf.errors.OpError as error:
            raise self._to_data_error(error, done) from error
        finally:
            bar.close()
        if max_batches is None and done != total:
            raise RuntimeError(f"evaluated {done} of {total} images")
        return np.concatenate(probabilities), np.concatenate(labels)

    def _gather(self, batch):
        """Joins the replicas' tensors in the order in which their images were dealt."""
        return workers.gather(self._strategy, batch)

    def _to_data_error(self, error, done):
        """The DataError that names the image at which the pipeline failed, or the error itself."""
        last = min(done + 2 * self._batch_size, self._split.num_examples)
        found = pipeline.find_first_unreadable(self._split, range(done, last))
        if found is None:
            return error
        index, reason = found
        return DataError(f"{self._split.describe(index)} does not decode: {reason}")


def predict_probabilities(evaluator, crops, keep=lambda logits: None):
    """One pass: probabilities of all views, and of the centre crop among them.

    Args:
      evaluator: Evaluator.
      crops: V of its views.
      keep: see `Evaluator`.

    Returns:
      dict from V, and 1, to float64 [N, C].
    """
    center = []

    def keep_both(logits):
        keep(logits)
        if crops > 1:
            center.append(logits_reader.mean_softmax_of_crops(logits, 1))

    probs, _ = evaluator(keep=keep_both)
    return {crops: probs} | ({1: np.concatenate(center)} if center else {})
