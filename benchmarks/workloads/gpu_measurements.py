"""The parts of `benchmarks.gpu_check` that only measure; each runs in a new process.

See `gpu_checks` for what they return. They are ok if they ran.
"""

import gc
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.workloads import gpu_place
from benchmarks.workloads.gpu_place import Place

_TRAINING_FLOPS_PER_MAC = 6


def list_devices(place: Place) -> dict[str, Any]:
    """Lists devices and versions, and measures the rate of matrix products by type."""
    import tensorflow as tf

    from input_pipeline import threads
    from loops.tools.benchmark import matmul_peak

    rows = []
    for gpu in tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpu)
        capability = ".".join(map(str, details.get("compute_capability", ("?",))))
        rows.append([gpu.name, f"{details.get('device_name')}, compute capability {capability}"])
    query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        rows.append(["driver, memory", text.splitlines()[0]])
    except (OSError, subprocess.CalledProcessError, IndexError):
        rows.append(["driver, memory", "nvidia-smi does not tell"])
    build = tf.sysconfig.get_build_info()
    versions = [f"{name} {build.get(f'{name}_version')}" for name in ("cuda", "cudnn")]
    rows.append(["built for", ", ".join(versions)])
    rows.append(["CPU cores", str(threads.available_cores())])
    sides = (1024, 4096, 8192) if place.on_gpu else (256,)
    rates = {}
    for label, dtype, tf32 in (
        ("float32", "float32", False),
        ("float32 with TF32", "float32", True),
        ("float16", "float16", True),
        ("bfloat16", "bfloat16", True),
    ):
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
        rates[label] = matmul_peak.measure(dtype, sides)["operations_per_second"]
        rows.append([f"matrix products, {label}", f"{rates[label] / 1e12:.2f} TFLOP/s"])
    return {"ok": True, "header": ["what", "value"], "rows": rows, "matmul": rates}


def make_memory_part(case: str) -> Callable[[Place], dict[str, Any]]:
    def measure(place: Place) -> dict[str, Any]:
        from benchmarks import memory_table

        header = ["peak, GB", "of the step, GB", "step, s", "fits into 11 GB"]
        try:
            if place.on_gpu:
                result = memory_table.measure("resnetse_50", 224, 128, "float16", case)
            else:
                result = memory_table.measure("resnetse_18", 32, 8, "float32", case)
        except Exception as error:
            if not gpu_place.is_out_of_memory(error):
                raise
            return {"ok": True, "header": header, "rows": [["out of memory", "", "", "no"]]}
        fits = "yes" if result["peak_gb"] < 10.5 else "no"  # of 11 GB, CUDA itself takes some
        return {"ok": True, "header": header, "rows": [[*result.values(), fits]], **result}

    return measure


def choose_micro_batches(place: Place) -> dict[str, Any]:
    """Runs `--auto_batch` on ResNetSE-50."""
    import tensorflow as tf

    import flags
    from loops.config import resolve
    from loops.distribution import strategies
    from loops.optimization import auto_batch

    model, size, batch = ("resnetse_50", 224, 128) if place.on_gpu else ("resnetse_18", 32, 8)
    argv = ["main.py", f"--model={model}", f"--image_size={size}", f"--batch_size={batch}"]
    argv += ["--auto_batch", "--strategy=one", *gpu_place.precision_flags("float16")]
    config = auto_batch.choose_accumulate(resolve.resolve(flags.parse(argv)))
    strategies.set_up_gpus()
    gpus = tf.config.get_visible_devices("GPU") if place.on_gpu else []
    grows = all(map(tf.config.experimental.get_memory_growth, gpus))
    return {
        "ok": grows,
        "header": ["--batch_size", "--accumulate chosen", "memory grows as needed"],
        "rows": [[batch, config.optimization.accumulate, str(grows)]],
    }


def make_speed_part(
    model: str,
    cases: Sequence[tuple[str, int, tuple[str, ...]]],
    persistent_batch_norm: bool = False,
) -> Callable[[Place], dict[str, Any]]:
    """Makes the part that times training steps of a net.

    Args:
      model: architecture.
      cases: (dtype, batch size of a replica, more flags) of each row.
      persistent_batch_norm: let cuDNN normalize NHWC maps of half-precision types directly.
    """

    def measure(place: Place) -> dict[str, Any]:
        if persistent_batch_norm:  # TensorFlow reads it once
            os.environ["TF_USE_CUDNN_BATCHNORM_SPATIAL_PERSISTENT"] = "1"
        import tensorflow as tf

        from loops.runtime import peak_memory
        from loops.tools.benchmark import matmul_peak
        from nets.macs import count_multiply_adds

        rows, rates = [], {}
        for dtype, batch, words in cases if place.on_gpu else cases[:2]:
            label = " ".join([dtype, *words])
            step = None
            gc.collect()  # a net has reference cycles
            if place.on_gpu and rows:  # TensorFlow runs already
                tf.config.experimental.reset_memory_stats("GPU:0")
            try:
                flags = (*gpu_place.precision_flags(dtype), *words)
                step = gpu_place.make_step(
                    place, *flags, model=model, size=224, batch=batch * place.replicas
                )
                speed = step.measure_speed(*((10, 60, 10) if place.on_gpu else (1, 2, 1)))
            except Exception as error:
                if not gpu_place.is_out_of_memory(error):
                    raise
                rows.append([label, batch, "out of memory", "", "", ""])
                continue
            peak = peak_memory.peak_bytes() / 1e9  # before the matrices are allocated
            if dtype not in rates:
                sides = (4096, 8192) if place.on_gpu else (256,)
                rates[dtype] = matmul_peak.measure(dtype, sides)["operations_per_second"]
            data = step.config.data
            macs = count_multiply_adds(step.state.model, data.image_size)
            flops = _TRAINING_FLOPS_PER_MAC * macs * speed["images_per_second"]
            share = flops / (rates[dtype] * place.replicas)
            speeds = [speed["images_per_second"], flops / 1e12, share, peak]
            rows.append([label, data.batch_size, *speeds])
        header = ["precision", "batch", "images/s", "TFLOP/s", "of matrix products", "peak, GB"]
        return {"ok": True, "header": header, "rows": rows}

    return measure


