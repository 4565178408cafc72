"""Describes a run for TensorBoard: model, data, flags and package versions."""

import shlex
from collections.abc import Mapping, Sequence

import keras

from input_pipeline import user_code
from input_pipeline.text import pluralize
from loops.checkpointing.run_folder import Record
from loops.config.config import Config, all_flags
from nets.macs import count_parameters


def format_markdown(
    argv: Sequence[str],
    commit: str,
    record: Record,
    versions: Mapping[str, str],
    model: keras.Model,
    total_steps: int,
) -> str:
    """Formats a description of a run as Markdown.

    Args:
      argv: command line of the run.
      commit: commit of this program.
      record: record of the run.
      versions: version of each package.
      model: the model of the run.
      total_steps: length of the run.
    """
    config = record.config
    parameters = count_parameters(model)
    name = user_code.display_name(config.net.model)
    lines = [
        "```",
        shlex.join(["python", *argv]),
        "```",
        f"commit {commit}",
        "",
        f"{name}, {parameters / 1e6:.2f} million trainable parameters,"
        f" {pluralize(len(record.class_names), 'class')}, {pluralize(total_steps, 'step')} of"
        f" {pluralize(config.data.batch_size, 'image')}",
        "",
        "| split | images | fingerprint |",
        "|---|---|---|",
    ]
    lines += [f"| {n} | {d['images']} | {d['fingerprint']} |" for n, d in record.dataset.items()]
    defaults = Config().leaves()
    lines += ["", "| flag | value |", "|---|---|"]
    lines += [f"| {n} | {v} |" for n, v in config.leaves().items() if v not in (None, defaults[n])]
    lines += ["", ", ".join(f"{package} {version}" for package, version in versions.items())]
    return "\n".join(lines)


def get_hyperparameters(config: Config) -> dict[str, bool | int | float | str]:
    """Returns the flags that TensorBoard's HPARAMS table shows, by name, without empty ones."""
    values = {name: value for name, value in config.leaves().items() if name in list_columns()}
    plain = (bool, int, float, str)
    values = {name: value for name, value in values.items() if value not in (None, "")}
    return {n: v if isinstance(v, plain) else str(v) for n, v in values.items()}


def list_columns() -> dict[str, type]:
    """Returns the type of each column of TensorBoard's HPARAMS table, by name."""
    plain = (bool, int, float)
    flags = {name: flag.type for name, flag in all_flags().items() if name != "verbose"}
    return {name: kind if kind in plain else str for name, kind in flags.items()}
