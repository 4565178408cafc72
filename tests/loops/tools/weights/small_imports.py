"""Imports of files like published ones, with random values, shared by several test files."""

import json
import pathlib
import re

import numpy as np
import pytest

import flags
from input_pipeline.errors import UsageError
from loops.checkpointing import restore, run_folder
from loops.tools.weights import import_weights

# Names and shapes of timm's state dicts; of torchvision's for alexnet_owt.
PUBLISHED = json.loads(
    pathlib.Path(__file__).parents[3].joinpath("nets", "published_shapes.json").read_text()
)
CLASSES = 7


def _published_resnet_50d():
    """Returns timm's resnet50d: resnet50 with another stem, and a pool first in `downsample`."""
    moved = {"0": "1", "1": "2"}
    shapes = {
        re.sub(r"downsample\.(\d)", lambda m: f"downsample.{moved[m[1]]}", name): shape
        for name, shape in PUBLISHED["resnet_50"].items()
        if name != "conv1.weight"
    }
    for number, inputs, outputs in ((0, 3, 32), (3, 32, 32), (6, 32, 64)):
        shapes[f"conv1.{number}.weight"] = [outputs, inputs, 3, 3]
    for number in (1, 4):
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            shapes[f"conv1.{number}.{name}"] = [] if name == "num_batches_tracked" else [32]
    return shapes


PUBLISHED["resnet_50d"] = _published_resnet_50d()


def tensors(model, classes=1000, seed=0):
    """Returns a state dict with timm's names and shapes and random float32 values."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in PUBLISHED[model].items():
        shape = [classes if n == 1000 else n for n in shape]
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(17, np.int64)
        elif name.endswith("running_var"):
            state[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            state[name] = (rng.standard_normal(shape) * 0.05).astype(np.float32)
    return state


def command(tmp_path, file, *words):
    return [
        "main.py",
        "--mode=import",
        f"--weights={file}",
        f"--checkpoint_dir={tmp_path}",
        "--strategy=one",
        *words,
    ]


def run(tmp_path, file, *words):
    return import_weights.run(flags.parse(command(tmp_path, file, *words)))


def get_import_error(tmp_path, file, *words):
    """Runs an import that must fail without a run folder; returns its error message."""
    with pytest.raises(UsageError) as caught:
        run(tmp_path, file, "--run_name=rejected", *words)
    assert not (tmp_path / "rejected").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def load_run(run_dir, strategy):
    """Returns the variables of a run by path, and its record."""
    record = run_folder.read_record(run_dir)
    _, step_dir = run_folder.find_checkpoint(str(run_dir))
    model = restore.restore_model(strategy, record, step_dir, "float32")
    return {v.path: v.numpy() for v in model.variables}, record