def feed_from_shards(place: Place) -> dict[str, Any]:
    """Measures the training loop, and the input pipeline alone, on prepared shards of photos."""
    from input_pipeline import threads

    count = 3000 if place.on_gpu else 24
    _write_photos(place.folder / "photos", count)
    gpu_place.run_program(
        place, "--mode=prepare", "--dataset=folder", "--data_dir=photos", "--out=shards"
    )
    model, size, batch = ("resnetv2_50", 224, 256) if place.on_gpu else ("resnetv2_18", 32, 8)
    words = ["--mode=benchmark", f"--image_size={size}", f"--batch_size={batch}"]
    words += ["--data_dir=shards", "--json=out.json"]
    half = gpu_place.precision_flags("float16" if place.on_gpu else "bfloat16")
    rows, results = [], {}
    for name in ("train", "input"):
        more = [f"--model={model}", "--strategy=one", *half] if name == "train" else []
        gpu_place.run_program(place, *words, f"--benchmark={name}", *more)
        results[name] = json.loads((place.folder / "out.json").read_text())
        wait = results[name].get("data_wait")
        waiting = f"{wait:.1%}" if wait is not None else ""
        rate = results[name]["images_per_second"]
        rows.append([name, rate, waiting, threads.available_cores()])
    header = ["--benchmark", "images/s", "waiting for data", "CPU cores"]
    return {"ok": True, "header": header, "rows": rows, **results}


def _write_photos(folder: pathlib.Path, count: int) -> None:
    """Writes JPEG files of the size and the detail of ImageNet's photos, a tenth of them as val."""
    import concurrent.futures

    import cv2
    import numpy as np

    def write(number: int) -> None:
        rng = np.random.default_rng(number)
        # Noise at several scales has a spectrum like that of photos: about 110 kB at quality 95.
        image = np.full((375, 500, 3), 128.0, np.float32)
        for scale in (1, 2, 4, 8, 16, 32, 64):
            shape = (375 // scale + 1, 500 // scale + 1, 3)
            noise = rng.normal(0, 3 * scale**0.5, shape).astype(np.float32)
            image += cv2.resize(noise, (500, 375), interpolation=cv2.INTER_LINEAR)
        path = folder / ("train", "val")[number % 10 == 0] / str(number % 7) / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.clip(image, 0, 255), [cv2.IMWRITE_JPEG_QUALITY, 95])

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(write, range(count)))


def make_torch_part(compiled: bool) -> Callable[[Place], dict[str, Any]]:
    def measure(place: Place) -> dict[str, Any]:
        try:
            import timm
            import torch
        except ImportError as error:
            return gpu_place.not_run(str(error))
        from benchmarks.workloads import torch_workloads

        versions = f"torch {torch.__version__}, timm {timm.__version__}"
        size, batch = (224, 256) if place.on_gpu else (32, 4)
        rows = []
        for model, dtype in (
            *(("resnetv2_50", "float16"), ("resnet50", "float16"), ("seresnet50", "float16")),
            *(("resnetv2_50", "bfloat16"), ("resnetv2_50", "float32")),
        ):
            if not place.on_gpu and dtype != "float32":
                continue
            device = "cuda" if place.on_gpu else "cpu"
            row = [f"timm {model}", dtype, batch]
            try:
                run, _ = torch_workloads.build_torch(
                    "train", size, batch, dtype, model=model, device=device, compiled=compiled
                )
                run(10 if place.on_gpu else 1)
                steps = 50 if place.on_gpu else 2
                started = time.perf_counter()
                run(steps)
            except Exception as error:
                if not gpu_place.is_out_of_memory(error):
                    raise
                rows.append([*row, "out of memory", versions])
                continue
            rate = steps * batch / (time.perf_counter() - started)
            rows.append([*row, rate, versions])
        header = ["net", "precision", "batch", "images/s", "versions"]
        return {"ok": True, "header": header, "rows": rows}

    return measure
