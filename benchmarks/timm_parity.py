"""Compares the logits of imported weights with those of timm on the same images.

A timm network with random weights, including batch-norm statistics, is saved as safetensors and
imported with `--mode=import`. Both networks then get the same normalized images. Needs
`pip install -r requirements/peers.in` in addition to this project's packages.

  python -m benchmarks.timm_parity --models=resnet_50,resnetv2_50 --json=parity.json
"""

import pathlib
import tempfile
from collections.abc import Mapping

import numpy as np

from benchmarks import harness

_MODULE = "benchmarks.timm_parity"
_TIMM_NAMES = {
    "resnet": "resnet{}",
    "resnetv2": "resnetv2_{}",
    "resnetse": "seresnet{}",
}
_DEFAULT_MODELS = (
    "resnet_18,resnet_34,resnet_50,resnet_101,resnet_152,resnetv2_50,resnetv2_101,resnetse_50"
)
_IMAGE_SIZES = (224, 160)
_NUM_IMAGES = 8
_TOLERANCE = 1e-4


def main() -> None:
    """Compares each of `--models` in a child process; exits with code 1 if one differs."""
    parser = harness.BenchmarkParser(__doc__)
    parser.add_flag("--models", _DEFAULT_MODELS)
    parser.add_hidden("--child")
    args = parser.parse_args()
    if args.child:
        harness.emit(_compare(args.child))
        return

    packages = (*harness.PACKAGES, "torch", "timm", "safetensors")
    report = harness.start_report(_MODULE, parser.format_flags(args), packages)
    report["results"] = harness.run_cases(_MODULE, args.models.split(","))
    rows = [
        [model, size, result["largest_logit"], f"{result['difference']:.1e}", result["equal"]]
        for model, sizes in report["results"].items()
        for size, result in sizes.items()
    ]
    header = ["net", "size", "largest logit", "largest difference", "equal"]
    harness.echo(harness.format_table(header, rows))
    harness.save_report(args.json, report)
    results = [result for sizes in report["results"].values() for result in sizes.values()]
    if not all(result["equal"] for result in results):
        raise SystemExit(1)


def _compare(model: str) -> dict[str, dict]:
    """Returns the largest difference of the logits at each image size, for one of our models."""
    family, layers = model.split("_")
    images = {
        size: np.random.default_rng(size)
        .normal(size=(_NUM_IMAGES, size, size, 3))
        .astype(np.float32)
        for size in _IMAGE_SIZES
    }
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "weights.safetensors")
        theirs = _compute_timm_logits(_TIMM_NAMES[family].format(layers), path, images)
        ours = _compute_our_logits(model, path, folder, images)
    results = {}
    for size in _IMAGE_SIZES:
        difference = float(np.abs(theirs[size] - ours[size]).max())
        results[str(size)] = {
            "largest_logit": float(np.abs(theirs[size]).max()),
            "difference": difference,
            "equal": difference <= _TOLERANCE,
        }
    return results


def _compute_timm_logits(
    name: str, path: pathlib.Path, images: Mapping[int, np.ndarray]
) -> dict[int, np.ndarray]:
    """Builds the timm network, saves it to `path`, and returns its logits [8, 1000] by size."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    with torch.no_grad():
        # The initial zeros and ones would hide that mean and variance were swapped.
        for key, tensor in model.state_dict().items():
            if key.endswith("running_mean"):
                tensor.normal_(0.0, 0.1)
            elif key.endswith("running_var"):
                tensor.uniform_(0.8, 1.2)
            elif key.endswith("bias"):
                tensor.normal_(0.0, 0.1)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                # The last one of a branch starts at zero. Near one, logits of deep nets explode.
                module.weight.uniform_(0.3, 0.7)
        save_file(model.state_dict(), path)
        return {
            size: model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
            for size, x in images.items()
        }


def _compute_our_logits(
    name: str, path: pathlib.Path, folder: str, images: Mapping[int, np.ndarray]
) -> dict[int, np.ndarray]:
    """Imports the file as a user would; returns the logits of the imported run by image size."""
    import flags
    from loops.checkpointing import restore, run_folder
    from loops.distribution import strategies
    from loops.tools.weights import import_weights

    command = ["import", "--mode=import", f"--weights={path}", "--source=timm", "--strategy=one"]
    command += [f"--model={name}", f"--checkpoint_dir={folder}", "--run_name=imported"]
    import_weights.run(flags.parse(command))
    run_dir, step_dir = run_folder.find_checkpoint(str(pathlib.Path(folder, "imported")))
    record = run_folder.read_record(run_dir)
    strategy = strategies.make_strategy(record.config.distribution)
    model = restore.restore_model(strategy, record, step_dir, "float32")
    return {size: model(x, training=False).numpy() for size, x in images.items()}


if __name__ == "__main__":
    main()
