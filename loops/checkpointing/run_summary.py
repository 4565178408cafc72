"""A run in a few words: what it is, of which data, with which software."""

from input_pipeline.text import pluralize
from loops.config.config import Config


def format_markdown(record, versions, model, total_steps):
    """Describes a run for a reader of its curves.

    Args:
      record: Record of the run.
      versions: dict from package to version.
      model: keras.Model.
      total_steps: length of the run.

    Returns:
      str in Markdown.
    """
    config = record.config
    parameters = sum(v.value.shape.num_elements() for v in model.trainable_variables)
    lines = [
        f"{config.net.model}, {parameters / 1e6:.2f} million trainable parameters,"
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


def get_hyperparameters(config):
    """What TensorBoard's table of runs shows: dict from flag to a number, a bool or a string."""
    values = {name: value for name, value in config.leaves().items() if value is not None}
    plain = (bool, int, float, str)
    return {n: v if isinstance(v, plain) else str(v) for n, v in values.items() if v != ""}
