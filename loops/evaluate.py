"""`--mode=eval`: evaluates checkpoints, on images or on the logits of an earlier evaluation."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TypeVar

import keras
import numpy as np
import tensorflow as tf
from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.sources import source
from input_pipeline.text import pluralize
from loops import train_failures, worker_agreement
from loops.checkpointing import split_facts
from loops.config import flag_parsers, local_paths, resolve, validation
from loops.config.config import Config, select_flags
from loops.distribution import strategies, workers
from loops.evaluation import (
    continuous,
    eval_results,
    published_figures,
    test_sets,
    trained_models,
)
from loops.evaluation.trained_models import TrainedModel
from loops.evaluator import Evaluator, predict_probabilities
from loops.metrics import classification, imagenet_real, logits_reader, logits_writer, metrics
from loops.monitoring import console
from loops.runtime import output_files

Model = TypeVar("Model")


def run(config: Config) -> dict | list[dict]:
    """Evaluates the checkpoints or logits that a command line names and writes the results.

    Args:
      config: config of the command line.

    Returns:
      results as in the JSON file; with several sizes, `--test_sets` or `--watch`, a list of them.
    """
    _check_flag_combinations(config)
    if config.evaluation.logits:
        return _score_logits(config)
    if config.evaluation.watch:
        return continuous.run(config)
    if config.evaluation.test_sets:
        with train_failures.convert_worker_errors("restart all workers"):
            return _score_test_sets(config)
    with train_failures.convert_worker_errors("restart all workers"):
        return _score_images(config)


def _check_flag_combinations(config: Config) -> None:
    """Raises UsageError for flags that cannot be combined."""
    evaluation = config.evaluation
    if evaluation.logits:
        for name in sorted(config.typed - select_flags(with_logits=True)):
            raise UsageError(
                f"--{name} with --logits: the files record what was evaluated; drop one flag"
            )
    if evaluation.watch:
        for name in sorted(config.typed & select_flags(with_watch=False)):
            raise UsageError(
                f"--{name} with --watch: --watch evaluates one run as it trains; drop one flag"
            )
    if evaluation.test_sets:
        for name in sorted(config.typed & {"data_dir", "save_logits", "real_labels", "test_size"}):
            raise UsageError(f"--{name} with --test_sets, which names all images; drop one flag")
    if evaluation.save_logits and len(flag_parsers.parse_test_sizes(evaluation.test_size)) > 1:
        raise UsageError(
            f"--save_logits with --test_size={evaluation.test_size}: name one size, because a file"
            " holds the logits of one"
        )


def _score_images(config: Config) -> dict | list[dict]:
    """Evaluates the models of `--ckpt`, at each size of `--test_size`."""
    evaluation = config.evaluation
    with worker_agreement.start_together(config):
        models = select_models(trained_models.find_models(config), evaluation.members)
    first = models[0]
    sizes = flag_parsers.parse_test_sizes(evaluation.test_size)
    strategy = strategies.make_strategy(config.distribution)
    for model in models:
        split_facts.require_same_split(model.record.dataset, first.config.data)
    split = _open_split(strategy, models)
    real = imagenet_real.load_split_labels(evaluation, first.config.data.dataset, split)
    eval_results.warn_of_small_set(
        flag_parsers.parse_top_k(evaluation.top_k), len(split.class_names), split.num_examples
    )
    is_chief = workers.Workers(strategy).is_chief
    if len(sizes) <= 1:
        resized = _replace_image_size(models, sizes[0]) if sizes else models
        results = _score_models(strategy, split, resized, real, draw_images=True)
        if is_chief:
            output_files.write_json_output(evaluation.json, results)
            _print_results(results)
        return results
    at_sizes = [_replace_image_size(models, size) for size in sizes]
    sweep = []
    for resized in at_sizes:
        sweep.append(_score_models(strategy, split, resized, real, draw_images=False))
        if is_chief:
            _print_results(sweep[-1])
    if is_chief:
        output_files.write_json_output(evaluation.json, {"sweep": sweep})
        console.print_table(*console.format_size_sweep(sweep))
    return sweep


def _score_test_sets(config: Config) -> list[dict]:
    """Evaluates the models of `--ckpt` on each folder of `--test_sets`."""
    evaluation = config.evaluation
    with worker_agreement.start_together(config):
        models = select_models(trained_models.find_models(config), evaluation.members)
        sets = [s for path in local_paths.split(evaluation.test_sets) for s in test_sets.find(path)]
    strategy = strategies.make_strategy(config.distribution)
    nets = [model.restore(strategy) for model in models]
    ks = sorted({1, *flag_parsers.parse_top_k(evaluation.top_k)})  # the table has top-1
    rows: list[dict] = []
    for (corruption, _), group in itertools.groupby(sets, test_sets.get_severities):
        scored = [_score_test_set(strategy, nets, models, test_set, ks) for test_set in group]
        rows += [results for results, _ in scored]
        if corruption:
            rows.append(test_sets.average_severities(corruption, [right for _, right in scored]))
    means = [row["top1"] for row in rows if "num_severities" in row]
    if len(means) > 1:
        rows.append({"name": f"mean of {len(means)} corruptions", "top1": float(np.mean(means))})
    if workers.Workers(strategy).is_chief:
        name = " + ".join(str(model.step_dir) for model in models)
        path = models[0].run_dir / f"eval-{models[0].step:08d}-test_sets-{evaluation.crops}.json"
        eval_results.write_json_file(path, {"test_sets": rows})
        output_files.write_json_output(evaluation.json, {"test_sets": rows})
        console.print_lines([f"{name}, {pluralize(evaluation.crops, 'crop')}"])
        console.print_table(test_sets.HEADER, [test_sets.format_row(row) for row in rows])
        if any(row.get("is_subset") for row in rows):
            console.print_lines(["  among them: among only the classes of the test set"])
    return rows


def _score_test_set(
    strategy: tf.distribute.Strategy,
    nets: Sequence[keras.Model],
    models: Sequence[TrainedModel],
    test_set: test_sets.TestSet,
    ks: Sequence[int],
) -> tuple[dict, np.ndarray]:
    """Returns the row of a test set, and whether each image is right: bool [N]."""
    models = [_replace_images(model, test_set.folder, ks) for model in models]
    split, crops = _open_split(strategy, models), models[0].config.evaluation.crops
    predicted = [
        predict_probabilities(Evaluator.from_config(strategy, net, split, model.config), crops)
        for net, model in zip(nets, models, strict=True)
    ]
    results = eval_results.score_models(predicted, models, split)
    probs = classification.average_probabilities([p[crops] for p in predicted])
    present = test_sets.score_present_classes(probs, split.labels, ks)
    results |= {"name": test_set.name, "folder": test_set.folder, **present}
    results["is_subset"] = present["num_present_classes"] < len(split.class_names)
    return results, classification.label_ranks(probs, split.labels) < 1


def _replace_images(model: TrainedModel, folder: str, ks: Sequence[int]) -> TrainedModel:
    """Returns the model with a folder of class folders as its images, and the ks of top-k."""
    # The lists of a run may name files by absolute paths, and the built-in images would be drawn.
    is_folder = model.config.data.dataset in ("lists", "shapes")
    dataset = "folder" if is_folder else model.config.data.dataset
    top_k = ",".join(map(str, ks))
    config = model.config.replace(data_dir=folder, dataset=dataset, top_k=top_k)
    return dataclasses.replace(model, config=config)


def _open_split(strategy: tf.distribute.Strategy, models: list[TrainedModel]) -> source.Source:
    """Opens the split of the first model after checking that all workers evaluate the same."""
    first, name = models[0].config, models[0].config.evaluation.split
    opened = []

    def describe() -> dict[str, str]:
        checkpoints = [worker_agreement.describe_checkpoint(model.step_dir) for model in models]
        images = worker_agreement.describe_images(first, **{name: opened[0]})
        return {"the checkpoints": ", ".join(checkpoints), **images}

    workers.Workers(strategy).agree(
        lambda: opened.append(source.open_split(first.data, name, models[0].record.class_names)),
        describe,
    )
    _warn_of_other_images(models[0], name, opened[0])
    return opened[0]


def _warn_of_other_images(model: TrainedModel, name: str, split: source.Source) -> None:
    """Warns if a split of the run's own data set is not what it was when the run was trained."""
    own, used = model.record.config.data, model.config.data
    fields = ("data_dir", "classes", *(f"{split}_list" for split in ("train", "val", "test")))
    if all(getattr(own, field) == getattr(used, field) for field in fields):
        now = {name: split_facts.describe(split)}
        for change in split_facts.find_changes(model.record.dataset, now, split.class_names):
            logging.warning("the images differ from those at the last start of the run: %s", change)


