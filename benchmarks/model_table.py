"""The table of architectures: size, arithmetic, the published error with its source, and ours.

  python -m benchmarks.model_table
  python -m benchmarks.model_table --runs=checkpoints/RUN,checkpoints/RUN2

The published figures stand in `published_errors.json` beside this file.
"""

import argparse
import json
import pathlib

from benchmarks import harness

_SIZE = 224
_CLASSES = 1000
_PUBLISHED = pathlib.Path(__file__).with_name("published_errors.json")


def main():
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="", help="run folders of ours, separated by commas")
    arguments = parser.parse_args()
    from nets import registry

    ours = _read_own_errors([name for name in arguments.runs.split(",") if name])
    published = json.loads(_PUBLISHED.read_text())
    header = ["`--model`", "parameters", f"multiply-adds at {_SIZE} px", "published error", "ours"]
    harness.echo(_format_row(header))
    harness.echo(_format_row(["---", "---:", "---:", "---", "---"]))
    for model in registry.names():
        parameters, multiply_adds = _measure_size(model)
        theirs = format_published_error(published, model)
        harness.echo(
            _format_row(
                [
                    f"`{model}`",
                    f"{parameters / 1e6:.2f} M",
                    f"{multiply_adds / 1e9:.2f} G",
                    theirs,
                    ours.get(model, ""),
                ]
            )
        )


def format_published_error(published, model):
    """What the table says of a model, from the rows of published_errors.json."""
    top1, top5, protocol, source = published.get(model, (None,) * 4)
    return f"{top1} / {top5} ({protocol}; {source})" if source else "none found"


def _measure_size(model):
    """Trainable parameters and multiply-adds of a net of 1000 classes."""
    import keras
    import tensorflow as tf

    from nets import registry
    from nets.macs import count_multiply_adds

    # The values do not matter, and random ones for all nets would take minutes.
    for name in ("VarianceScaling", "RandomNormal"):
        getattr(keras.initializers, name).__call__ = lambda _, shape, **__: tf.zeros(shape)
    input_size = _SIZE if registry.has_fixed_input_size(model) else 0
    config = registry.NetConfig(model=model, num_classes=_CLASSES, input_size=input_size)
    net = registry.build_model(config)
    parameters = sum(v.value.shape.num_elements() for v in net.trainable_variables)
    return parameters, count_multiply_adds(net, _SIZE)


def _read_own_errors(run_dirs):
    """Text by model, from the newest ten-crop evaluation of each run on ILSVRC2012."""
    found = {}
    for name in run_dirs:
        run_dir = pathlib.Path(name)
        config = json.loads((run_dir / "config.json").read_text())["config"]
        files = sorted(run_dir.glob("eval-*-val-10.json"))
        if not files or config["data"]["dataset"] != "ilsvrc2012":
            raise SystemExit(f"{name}: no ten-crop evaluation on the val split of ilsvrc2012")
        figures = json.loads(files[-1].read_text())
        top1, top5 = (100 * figures[f"top{k}_error"] for k in (1, 5))
        found[config["net"]["model"]] = f"{top1:.2f} / {top5:.2f} (10 crops; {run_dir.name})"
    return found


def _format_row(cells):
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
