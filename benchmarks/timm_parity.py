"""Imported weights against timm itself: the same images through both, logits compared.

A timm net with random weights, batch-norm statistics included, is saved as safetensors, imported
by `--mode=import` and fed the same normalised images as the original. Needs
`pip install -r requirements/peers.in` on top of this project's own packages.

  python -m benchmarks.timm_parity --models=resnet_50,resnetv2_50 --json=parity.json
"""

import argparse
import pathlib
import tempfile

import numpy as np

from benchmarks import harness

_TIMM_NAMES = {
    "resnet": "resnet{}",
    "resnetv2": "resnetv2_{}",
    "resnetse": "seresnet{}",
}
_DEFAULT_MODELS = (
    "resnet_18,resnet_34,resnet_50,resnet_101,resnet_152,resnetv2_50,resnetv2_101,resnetse_50"
)
_SIZES = (224, 160)
_IMAGES = 8
_TOLERANCE = 1e-4


def main():
    """Compares each of `--models` in a process of its own; exits with 1 where one differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=_DEFAULT_MODELS, help="our names, separated by commas")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        harness.emit(_compare(arguments.child))
        return
    words = [f"--models={arguments.models}"]
    module = "benchmarks.timm_parity"
    results = {m: harness.run_child(module, [f"--child={m}"]) for m in arguments.models.split(",")}
    header = ["net", "size", "largest logit", "largest difference", "equal"]
    rows = [
        [model, size, figures["largest_logit"], f"{figures['difference']:.1e}", figures["equal"]]
        for model, sizes in results.items()
        for size, figures in sizes.items()
    ]
    harness.echo(harness.format_table(header, rows))
    if arguments.json:
        packages = ("tensorflow-cpu", "tensorflow", "keras", "torch", "timm", "safetensors")
        facts = harness.collect_metadata(module, words, packages)
        harness.write_json(arguments.json, {"results": results, **facts})
    if not all(figures["equal"] for sizes in results.values() for figures in sizes.values()):
        raise SystemExit(1)


def _compare(model):
    """Largest difference of the logits at each size, for one of our names."""
    family, layers = model.split("_")
    images = {
        size: np.random.default_rng(size).normal(size=(_IMAGES, size, size, 3)).astype(np.float32)
        for size in _SIZES
    }
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "weights.safetensors")
        theirs = _compute_timm_logits(_TIMM_NAMES[family].format(layers), path, images)
        ours = _compute_our_logits(model, path, folder, images)
    results = {}
    for size in _SIZES:
        difference = float(np.abs(theirs[size] - ours[size]).max())
        results[str(size)] = {
            "largest_logit": float(np.abs(theirs[size]).max()),
            "difference": difference,
            "equal": difference <= _TOLERANCE,
        }
    return results


def _compute_timm_logits(name, path, images):
    """Makes the net, saves it to `path`, and runs it; logits [8, 1000] by size."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = timm.create_model(name).eval()
    with torch.no_grad():
        # Zeros and ones, as a fresh net has them, would hide an exchange of mean and variance.
        for key, tensor in net.state_dict().items():
            if key.endswith("running_mean"):
                tensor.normal_(0.0, 0.1)
            elif key.endswith("running_var"):
                tensor.uniform_(0.8, 1.2)
            elif key.endswith("bias"):
                tensor.normal_(0.0, 0.1)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                # The last one of a branch is made at zero. Near one, logits of deep nets explode.
                module.weight.uniform_(0.3, 0.7)
        save_file(net.state_dict(), path)
        return {
            size: net(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
            for size, x in images.items()
        }


def _compute_our_logits(model, path, folder, images):
    """Imports the file as a user would and runs the net of the run folder."""
    import flags
    from loops.checkpointing import restore, run_folder
    from loops.distribution import strategies
    from loops.tools.weights import import_weights

    command = ["import", "--mode=import", f"--weights={path}", "--source=timm", "--strategy=one"]
    command += [f"--model={model}", f"--checkpoint_dir={folder}", "--run_name=imported"]
    import_weights.run(flags.parse(command))
    run_dir, step_dir = run_folder.find_checkpoint(str(pathlib.Path(folder, "imported")))
    record = run_folder.read_record(run_dir)
    strategy = strategies.make_strategy(record.config.distribution)
    net = restore.restore_model(strategy, record, step_dir, "float32")
    return {size: net(x, training=False).numpy() for size, x in images.items()}


if __name__ == "__main__":
    main()