def select_models(models: Sequence[Model], numbers: str) -> list[Model]:
    """Returns the models that `--members` names, counted from 1; all if it is empty.

    Raises:
      UsageError: there is no such model.
    """
    if not numbers:
        return [*models]
    try:
        selected = [int(number) for number in numbers.split(",")]
    except ValueError:
        selected = [0]
    is_valid = all(1 <= number <= len(models) for number in selected)
    if not is_valid or len(set(selected)) < len(selected):
        raise UsageError(
            f"--members={numbers}: give distinct numbers from 1 to {len(models)}, separated by"
            " commas"
        )
    return [models[number - 1] for number in selected]


def _replace_image_size(models: list[TrainedModel], size: int) -> list[TrainedModel]:
    """Returns the models at another image size."""
    resized = [dataclasses.replace(m, config=m.config.replace(image_size=size)) for m in models]
    for model in resized:
        validation.check(model.config)
    return resized


def _score_models(
    strategy: tf.distribute.Strategy,
    split: source.Source,
    models: list[TrainedModel],
    real: list[frozenset[int]] | None,
    draw_images: bool,
) -> dict:
    """Evaluates models together; writes the results into the run folder of the first one."""
    first = models[0]
    config = first.config
    raw = None
    if len(models) == 1 and first.has_ema:  # restored now: training may remove the step later
        raw = _make_evaluator(strategy, split, first, averaged=False)
    predicted = _predict(strategy, split, models)
    top1_raw = classification.score(*raw(), [1])["top1"] if raw is not None else None
    results = eval_results.score_models(predicted, models, split, real, top1_raw)
    if len(models) == 1 and (published := published_figures.find(first.record, config, results)):
        results["published"] = published
    if not workers.Workers(strategy).is_chief:
        return results
    suffix = eval_results.resizing_suffix(config, first.record)
    is_ensemble = len(models) > 1
    eval_results.write_json(
        first.run_dir, results, suffix=suffix + ("-ensemble" if is_ensemble else "")
    )
    if is_ensemble:
        return results

    curve = eval_results.curve_name(first.run_dir)

    def log_images(writer):
        if draw_images and not suffix:
            probs = predicted[0][config.evaluation.crops]
            eval_results.log_images(writer, curve, results, probs, split, config.data)

    eval_results.log_to_tensorboard(
        first.run_dir, results, suffix.replace("-", "_"), log_images, curve
    )
    return results


