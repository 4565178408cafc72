"""Evaluation: logits of every view of every image, once each, and what follows from them."""

import dataclasses

import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline import batch_augment, pipeline, source
from input_pipeline.errors import DataError
from loops import config as configs
from loops import validation
from loops.run import checkpoint, progress, report, restored_net, run_folder, summaries
from loops.scoring import metrics
from loops.step import distribution, precision, workers

# Views of one batch where the user names no batch size: fills a GPU, fits a small one.
VIEWS_PER_BATCH = 250


class Interrupted(Exception):
    """The caller's `stop` asked for an end."""


def logits_fn(model, mean, std):
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
        batch_size = batch_size or max(1, VIEWS_PER_BATCH // crops)
        per_replica = -(-min(batch_size, split.num_examples) // replicas)
        self._split = split
        self._strategy = strategy
        self._batch_size = per_replica * replicas
        self._dataset = distribution.distribute(
            strategy,
            lambda: pipeline.eval_dataset(
                split, data, crops, per_replica, replicas, workers.slice_of(strategy)
            ),
        )
        logits = logits_fn(model, data.mean, data.std)
        self._step = tf.function(
            lambda batch: strategy.run(lambda b: {**b, "views": logits(b["views"])}, args=(batch,))
        )

    def __call__(self, max_batches=None, stop=lambda: False):
        """Evaluates the split.

        Args:
          max_batches: only the first so many batches.
          stop: asked between batches.

        Returns:
          (probabilities float64 [N, C], labels int32 [N]).

        Raises:
          DataError: an image that does not decode; an evaluation never leaves one out.
          Interrupted: `stop` returned true.
        """
        total = self._split.num_examples
        bar = progress.Progress("eval", total)
        probabilities, labels = [], []
        done = 0
        iterator = iter(self._dataset)
        try:
            while done < total and len(labels) != max_batches:
                batch = self._local(self._step(next(iterator)))
                real = batch["mask"]
                logits = batch["views"][real]  # [b, V, C]
                probabilities.append(metrics.probabilities(logits[None]))
                labels.append(batch["label"][real])
                done += len(labels[-1])
                bar.advance(len(labels[-1]))
                if stop():
                    raise Interrupted
        except tf.errors.OpError as error:
            raise self._explained(error, done) from error
        finally:
            bar.close()
        if max_batches is None and done != total:
            raise RuntimeError(f"evaluated {done} of {total} images")
        return np.concatenate(probabilities), np.concatenate(labels)

    def _local(self, batch):
        """Joins the replicas' tensors in the order in which their images were dealt."""
        return workers.gathered(self._strategy, batch)

    def _explained(self, error, done):
        """The DataError that names the image at which the pipeline failed, or the error itself."""
        found = pipeline.first_unreadable(self._split, range(done, self._split.num_examples))
        if found is None:
            return error
        index, reason = found
        return DataError(f"{self._split.describe(index)} does not decode: {reason}")


def run(config, given):
    """`--mode=eval`: evaluates a checkpoint and writes its figures.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.

    Returns:
      dict of results, as in the JSON file.
    """
    run_dir, step_dir = run_folder.find_checkpoint(config.evaluation.ckpt)
    record = run_folder.read_record(run_dir)
    config = evaluation_config(record, config, given)
    validation.check(config)
    ks = validation.top_ks(config.evaluation.top_k)
    strategy = distribution.make_strategy(config.distribution)
    split = source.open_split(config.data, config.evaluation.split, record.class_names)
    dtype = precision.compute_dtype(config.precision)
    model = restored_net.restore(strategy, record, step_dir, dtype)
    evaluation = config.evaluation
    evaluator = Evaluator(
        strategy, model, split, config.data, evaluation.crops, evaluation.eval_batch_size
    )
    logging.info("evaluating %d images, %d crops", split.num_examples, evaluation.crops)
    results = described(
        metrics.score(*evaluator(), ks), config, checkpoint.step_of(step_dir), step_dir
    )
    if record.config.optimization.ema:
        raw = restored_net.restore(strategy, record, step_dir, dtype, averaged=False)
        evaluator = Evaluator(
            strategy, raw, split, config.data, evaluation.crops, evaluation.eval_batch_size
        )
        results["top1_raw"] = metrics.score(*evaluator(), [1])["top1"]
    write(run_dir, results, evaluation.json)
    with summaries.Measurements(run_dir) as sink:
        sink.measure("eval", results["step"], scalars(results))
    report.summary(f"{step_dir}", report.evaluation_rows(results))
    return results


def evaluation_config(record, config, given):
    """The run's own config, but for what belongs to this evaluation and this machine."""
    own = {n: getattr(config, n) for n in ("evaluation", "prediction", "distribution")}
    saved = dataclasses.replace(record.config, **own)
    merged = configs.merge(saved, given, config, configs.MAY_CHANGE_ON_EVAL, "evaluate")
    return validation.with_statistics(merged)


def described(results, config, step, model_name):
    """Adds to figures what they are figures of."""
    return {
        **results,
        "crops": config.evaluation.crops,
        "models": [str(model_name)],
        "dataset": config.data.dataset,
        "split": config.evaluation.split,
        "image_size": config.data.image_size,
        "step": step,
    }


def scalars(results):
    """Results under their TensorBoard tags; ten-crop figures have tags of their own."""
    suffix = "" if results["crops"] == 1 else f"_{results['crops']}_crops"
    if results["split"] != "val":
        suffix += f"_{results['split']}"
    tags = {f"accuracy{suffix}/{k}": v for k, v in results.items() if k[3:].isdigit()}
    return {f"loss{suffix}/cross_entropy": results["nll"], **tags}


def write(run_dir, results, also=""):
    """Writes results as eval-<step>-<split>-<crops>.json, and to the file `also`."""
    name = "eval-{step:08d}-{split}-{crops}.json".format(**results)
    report.write_json(run_dir / name, results)
    if also:
        report.write_json(also, results)
