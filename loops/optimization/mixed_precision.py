"""Which number format the nets compute in."""

import tensorflow as tf
from absl import logging

from loops.runtime import environment


def resolve_compute_dtype(config):
    """Resolves the precision flags on this machine.

    Args:
      config: PrecisionConfig.

    Returns:
      "float32", "float16" or "bfloat16".
    """
    if not config.mixed_precision:
        return "float32"
    if config.half_dtype != "auto":
        chosen, why = config.half_dtype, f"--half_dtype={config.half_dtype}"
    elif tf.config.list_physical_devices("GPU"):
        chosen, why = "float16", "with dynamic loss scaling, the GPU's fast format"
    elif cpu_has_bfloat16():
        chosen, why = "bfloat16", "which this CPU has"
    else:
        logging.warning("--mixed_precision: this CPU has no bfloat16; computing in float32")
        return "float32"
    logging.info("computing in %s (%s); variables and logits in float32", chosen, why)
    return chosen


def cpu_has_bfloat16() -> bool:
    """Returns whether the CPU multiplies bfloat16 natively (AVX512-BF16 or AMX)."""
    cpu = environment.read_cpuinfo()
    return cpu is not None and not cpu.flags.isdisjoint({"avx512_bf16", "amx_bf16"})
