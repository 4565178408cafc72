"""`--mode=eval`: how good checkpoints are, on images or on logits kept from an earlier pass."""

import dataclasses

from absl import logging

from input_pipeline.errors import UsageError
from input_pipeline.sources import source
from input_pipeline.text import pluralize
from loops import train_failures
from loops.config import flag_parsers, validation
from loops.distribution import strategies, workers
from loops.evaluation import continuous, eval_results, trained_models
from loops.evaluator import Evaluator, predict_probabilities
from loops.metrics import classification, imagenet_real, logits_reader, logits_writer
from loops.monitoring import console
from loops.runtime import output_files

# All that scoring a file can heed: the rest was settled when its images were looked at.
_ALLOWED_WITH_LOGITS = frozenset(
    ("mode", "logits", "members", "crops", "split", "top_k", "json", "real_labels")
)


def run(config, given):
    """Evaluates what the command line names and writes the figures.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.

    Returns:
      dict of results, as in the JSON file; a list of them with several sizes or `--watch`.
    """
    _require_one_source(config.evaluation, given)
    if config.evaluation.logits:
        return _score_logits(config, given)
    if config.evaluation.watch:
        return continuous.run(config, given)
    with train_failures.convert_worker_errors("start all of them again"):
        return _score_images(config, given)


def _require_one_source(evaluation, given):
    """Raises UsageError for flags that no evaluation can follow together."""
    if evaluation.logits:
        for name in sorted(given - _ALLOWED_WITH_LOGITS):
            raise UsageError(f"--{name} with --logits: the files say what was evaluated; drop one")
    if evaluation.watch:
        for name in sorted(given & {"save_logits", "test_size", "members"}):
            raise UsageError(f"--{name} with --watch: it evaluates one run as it is trained")
    if evaluation.save_logits and len(flag_parsers.parse_test_sizes(evaluation.test_size)) > 1:
        raise UsageError(
            f"--save_logits with --test_size={evaluation.test_size}: name one size, a file holds"
            " one"
        )


def _score_images(config, given):
    """Evaluates the members of `--ckpt`, at each size of `--test_size`."""
    evaluation = config.evaluation
    found = select_members(trained_models.find(config, given), evaluation.members)
    first = found[0].config
    sizes = flag_parsers.parse_test_sizes(evaluation.test_size) or (None,)
    at_sizes = [found if size is None else _replace_image_size(found, size) for size in sizes]
    strategy = strategies.make_strategy(config.distribution)
    split = source.open_split(first.data, evaluation.split, found[0].record.class_names)
    real = imagenet_real.load_split_labels(evaluation, first.data.dataset, split)
    is_chief = workers.Workers(strategy).is_chief
    every = []
    for at_size in at_sizes:
        every.append(_score(strategy, split, at_size, real, len(sizes) == 1))
        if is_chief and len(sizes) > 1:
            _print_results(every[-1])
    results = every[0] if len(sizes) == 1 else every
    if not is_chief:
        return results
    output_files.write_json_output(
        evaluation.json, results if len(sizes) == 1 else {"sweep": every}
    )
    if len(sizes) == 1:
        _print_results(results)
    else:
        console.print_table(*console.format_size_sweep(every))
    return results


def select_members(found, numbers):
    """Those of a list that `--members` names, counted from 1.

    Raises:
      UsageError: there is no such member.
    """
    if not numbers:
        return found
    try:
        wanted = [int(number) for number in numbers.split(",")]
    except ValueError:
        wanted = [0]
    if any(not 1 <= number <= len(found) for number in wanted) or len(set(wanted)) < len(wanted):
        raise UsageError(
            f"--members={numbers}: give different numbers from 1 to {len(found)}, with commas"
        )
    return [found[number - 1] for number in wanted]


def _replace_image_size(found, size):
    """The members at another image size."""
    configs = [
        dataclasses.replace(m.config, data=dataclasses.replace(m.config.data, image_size=size))
        for m in found
    ]
    for config in configs:
        validation.check(config)
    return [dataclasses.replace(m, config=c) for m, c in zip(found, configs, strict=True)]


