"""`--mode=prepare`: lists or TFRecord shards, with a manifest, from a raw data set."""

import functools

from input_pipeline.errors import UsageError
from input_pipeline.preparation import prepare
from input_pipeline.text import pluralize
from loops.config import dataset_flags
from loops.distribution import strategies
from loops.monitoring import console, progress_bar
from loops.runtime import output_files


def run(config):
    """Prepares a data set as a command line says.

    Args:
      config: Config of the command line.

    Returns:
      dict: the manifest.
    """
    storage, out = config.export.format, config.export.out
    if storage not in ("tfrecord", "lists"):
        if "format" in config.typed:
            raise UsageError(f"--format={storage}: prepare writes tfrecord or lists")
        storage = "tfrecord"
    if not out:
        raise UsageError("--out is missing: name the folder to write the prepared set into")
    strategies.hide_gpus()
    data = dataset_flags.resolve_data_config(config)
    bar = functools.partial(progress_bar.Progress, "prepare")
    facts = prepare.prepare(data, config.prepare, out, storage, bar)
    console.print_summary(f"{out}: {facts['dataset']} as {storage}", _rows(facts))
    output_files.write_json_output(config.evaluation.json, facts)
    return facts


def _rows(facts):
    rows = []
    for split, of_split in facts["splits"].items():
        shards = of_split.get("shards", [])
        size = sum(shard["bytes"] for shard in shards)
        said = f", {pluralize(len(shards), 'shard')}, {size / 1e6:.1f} MB" if shards else ""
        rows.append((split, pluralize(of_split["images"], "image") + said))
    rows.append(("classes", len(facts["classes"])))
    rows.append(("split hash", facts["split_sha256"]))
    if facts["short_side"]:
        rows.append(("re-encoded", f"short side {facts['short_side']}, quality {facts['quality']}"))
    rows.append(("left out", pluralize(facts["unlabelled"], "image") + " without a label"))
    shown = [f"{c['file']} ({c['was']})" for c in facts["conversions"]]
    more = f" and {len(shown) - 3} more, see the manifest" if len(shown) > 3 else ""
    rows.append(("converted", ", ".join(shown[:3]) + more if shown else "none"))
    return rows
