"""Where the parts of `benchmarks.gpu_check` run, and what they have in common."""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.workloads.bare_step import BareStep

_ROOT = pathlib.Path(__file__).resolve().parents[2]
NUM_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a part runs.

    Attributes:
      on_gpu: on GPUs, or at a tiny size on parts of the CPU.
      replicas: how many of them.
      folder: of files that the parts share.
    """

    on_gpu: bool
    replicas: int
    folder: pathlib.Path


def not_run(why: str) -> dict[str, Any]:
    """Returns the result of a part that could not run."""
    return {"ok": None, "header": ["why"], "rows": [[why]]}


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an error of TensorFlow, torch or `run_program` says that memory ran out."""
    names = ("ResourceExhaustedError", "OutOfMemoryError")
    return type(error).__name__ in names or "out of memory" in str(error).lower()


def make_step(
    place: Place,
    *words: str,
    model: str = "resnetv2_18",
    size: int = 64,
    batch: int = 168,
) -> "BareStep":
    """Builds a BareStep on N GPUs, or on N parts of the CPU.

    The default batch of 168 images can be divided by 1 to 4, 6, 7 and 8.
    """
    import tensorflow as tf

    from benchmarks.workloads.bare_step import BareStep

    if place.on_gpu:
        gpus = tf.config.list_physical_devices("GPU")
        tf.config.set_visible_devices(gpus[: place.replicas], "GPU")
    else:
        size, batch = (64 if "net" in model else 32), 8
        model = re.sub(r"_(50|101)$", "_18", model)
        if place.replicas > 1:
            words = (*words, f"--cpu_devices={place.replicas}")
    strategy = "one" if place.replicas == 1 else "mirrored"
    argv = ["main.py", f"--model={model}", f"--image_size={size}", f"--strategy={strategy}"]
    return BareStep([*argv, f"--batch_size={batch}", *words], NUM_CLASSES)


def precision_flags(dtype: str, scale: float = 128.0) -> list[str]:
    """Returns the flags of a compute type; at the default loss scale no step overflows."""
    if dtype == "float32":
        return []
    return ["--mixed_precision", f"--half_dtype={dtype}", f"--initial_loss_scale={scale}"]


def run_program(place: Place, *words: str, cpu_only: bool = False) -> str:
    """Runs main.py in a process; returns its stdout.

    Raises:
      RuntimeError: it failed; the message is its last line.
    """
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": "-1"} if cpu_only else {})}
    command = [sys.executable, str(_ROOT / "main.py"), *words]
    process = subprocess.run(
        command, cwd=place.folder, env=environment, capture_output=True, text=True
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        raise RuntimeError(f"{words[0]}: {lines[-1]}")
    return process.stdout


def get_replica_weights(step: "BareStep") -> "list[tuple[np.ndarray, ...]]":
    """Returns the weights of each replica."""
    local = step.strategy.experimental_local_results
    values = [[v.numpy() for v in local(w.value)] for w in step.state.model.trainable_variables]
    return list(zip(*values, strict=True))
