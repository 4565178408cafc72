"""The part of `benchmarks.gpu_check` that shows where the time of a training step goes."""

import pathlib
import re
from typing import Any

from benchmarks.workloads import gpu_place
from benchmarks.workloads.gpu_place import Place

# Kinds of kernels by their names; the first match counts. Names of cuDNN, cuBLAS, XLA, Eigen.
_KERNEL_KINDS = (
    ("sums over replicas", r"nccl|AllReduce"),
    ("copies", r"memcpy|memset"),
    ("layout", r"nchwTo|nhwcTo|transpose|SwapDimension"),
    ("batch norm", r"bn_|batch_?norm"),
    ("pooling", r"pool"),
    ("convolutions and matrix products", r"conv|gemm|matmul|xmma|cutlass|[wd]grad|fprop|sm\d\d_"),
    ("element by element, reductions", r"."),
)


def profile_kernels(place: Place) -> dict[str, Any]:
    """Shows where the time of a training step goes, by kind of kernel and by kernel."""
    import tensorflow as tf

    step = gpu_place.make_step(
        place, *gpu_place.precision_flags("float16"), model="resnetv2_50", size=224, batch=256
    )
    step(5)
    num_steps = 5 if place.on_gpu else 1
    folder = place.folder / "profile"
    tf.profiler.experimental.start(str(folder))
    step(num_steps)
    tf.profiler.experimental.stop()
    seconds = sum_kernel_seconds(next(folder.rglob("*.xplane.pb")), place.on_gpu)
    total = sum(seconds.values())
    kinds: dict[str, float] = {}
    for name, value in seconds.items():
        kind = find_kind(name)
        kinds[kind] = kinds.get(kind, 0.0) + value

    def make_rows(table: dict[str, float]) -> list[list]:
        ordered = sorted(table.items(), key=lambda item: -item[1])
        return [[name[:70], 1e3 * s / num_steps, f"{s / total:.1%}"] for name, s in ordered]

    rows = [*make_rows(kinds), *make_rows(seconds)[:12]]
    return {"ok": total > 0, "header": ["kernels", "ms a step", "share"], "rows": rows}


def find_kind(name: str) -> str:
    """Returns the kind of a kernel, by its name."""
    return next(k for k, pattern in _KERNEL_KINDS if re.search(pattern, name, re.IGNORECASE))


def sum_kernel_seconds(path: pathlib.Path, on_gpu: bool) -> dict[str, float]:
    """Returns the seconds of each kernel in a profile; on a CPU, of each TensorFlow operation."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(path.read_bytes())
    seconds: dict[str, float] = {}
    for plane in space.planes:
        if not plane.name.startswith("/device:GPU" if on_gpu else "/host:CPU"):
            continue
        for line in plane.lines:
            if on_gpu and "Stream" not in line.name:
                continue
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                if on_gpu or re.fullmatch(r"[\w/.]+:[A-Z]\w+", name):
                    name = name if on_gpu else name.rpartition(":")[2]
                    seconds[name] = seconds.get(name, 0.0) + event.duration_ps / 1e12
    return seconds
