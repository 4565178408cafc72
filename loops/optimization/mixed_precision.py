"""Chooses the compute dtype of the nets."""

import tensorflow as tf
from absl import logging

from loops.config.training import PrecisionConfig
from loops.runtime import environment


def resolve_compute_dtype(config: PrecisionConfig) -> str:
    """Resolves the precision flags on this machine.

    Returns:
      "float32", "float16" or "bfloat16".
    """
    if not config.mixed_precision:
        return "float32"
    if config.half_dtype != "auto":
        dtype, reason = config.half_dtype, f"--half_dtype={config.half_dtype}"
    elif tf.config.list_physical_devices("GPU"):
        dtype, reason = "float16", "the GPU's fast format, with dynamic loss scaling"
    elif cpu_has_bfloat16():
        dtype, reason = "bfloat16", "supported by this CPU"
    else:
        logging.warning(
            "--mixed_precision: this CPU does not support bfloat16; computing in float32"
        )
        return "float32"
    if dtype == "float16" and not tf.config.list_physical_devices("GPU"):
        logging.warning("--half_dtype=float16: is slow on a CPU; give --half_dtype=bfloat16")
    logging.debug("computing in %s (%s); variables and logits in float32", dtype, reason)
    return dtype


def cpu_has_bfloat16() -> bool:
    """Returns whether the CPU multiplies bfloat16 natively (AVX512-BF16 or AMX)."""
    cpu = environment.read_cpuinfo()
    return cpu is not None and not cpu.flags.isdisjoint({"avx512_bf16", "amx_bf16"})
