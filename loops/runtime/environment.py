"""The machine that figures were made on: processor, devices, and settings of the shell."""

import os
import pathlib
import platform

import tensorflow as tf

from input_pipeline import threads

# Instructions by which TensorFlow's kernels choose their code, and so their last bits.
_CPU_FEATURES = frozenset(
    ("sse4_1", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16")
    + ("avx512_fp16", "amx_tile", "amx_bf16", "amx_int8", "avx_vnni")
)
# Settings from outside that change kernels or the order of sums.
_ENVIRONMENT_VARIABLES = (
    *("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "XLA_FLAGS", "TF_XLA_FLAGS"),
    *("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_DETERMINISTIC_OPS"),
    *("NVIDIA_TF32_OVERRIDE", "TF_CUDNN_USE_AUTOTUNE"),
)


def describe_machine():
    """What of this machine the last bits of a figure depend on.

    Returns:
      dict from a short name to a string or number: `cpu`, `cpu_features`, `threads`, `gpus`, and
      each setting of the shell that matters.
    """
    model, features = detect_cpu()
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(g).get("device_name", "?") for g in gpus]
    settings = {name: os.environ[name] for name in _ENVIRONMENT_VARIABLES if name in os.environ}
    return {
        "cpu": model,
        "cpu_features": " ".join(features),
        "threads": threads.available_cores(),  # TensorFlow cuts sums into as many parts
        "gpus": ", ".join(names),
        **settings,
    }


def list_differences(recorded, now):
    """What is not the same, one line of text each.

    Args:
      recorded, now: dicts of facts by name, as `describe_machine` returns them.
    """
    names = sorted(recorded.keys() | now.keys())
    changed = [name for name in names if recorded.get(name, "") != now.get(name, "")]
    return [
        f"{name} was {recorded.get(name, '') or 'none'}, here {now.get(name, '') or 'none'}"
        for name in changed
    ]


def detect_cpu(cpuinfo="/proc/cpuinfo"):
    """(name of the processor, those of its features that matter, sorted)."""
    try:
        text = pathlib.Path(cpuinfo).read_text()
    except OSError:
        return platform.processor() or platform.machine(), []
    lines = [line.partition(":") for line in text.splitlines()]
    model = next((value.strip() for name, _, value in lines if name.strip() == "model name"), "")
    flags = next((v.split() for name, _, v in lines if name.strip() in ("flags", "Features")), [])
    return model or platform.machine(), sorted(_CPU_FEATURES.intersection(flags))