def _score(strategy, split, found, real, pictures):
    """Evaluates members together; writes the figures into the first one's run folder."""
    first = found[0]
    config = first.config
    raw = None
    if len(found) == 1 and first.has_ema:  # read while it is there: training removes steps
        raw = _make_evaluator(strategy, split, first, averaged=False)
    predicted = _predict(strategy, split, found)
    names = [str(member.step_dir) for member in found]
    ks = flag_parsers.parse_top_ks(config.evaluation.top_k)
    results = eval_results.score(
        predicted, names, split.labels, split.class_names, split.describe, ks, real
    )
    if raw is not None:
        results["top1_raw"] = classification.score(*raw(), [1])["top1"]
    results = eval_results.add_metadata(
        results, config, split, max(member.step for member in found), names
    )
    if not workers.Workers(strategy).is_chief:
        return results
    suffix = eval_results.preprocessing_suffix(config, first.record)
    eval_results.write_json(
        first.run_dir, results, suffix=suffix + ("-ensemble" if len(found) > 1 else "")
    )
    if len(found) > 1:
        return results

    curve = eval_results.curve_name(first.run_dir)

    def draw(sink):
        if pictures and not suffix:
            probs = predicted[0][config.evaluation.crops]
            eval_results.log_images(sink, curve, results, probs, split, config.data)

    eval_results.log_to_tensorboard(first.run_dir, results, suffix.replace("-", "_"), draw, curve)
    return results


def _make_evaluator(strategy, split, member, averaged=True):
    """The Evaluator of a member, with its own preprocessing."""
    evaluation = member.config.evaluation
    return Evaluator(
        strategy,
        member.restore(strategy, averaged),
        split,
        member.config.data,
        evaluation.crops,
        evaluation.eval_batch_size,
    )


def _predict(strategy, split, found):
    """Predictions of each member; their logits go to `--save_logits`."""
    evaluation = found[0].config.evaluation
    images, crops = pluralize(split.num_examples, "image"), pluralize(evaluation.crops, "crop")
    logging.info("evaluating %s, %s", images, crops)
    facts = {"dataset": found[0].config.data.dataset, "split": evaluation.split}
    predicted = []
    path = evaluation.save_logits if workers.Workers(strategy).is_chief else ""
    with logits_writer.Writer(path, split, facts) as writer:
        for member in found:
            evaluator = _make_evaluator(strategy, split, member)
            keep = []
            if path:
                of_model = {
                    "model": str(member.step_dir),
                    "architecture": member.record.config.net.model,
                    "step": member.step,
                    **eval_results.preprocessing(member.config.data),
                }
                keep.append(writer.begin_model(of_model, evaluation.crops))
            predicted.append(predict_probabilities(evaluator, evaluation.crops, *keep))
        if path:
            writer.finish()
            logging.info("logits written to %s", path)
    return predicted


def _score_logits(config, given):
    """Scores the models whose logits `--logits` holds, as a pass over the images would."""
    evaluation = config.evaluation
    validation.check(validation.resolve(config))
    files = logits_reader.read_all(evaluation.logits)
    found = select_members([m for file in files for m in file.members], evaluation.members)
    crops = evaluation.crops if "crops" in given else min(m.views for m in found)
    if crops > min(m.views for m in found):
        raise UsageError(f"--crops={crops}: the files of --logits hold only the centre crop")
    file = files[0]
    facts = file.facts
    if "split" in given and evaluation.split != facts["split"]:
        raise UsageError(f"--split={evaluation.split}: the files are of {facts['split']}")
    real = None
    if evaluation.real_labels:
        real = imagenet_real.load_image_labels(
            evaluation.real_labels, facts["dataset"], facts["split"], file.names
        )
    predicted = [{v: m.probabilities(v) for v in {crops, 1}} for m in found]
    names = [m.facts["model"] for m in found]
    ks = flag_parsers.parse_top_ks(evaluation.top_k)
    results = eval_results.score(
        predicted, names, file.labels, facts["class_names"], file.names.__getitem__, ks, real
    )
    results |= {"crops": crops, "models": names, "logits": evaluation.logits.split(",")}
    results |= {name: facts[name] for name in ("dataset", "split", "fingerprint")}
    names_of_view = eval_results.preprocessing(config.data)
    results |= {k: v for k, v in found[0].facts.items() if k in names_of_view}
    results["step"] = max(m.facts["step"] for m in found)
    output_files.write_json_output(evaluation.json, results)
    _print_results(results)
    return results


def _print_results(results):
    """The table on stdout, after what is written: nobody may be reading."""
    console.print_summary(" + ".join(results["models"]), console.format_evaluation(results))
    if len(rows := console.format_comparison(results)) > 1:
        console.print_table(console.COMPARISON_HEADER, rows)
    console.print_lines(console.format_paired_tests(results))
