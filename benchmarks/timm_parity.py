"""Compares imported weights with timm: net, pixels and answers.

A timm network with random weights, including batch-norm statistics, is saved with its card, as on
the Hugging Face Hub, and imported with `--mode=import`. Then two things are compared:

* The nets alone: logits of the same normalized images, at two sizes.
* Everything, from the file to the logits of photographs: `--mode=predict --crops=1`, and timm's
  own evaluation transform and net.

Needs `pip install -r requirements/peers.in` in addition to this project's packages.

  python -m benchmarks.timm_parity --models=resnet_50,resnetv2_50 --data_dir=DIR --json=parity.json
"""

import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import harness
from nets import torch_names

_MODULE = "benchmarks.timm_parity"
_IMAGE_SIZES = (224, 160)
_NUM_IMAGES = 8
# Largest difference of the logits of the same images.
_NET_TOLERANCE = 1e-4
# Largest differences of the pixels, from 0 to 255, and of the logits of photographs as a fraction
# of their standard deviation.
_PIXEL_TOLERANCE = 2
_LOGIT_TOLERANCE = 0.005


def main() -> None:
    """Compares each of `--models` in a child process; exits with code 1 if one differs."""
    parser = harness.BenchmarkParser(__doc__)
    parser.add_flag("--models", ",".join(torch_names.MODELS["timm"]))
    parser.add_flag("--data_dir", harness.default_photo_folder())
    parser.add_flag("--photos", 100, "number of photographs")
    parser.add_hidden("--child")
    args = parser.parse_args()
    if not os.path.isdir(args.data_dir):
        parser.error(f"--data_dir={args.data_dir}: no such folder; name a folder of JPEG files")
    if args.child:
        paths = sorted(str(p) for p in pathlib.Path(args.data_dir).rglob("*.[jJ][pP]*[gG]"))
        harness.emit(_compare(args.child, paths[: args.photos]))
        return

    packages = (*harness.PACKAGES, "torch", "timm", "safetensors", "pillow")
    words = parser.format_flags(args)
    report = harness.start_report(_MODULE, words, packages)
    report["results"] = harness.run_cases(_MODULE, args.models.split(","), words)
    header = ["net", *next(iter(report["results"].values()))]
    rows = [
        [model, *(f"{v:.2g}" if isinstance(v, float) else v for v in result.values())]
        for model, result in report["results"].items()
    ]
    harness.echo(harness.format_table(header, rows))
    harness.save_report(args.json, report)
    if not all(result["equal"] for result in report["results"].values()):
        raise SystemExit(1)


def _compare(model: str, paths: Sequence[str]) -> dict[str, float | int | bool]:
    """Compares one of our models with timm's on the photographs `paths`.

    Returns:
      A dict with these keys:
        net: largest difference of the logits of the same images.
        pixels: largest difference of a pixel of a photograph, of 255.
        pixels_above_1: share of the pixels that differ by more than one.
        logits: largest difference of the logits of photographs, divided by the standard deviation
          of a logit over the photographs.
        same_top1: number of photographs with the same first class.
        photos: number of photographs.
        equal: whether all of these are within their tolerances.
    """
    noise = [
        np.random.default_rng(size).normal(size=(_NUM_IMAGES, size, size, 3)).astype(np.float32)
        for size in _IMAGE_SIZES
    ]
    with tempfile.TemporaryDirectory() as folder:
        theirs = _run_timm(model, folder, noise, paths)
        ours = _run_ours(folder, noise, paths)
    differences = {name: np.abs(theirs[name] - ours[name]) for name in ("pixels", "logits")}
    deviation = theirs["logits"].std(axis=0).mean()
    result: dict[str, float | int | bool] = {
        "net": max(
            float(np.abs(t - o).max()) for t, o in zip(theirs["net"], ours["net"], strict=True)
        ),
        "pixels": int(differences["pixels"].max()),
        "pixels_above_1": float((differences["pixels"] > 1).mean()),
        "logits": float(differences["logits"].max() / deviation),
        "same_top1": int((theirs["logits"].argmax(1) == ours["logits"].argmax(1)).sum()),
        "photos": len(paths),
    }
    result["equal"] = (
        result["net"] <= _NET_TOLERANCE
        and result["pixels"] <= _PIXEL_TOLERANCE
        and result["logits"] <= _LOGIT_TOLERANCE
        and result["same_top1"] == len(paths)
    )
    return result


def _run_timm(
    name: str, folder: str, noise: Sequence[np.ndarray], paths: Sequence[str]
) -> dict[str, Any]:
    """Builds the timm network, saves it with its card to `folder`, and runs it.

    Returns:
      dict: `net`, the logits [8, 1000] of each element of `noise`; `pixels` float32 [N, S, S, 3]
      from 0 to 255 and `logits` [N, 1000] of the photographs.
    """
    import timm
    import torch
    from PIL import Image

    torch.manual_seed(0)
    family, layers = name.split("_")
    their_names = {"resnet": "resnet{}", "resnetv2": "resnetv2_{}", "resnetse": "seresnet{}"}
    model = timm.create_model(their_names[family].format(layers)).eval()
    with torch.no_grad():
        _randomize(model)
        timm.models.save_for_hf(model, folder, safe_serialization=True)
        config = timm.data.resolve_data_config(model=model)
        transform = timm.data.create_transform(**config, is_training=False)
        images = [transform(Image.open(path).convert("RGB")) for path in paths]
        batches = torch.stack(images).split(25)
        mean, std = (np.float32(config[name]) for name in ("mean", "std"))
        normalized = torch.stack(images).numpy().transpose(0, 2, 3, 1)
        return {
            "net": [model(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy() for x in noise],
            "pixels": np.round((normalized * std + mean) * 255),
            "logits": np.concatenate([model(batch).numpy() for batch in batches]),
        }


def _randomize(model: "torch.nn.Module") -> None:  # noqa: F821
    """Replaces what starts at zero or one, which would hide that mean and variance were swapped."""
    import torch

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


def _run_ours(folder: str, noise: Sequence[np.ndarray], paths: Sequence[str]) -> dict[str, Any]:
    """Imports the folder as a user would, and predicts; returns the same as `_run_timm`."""
    import flags
    from loops.tools.predict import ensemble, views
    from loops.tools.weights import import_weights

    words = [f"--checkpoint_dir={folder}", "--run_name=imported", "--strategy=one"]
    import_weights.run(flags.parse(["main", "--mode=import", f"--weights={folder}", *words]))
    words = ["--mode=predict", f"--ckpt={folder}/imported", "--crops=1", "--strategy=one"]
    nets = ensemble.load(flags.parse(["main", *words, f"--image={paths[0]}"]))
    (predictor,) = nets.predictors
    model = predictor.float32_model
    batches = views.load_batches(paths, nets.preprocessings, 25)
    pixels = np.concatenate([batch[0].numpy()[:, 0] for batch, _ in batches])[: len(paths)]
    return {
        "net": [model(x, training=False).numpy() for x in noise],
        "pixels": pixels.astype(np.float32),
        "logits": np.stack([logits[0, 0] for _, logits in nets.predict(paths)]),
    }


if __name__ == "__main__":
    main()