def _make_evaluator(
    strategy: tf.distribute.Strategy,
    split: source.Source,
    model: TrainedModel,
    averaged: bool = True,
) -> Evaluator:
    """Makes the Evaluator of a model, with the preprocessing of that model."""
    net = model.restore(strategy, averaged)
    return Evaluator.from_config(strategy, net, split, model.config)


def _predict(
    strategy: tf.distribute.Strategy, split: source.Source, models: list[TrainedModel]
) -> list[dict[int, np.ndarray]]:
    """Returns the probabilities of each model; writes the logits to `--save_logits`."""
    evaluation = models[0].config.evaluation
    images, crops = pluralize(split.num_examples, "image"), pluralize(evaluation.crops, "crop")
    logging.info("evaluating %s, %s", images, crops)
    metadata = {"dataset": models[0].config.data.dataset, "split": evaluation.split}
    predicted = []
    path = evaluation.save_logits if workers.Workers(strategy).is_chief else ""
    with logits_writer.Writer(path, split, metadata) as writer:
        for model in models:
            evaluator = _make_evaluator(strategy, split, model)
            keep = []
            if path:
                model_metadata = {
                    "model": str(model.step_dir),
                    "architecture": model.record.config.net.model,
                    "step": model.step,
                    **eval_results.get_resizing(model.config.data),
                }
                keep.append(writer.begin_model(model_metadata, evaluation.crops))
            predicted.append(predict_probabilities(evaluator, evaluation.crops, *keep))
        if path:
            writer.finish()
            logging.info("logits written to %s", path)
    return predicted


def _score_logits(config: Config) -> dict:
    """Scores models by the logits in the files of `--logits`."""
    evaluation = config.evaluation
    validation.check(resolve.resolve(config))
    files = logits_reader.read_all(evaluation.logits)
    models = select_models([m for file in files for m in file.models], evaluation.members)
    most_views = min(model.views for model in models)
    crops = evaluation.crops if "crops" in config.typed else most_views
    if crops > most_views:
        raise UsageError(
            f"--crops={crops}: the files of --logits hold only the center crop; give --crops=1"
        )
    file = files[0]
    metadata = file.facts
    if "split" in config.typed and evaluation.split != metadata["split"]:
        raise UsageError(
            f"--split={evaluation.split}: the files of --logits hold the {metadata['split']} split;"
            " leave the flag out"
        )
    real = None
    if evaluation.real_labels:
        real = imagenet_real.load_image_labels(
            evaluation.real_labels, metadata["dataset"], metadata["split"], file.names
        )
    predicted = [{v: model.probabilities(v) for v in {crops, 1}} for model in models]
    names = [model.facts["model"] for model in models]
    class_names, top_k = metadata["class_names"], flag_parsers.parse_top_k(evaluation.top_k)
    eval_results.warn_of_small_set(top_k, len(class_names), len(file.labels))
    results = eval_results.score(
        predicted,
        names,
        file.labels,
        class_names,
        file.names.__getitem__,
        top_k,
        real,
        metrics.parse(evaluation.metrics),
    )
    results |= {"crops": crops, "models": names, "logits": local_paths.split(evaluation.logits)}
    results |= {name: metadata[name] for name in ("dataset", "split", "fingerprint")}
    resizing = eval_results.get_resizing(config.data)
    results |= {k: v for k, v in models[0].facts.items() if k in resizing}
    results["step"] = max(model.facts["step"] for model in models)
    output_files.write_json_output(evaluation.json, results)
    _print_results(results)
    return results


def _print_results(results: dict) -> None:
    """Prints the table. Call it after all files are written: stdout may be closed."""
    summary = console.format_evaluation(results)
    if "published" in results:
        summary.append(published_figures.format_row(results))
    console.print_summary(" + ".join(results["models"]), summary)
    if len(rows := console.format_comparison(results)) > 1:
        console.print_table(console.comparison_header(results), rows)
    console.print_lines(console.format_paired_tests(results))
