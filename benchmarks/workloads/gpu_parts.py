"""The parts of `benchmarks.gpu_check`, the most informative ones first."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.workloads import gpu_checks, gpu_kernels, gpu_measurements
from benchmarks.workloads.gpu_measurements import make_memory_part, make_speed_part, make_torch_part
from benchmarks.workloads.gpu_place import Place


@dataclasses.dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
      title: heading on the page.
      run: the function.
      is_multi_replica: whether to run it again on all devices, if there are several.
    """

    title: str
    run: Callable[[Place], dict[str, Any]]
    is_multi_replica: bool = False

    def list_replicas(self, devices: int) -> tuple[int, ...]:
        """Returns the numbers of replicas to run it with."""
        return (1, devices) if self.is_multi_replica and devices > 1 else (1,)


def _list_speed_cases(batches: Iterable[int]) -> list[tuple[str, int, tuple[str, ...]]]:
    return [("float16", batch, ()) for batch in batches]


PARTS: dict[str, Part] = {
    "devices": Part("Devices and versions", gpu_measurements.list_devices),
    "numbers": Part("One step against the CPU", gpu_checks.compare_numbers),
    "overflow": Part("Overflow in float16", gpu_checks.check_overflow, is_multi_replica=True),
    "resume": Part("An interrupted run, bit for bit", gpu_checks.check_resume),
    "speed": Part(
        "Training step, ResNetV2-50, 224 px",
        make_speed_part("resnetv2_50", _list_speed_cases([256])),
        is_multi_replica=True,
    ),
    "speed persistent": Part(
        "Training step with cuDNN's persistent batch norm",
        make_speed_part(
            "resnetv2_50", [("float16", 256, ()), ("bfloat16", 256, ())], persistent_batch_norm=True
        ),
    ),
    "torch": Part("timm on torch, eager", make_torch_part(compiled=False)),
    "memory plain": Part("Memory, ResNetSE-50, 128 images", make_memory_part("plain")),
    "shards": Part("The loop, fed from prepared shards", gpu_measurements.feed_from_shards),
    "kernels": Part("Where the time of a step goes", gpu_kernels.profile_kernels),
    "more speeds": Part(
        "Training step, ResNetV2-50, other settings",
        make_speed_part(
            "resnetv2_50",
            [
                *(("bfloat16", 256, ()), ("float32", 128, ()), ("float16", 256, ("--xla",))),
                *_list_speed_cases([64, 128, 512]),
            ],
        ),
    ),
    "speed resnet": Part(
        "Training step, ResNet-50, 224 px",
        make_speed_part("resnet_50", [("float16", 256, ()), ("float16", 256, ("--xla",))]),
    ),
    "speed resnetse": Part(
        "Training step, ResNetSE-50, 224 px",
        make_speed_part("resnetse_50", [("float16", 256, ()), ("float16", 256, ("--xla",))]),
    ),
    "evaluation": Part("Evaluation and export against the CPU", gpu_checks.compare_evaluation),
    "memory recompute": Part("Memory with --recompute", make_memory_part("recompute")),
    "memory accumulate": Part("Memory with --accumulate=4", make_memory_part("accumulate")),
    "equality": Part(
        "Weights of several replicas", gpu_checks.check_equal_weights, is_multi_replica=True
    ),
    "deterministic": Part(
        "--deterministic twice", gpu_checks.check_determinism, is_multi_replica=True
    ),
    "cost of deterministic": Part(
        "Training step with --deterministic",
        make_speed_part("resnetv2_50", [("float16", 256, ("--deterministic",))]),
    ),
    "auto_batch": Part("--auto_batch", gpu_measurements.choose_micro_batches),
    "torch compiled": Part("timm on torch, compiled", make_torch_part(compiled=True)),
}
