"""Describes the machine that results were computed on: CPU, GPUs and environment variables."""

import os
import pathlib
import platform
from collections.abc import Mapping
from typing import NamedTuple

# TensorFlow's kernels choose their code by these instruction sets, so they affect the last bits.
_CPU_FEATURES = frozenset(
    ("sse4_1", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16")
    + ("avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "avx_vnni")
)
# These variables change kernels or the order of sums.
_ENVIRONMENT_VARIABLES = (
    *("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "XLA_FLAGS", "TF_XLA_FLAGS"),
    *("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_DETERMINISTIC_OPS"),
    *("NVIDIA_TF32_OVERRIDE", "TF_CUDNN_USE_AUTOTUNE"),
)


class CpuInfo(NamedTuple):
    """The first processor in /proc/cpuinfo.

    Attributes:
      model: model name, or "" if the file has none, as on ARM.
      flags: names of all CPU features.
    """

    model: str
    flags: frozenset[str]


def describe_machine() -> dict[str, str | int]:
    """Returns the properties of this machine that affect the last bits of results.

    Returns:
      `cpu`, `cpu_features`, `threads`, `gpus`, and each relevant environment variable that is set.
    """
    # Imported only when needed, because benchmarks use `read_cpuinfo` without TensorFlow.
    import tensorflow as tf

    from input_pipeline import threads

    model, features = detect_cpu()
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(g).get("device_name", "?") for g in gpus]
    settings = {name: os.environ[name] for name in _ENVIRONMENT_VARIABLES if name in os.environ}
    return {
        "cpu": model,
        "cpu_features": " ".join(features),
        "threads": threads.available_cores(),  # TensorFlow splits sums into this many parts
        "gpus": ", ".join(names),
        **settings,
    }


def list_differences(recorded: Mapping, now: Mapping) -> list[str]:
    """Lists the properties that differ between two descriptions, one line of text each.

    Args:
      recorded: properties by name, as returned by `describe_machine`.
      now: the same of the current process.
    """
    names = sorted(recorded.keys() | now.keys())
    changed = [name for name in names if recorded.get(name, "") != now.get(name, "")]
    return [
        f"{name} was {recorded.get(name, '') or 'none'}, here {now.get(name, '') or 'none'}"
        for name in changed
    ]


def read_cpuinfo(path: pathlib.Path | str = "/proc/cpuinfo") -> CpuInfo | None:
    """Reads /proc/cpuinfo, without importing TensorFlow; returns None where it cannot be read."""
    try:
        text = pathlib.Path(path).read_text()
    except OSError:
        return None
    lines = [line.partition(":") for line in text.splitlines()]
    model = next((value.strip() for name, _, value in lines if name.strip() == "model name"), "")
    flags = next((v.split() for name, _, v in lines if name.strip() in ("flags", "Features")), [])
    return CpuInfo(model, frozenset(flags))


def detect_cpu(path: pathlib.Path | str = "/proc/cpuinfo") -> tuple[str, list[str]]:
    """Returns (model name, sorted CPU features that affect results)."""
    cpu = read_cpuinfo(path)
    if cpu is None:
        return platform.processor() or platform.machine(), []
    return cpu.model or platform.machine(), sorted(_CPU_FEATURES & cpu.flags)
