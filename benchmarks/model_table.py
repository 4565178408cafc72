"""Prints the table of architectures: parameters, multiply-adds, published and own accuracies.

  python -m benchmarks.model_table
  python -m benchmarks.model_table --runs=checkpoints/RUN,checkpoints/RUN2

The published errors and their sources are in `published_errors.json`.
"""

import decimal
import json
import pathlib
from collections.abc import Mapping, Sequence

from benchmarks import harness

_IMAGE_SIZE = 224
_NUM_CLASSES = 1000
_PUBLISHED_FILE = pathlib.Path(__file__).with_name("published_errors.json")


def main() -> None:
    """Prints the table as Markdown."""
    parser = harness.BenchmarkParser(__doc__, has_json=False)
    parser.add_flag("--runs", "", "run folders with our results, separated by commas")
    args = parser.parse_args()
    from nets import registry

    ours = _read_own_accuracies([name for name in args.runs.split(",") if name])
    published = json.loads(_PUBLISHED_FILE.read_text())
    size_column = f"multiply-adds at {_IMAGE_SIZE} px"
    harness.echo(
        _format_row(["`--model`", "parameters", size_column, "published top-1 / top-5", "ours"])
    )
    harness.echo(_format_row(["---", "---:", "---:", "---", "---"]))
    for model in registry.names():
        parameters, multiply_adds = _measure_size(model)
        cells = [f"`{model}`", f"{parameters / 1e6:.2f} M", f"{multiply_adds / 1e9:.2f} G"]
        cells += [format_published_accuracy(published, model), ours.get(model, "")]
        harness.echo(_format_row(cells))


def format_published_accuracy(published: Mapping[str, Sequence], model: str) -> str:
    """Returns the published accuracy of a model as text, from `published_errors.json`."""
    if model not in published:
        return "none found"
    *errors, protocol, source = published[model]
    top1, top5 = (str(100 - decimal.Decimal(str(error))) for error in errors)
    return f"{top1} / {top5} ({protocol}; {source})"


def _measure_size(name: str) -> tuple[int, float]:
    """Returns trainable parameters and multiply-adds of a network with 1000 classes."""
    import keras
    import tensorflow as tf

    from nets import registry
    from nets.macs import count_multiply_adds, count_parameters

    # The values do not matter, and random ones for all networks would take minutes.
    for initializer in ("VarianceScaling", "RandomNormal"):
        getattr(keras.initializers, initializer).__call__ = lambda _, shape, **__: tf.zeros(shape)
    input_size = _IMAGE_SIZE if registry.has_fixed_input_size(name) else 0
    config = registry.NetConfig(model=name, num_classes=_NUM_CLASSES, input_size=input_size)
    model = registry.build_model(config)
    parameters = count_parameters(model)
    return parameters, count_multiply_adds(model, _IMAGE_SIZE)


def _read_own_accuracies(run_dirs: Sequence[str]) -> dict[str, str]:
    """Returns a text by model, from the last ten-crop evaluation of each run on ILSVRC2012.

    Raises:
      SystemExit: a run has no such evaluation.
    """
    accuracies = {}
    for name in run_dirs:
        run_dir = pathlib.Path(name)
        config = json.loads((run_dir / "config.json").read_text())["config"]
        paths = sorted(run_dir.glob("eval-*-val-10.json"))
        if not paths or config["data"]["dataset"] != "ilsvrc2012":
            raise SystemExit(f"{name}: no ten-crop evaluation on the val split of ilsvrc2012")
        results = json.loads(paths[-1].read_text())
        top1, top5 = (100 * results[f"top{k}"] for k in (1, 5))
        accuracies[config["net"]["model"]] = f"{top1:.2f} / {top5:.2f} (10 crops; {run_dir.name})"
    return accuracies


def _format_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
