"""The parts of `benchmarks.gpu_check`; each runs in a new process.

A part takes a Place and returns a dict: ok, header and rows of a table, and more for the JSON. A
part that only measures is ok if it ran. A part may read what an earlier one wrote to the folder.
"""

import dataclasses
import gc
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.workloads.bare_step import BareStep

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_NUM_CLASSES = 10
# The weights of N replicas differ from those of one by rounding; a wrong sum differs far more.
_MAX_DIFFERENCE = 1e-4
_OVERFLOW_LOSS_SCALE = 8.0
_TRAINING_FLOPS_PER_MAC = 6


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


def _make_step(
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
    return BareStep([*argv, f"--batch_size={batch}", *words], _NUM_CLASSES)


def _precision_flags(dtype: str, scale: float = 128.0) -> list[str]:
    """Returns the flags of a compute type; at the default loss scale no step overflows."""
    if dtype == "float32":
        return []
    return ["--mixed_precision", f"--half_dtype={dtype}", f"--initial_loss_scale={scale}"]


def _run_program(place: Place, *words: str, cpu_only: bool = False) -> str:
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


def _get_replica_weights(step: "BareStep") -> "list[tuple[np.ndarray, ...]]":
    """Returns the weights of each replica."""
    local = step.strategy.experimental_local_results
    values = [[v.numpy() for v in local(w.value)] for w in step.state.model.trainable_variables]
    return list(zip(*values, strict=True))


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


# Nets of each family, and the largest relative difference of the gradients by precision: at least
# twice the difference between the types on a CPU. Unrelated gradients differ by 1.4.
_FAMILIES = ("resnetv2_18", "resnet_18", "resnetse_18", "alexnet_bn", "zfnet_bn")
_MAX_GRADIENT_DIFFERENCE = {
    "float32": 5e-3,
    "TF32": 0.4,
    "XLA": 5e-3,
    "float16": 0.4,
    "bfloat16": 0.9,
}


def compare_numbers(place: Place) -> dict[str, Any]:
    """Compares loss and gradients of one step of each family with float32 on the CPU."""
    import numpy as np
    import tensorflow as tf

    import flags
    from input_pipeline.augmentation.batch_augment import Targets
    from loops import train_setup
    from loops.config import resolve
    from loops.distribution import strategies
    from loops.train_state import TrainState
    from nets.layers import random_layers

    size, batch = (128, 32) if place.on_gpu else (64, 8)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, size, size, 3)).astype(np.float32)
    labels = rng.integers(0, _NUM_CLASSES, batch).astype(np.int32)
    device = "GPU:0" if place.on_gpu else "CPU:0"

    def compute(model: str, dtype: str, device: str, weights: list | None, xla: bool) -> tuple:
        argv = ["main.py", f"--model={model}", f"--image_size={size}", f"--batch_size={batch}"]
        config = resolve.resolve(flags.parse([*argv, *_precision_flags(dtype), "--dropout=0"]))
        strategy = strategies.make_one_device_strategy(device)
        state = TrainState(strategy, config, _NUM_CLASSES)
        for variable, value in zip(state.model.variables, weights or [], strict=bool(weights)):
            variable.assign(value)
        step = train_setup.make_step(config, state, lambda _: tf.constant(0.0))

        def run() -> tuple:
            targets = Targets(tf.constant(labels), tf.constant(labels), tf.ones([batch]))
            random_layers.assign_samples(state.model, 0, tf.constant(0, tf.int64))
            return step.loss_and_gradients(tf.constant(images), targets, tf.constant(1.0))

        if xla:
            run = tf.function(run, jit_compile=True, autograph=False)
        values = [v.numpy() for v in state.model.variables]
        loss, _, gradients = strategy.run(run)
        return values, loss.numpy(), np.concatenate([np.ravel(g) for g in gradients])

    cases = (
        ("float32", "float32", False, False),
        ("TF32", "float32", True, False),
        ("float16", "float16", True, False),
        ("bfloat16", "bfloat16", True, False),
        ("XLA", "float32", False, True),
    )
    rows, all_ok = [], True
    for model in _FAMILIES if place.on_gpu else _FAMILIES[:1]:
        weights, right_loss, right = compute(model, "float32", "CPU:0", None, False)
        for label, dtype, tf32, xla in cases:
            tf.config.experimental.enable_tensor_float_32_execution(tf32)
            limit = _MAX_GRADIENT_DIFFERENCE[label]
            try:
                _, loss, gradients = compute(model, dtype, device, weights, xla)
            except tf.errors.OpError as error:
                rows.append([model, label, error.message[:80], "", f"{limit:g}", "FAILED"])
                all_ok = False
                continue
            of_loss = float(np.abs(loss - right_loss).max() / np.abs(right_loss).max())
            of_gradients = float(np.linalg.norm(gradients - right) / np.linalg.norm(right))
            ok = of_gradients <= limit
            all_ok &= ok
            differences = [f"{value:.1e}" for value in (of_loss, of_gradients)]
            rows.append([model, label, *differences, f"{limit:g}", "ok" if ok else "FAILED"])
    header = ["net", "precision", "loss differs by", "gradients differ by", "limit", "outcome"]
    return {"ok": all_ok, "header": header, "rows": rows}


def check_overflow(place: Place) -> dict[str, Any]:
    """Checks that all replicas skip a step if only the last one overflows, then apply the next."""
    import numpy as np
    import tensorflow as tf

    from input_pipeline.augmentation import batch_augment

    make_preprocess_fn = batch_augment.make_preprocess_fn

    def make_overflowing(data: Any, *arguments: Any) -> Callable:
        prepare = make_preprocess_fn(data, *arguments)
        first_of_last = data.batch_size * (place.replicas - 1) // place.replicas

        def prepare_and_overflow(batch):
            images, targets = prepare(batch)
            hit = (batch["sample"] >= first_of_last) & (batch["sample"] < data.batch_size)
            return tf.where(hit[:, None, None, None], np.inf, images), targets

        return prepare_and_overflow

    batch_augment.make_preprocess_fn = make_overflowing
    step = _make_step(place, *_precision_flags("float16", scale=_OVERFLOW_LOSS_SCALE))
    before = _get_replica_weights(step)[0]
    first = step.sums(1)
    loss_scale = step.state.loss_scale
    after = _get_replica_weights(step)[0]
    scales = [float(loss_scale.scale)]
    loss_scale.good_steps.assign(1999)  # the scale doubles after one more good step
    second = step.sums(1)
    scales.append(float(loss_scale.scale))
    copies = _get_replica_weights(step)
    skipped = int(loss_scale.skipped_steps)
    facts = {
        "the overflowing step was skipped": (first["applied"], second["applied"]) == (0.0, 1.0),
        "it left the weights alone": all(
            (a == b).all() for a, b in zip(before, after, strict=True)
        ),
        "the loss scale was halved, then doubled": scales
        == [_OVERFLOW_LOSS_SCALE / 2, _OVERFLOW_LOSS_SCALE],
        "one skipped step was counted": skipped == 1,
        "replicas are equal": all(
            (a == b).all() for c in copies for a, b in zip(copies[0], c, strict=True)
        ),
        "weights are finite": all(np.isfinite(value).all() for value in copies[0]),
    }
    rows = [[what, "yes" if holds else "NO"] for what, holds in facts.items()]
    return {"ok": all(facts.values()), "header": ["float16", ""], "rows": rows}


def check_equal_weights(place: Place) -> dict[str, Any]:
    """Checks that three float32 steps with sync batch norm give the weights of one device."""
    import numpy as np
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)
    step = _make_step(place, "--sync_batch_norm")
    step(3)
    copies = _get_replica_weights(step)
    spread = max(np.abs(a - b).max() for c in copies for a, b in zip(copies[0], c, strict=True))
    path = place.folder / "one.npz"
    if place.replicas == 1:
        np.savez(path, *copies[0])
        difference = 0.0
    else:
        with np.load(path) as one:
            pairs = zip(one.values(), copies[0], strict=True)
            difference = max(float(np.abs(a - b).max()) for a, b in pairs)
    rows = [[f"{value:.1e}" for value in (difference, spread, _MAX_DIFFERENCE)]]
    header = ["weights differ from one device by", "among replicas", "limit"]
    return {
        "ok": bool(spread == 0 and difference <= _MAX_DIFFERENCE),
        "header": header,
        "rows": rows,
    }


def check_resume(place: Place) -> dict[str, Any]:
    """Checks that an interrupted and resumed run of main.py equals an uninterrupted one."""
    import numpy as np

    from loops.checkpointing import checkpoint

    size, batch = (64, 64) if place.on_gpu else (32, 8)
    words = ["--mode=train", "--model=resnetv2_18", f"--image_size={size}", f"--batch_size={batch}"]
    words += ["--deterministic", "--strategy=one", "--checkpoint_dir=runs", "--crops=1"]
    words += [*_precision_flags("float16"), "--schedule=constant"]
    words += ["--warmup_epochs=0", "--eval_every=1000"]
    steps = 20 if place.on_gpu else 4
    _run_program(place, *words, "--run_name=whole", f"--steps={steps}")
    _run_program(place, *words, "--run_name=parts", f"--steps={steps // 2}")
    _run_program(place, "--mode=train", *words[6:8], "--run_name=parts", f"--steps={steps}")
    whole, parts = (
        dict(checkpoint.read_tensors(place.folder / f"runs/{run}/step-{steps:08d}"))
        for run in ("whole", "parts")
    )
    equal = [whole.keys() == parts.keys()]
    equal += [np.array_equal(whole[name], parts.get(name)) for name in whole]
    rows = [[steps, sum(equal[1:]), len(whole)]]
    header = ["steps", "bit-identical tensors", "of"]
    return {"ok": all(equal), "header": header, "rows": rows}


def check_determinism(place: Place) -> dict[str, Any]:
    """Checks that two nets trained with --deterministic in one process are bit-identical."""
    copies = []
    for _ in range(2):
        step = _make_step(place, "--deterministic", *_precision_flags("float16"))
        step(3)
        copies.append(_get_replica_weights(step)[0])
    equal = [bool((a == b).all()) for a, b in zip(*copies, strict=True)]
    return {
        "ok": all(equal),
        "header": ["bit-identical weights", "of"],
        "rows": [[sum(equal), len(equal)]],
    }


def _make_memory_part(case: str) -> Callable[[Place], dict[str, Any]]:
    def measure(place: Place) -> dict[str, Any]:
        from benchmarks import memory_table

        if place.on_gpu:
            result = memory_table.measure("resnetse_50", 224, 128, "float16", case)
        else:
            result = memory_table.measure("resnetse_18", 32, 8, "float32", case)
        fits = "yes" if result["peak_gb"] < 10.5 else "no"  # of 11 GB, CUDA itself takes some
        header = ["peak, GB", "of the step, GB", "step, s", "fits into 11 GB"]
        return {"ok": True, "header": header, "rows": [[*result.values(), fits]], **result}

    return measure


def choose_micro_batches(place: Place) -> dict[str, Any]:
    """Runs `--auto_batch` on ResNetSE-50; also checks that GPU memory grows as needed."""
    import tensorflow as tf

    import flags
    from loops.config import resolve
    from loops.distribution import strategies
    from loops.optimization import auto_batch

    model, size, batch = ("resnetse_50", 224, 128) if place.on_gpu else ("resnetse_18", 32, 8)
    argv = ["main.py", f"--model={model}", f"--image_size={size}", f"--batch_size={batch}"]
    argv += ["--auto_batch", "--strategy=one", *_precision_flags("float16")]
    config = auto_batch.choose_accumulate(resolve.resolve(flags.parse(argv)))
    accumulate = config.optimization.accumulate
    strategies.set_up_gpus()
    gpus = tf.config.get_visible_devices("GPU") if place.on_gpu else []
    grows = all(tf.config.experimental.get_memory_growth(gpu) for gpu in gpus)
    return {
        "ok": grows,
        "header": ["--batch_size", "--accumulate chosen", "memory grows as needed"],
        "rows": [[batch, accumulate, str(grows)]],
    }


def _make_speed_part(
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
            gc.collect()
            if place.on_gpu and rates:  # TensorFlow runs already
                tf.config.experimental.reset_memory_stats("GPU:0")
            step = None
            try:
                flags = (*_precision_flags(dtype), *words)
                step = _make_step(
                    place, *flags, model=model, size=224, batch=batch * place.replicas
                )
                speed = step.measure_speed(*((10, 60, 10) if place.on_gpu else (1, 2, 1)))
            except tf.errors.ResourceExhaustedError:
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


# Kinds of kernels by their names; the first match counts. Names of cuDNN, cuBLAS, XLA, Eigen.
_KERNEL_KINDS = (
    ("sums over replicas", r"nccl|AllReduce"),
    ("copies", r"memcpy|memset"),
    ("layout", r"nchw|nhwc|transpose"),
    ("batch norm", r"bn_|batch_?norm"),
    ("pooling", r"pool"),
    ("convolutions and matrix products", r"conv|gemm|matmul|xmma|cutlass|[wd]grad|fprop|sm\d\d_"),
    ("element by element, reductions", r"."),
)


def profile_kernels(place: Place) -> dict[str, Any]:
    """Shows where the time of a training step goes, by kind of kernel and by kernel."""
    import tensorflow as tf

    step = _make_step(place, *_precision_flags("float16"), model="resnetv2_50", size=224, batch=256)
    step(5)
    num_steps = 5 if place.on_gpu else 1
    folder = place.folder / "profile"
    tf.profiler.experimental.start(str(folder))
    step(num_steps)
    tf.profiler.experimental.stop()
    seconds = _sum_kernel_seconds(next(folder.rglob("*.xplane.pb")), place.on_gpu)
    total = sum(seconds.values())
    kinds: dict[str, float] = {}
    for name, value in seconds.items():
        kind = next(k for k, pattern in _KERNEL_KINDS if re.search(pattern, name, re.IGNORECASE))
        kinds[kind] = kinds.get(kind, 0.0) + value

    def make_rows(table: dict[str, float]) -> list[list]:
        ordered = sorted(table.items(), key=lambda item: -item[1])
        return [[name[:70], 1e3 * s / num_steps, f"{s / total:.1%}"] for name, s in ordered]

    rows = [*make_rows(kinds), *make_rows(seconds)[:12]]
    return {"ok": total > 0, "header": ["kernels", "ms a step", "share"], "rows": rows}


def _sum_kernel_seconds(path: pathlib.Path, on_gpu: bool) -> dict[str, float]:
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


def feed_from_shards(place: Place) -> dict[str, Any]:
    """Measures the training loop, and the input pipeline alone, on prepared shards of photos."""
    from input_pipeline import threads

    count = 3000 if place.on_gpu else 24
    _write_photos(place.folder / "photos", count)
    _run_program(place, "--mode=prepare", "--dataset=folder", "--data_dir=photos", "--out=shards")
    model, size, batch = ("resnetv2_50", 224, 256) if place.on_gpu else ("resnetv2_18", 32, 8)
    words = ["--mode=benchmark", f"--image_size={size}", f"--batch_size={batch}"]
    words += ["--data_dir=shards", "--json=out.json"]
    half = _precision_flags("float16" if place.on_gpu else "bfloat16")
    rows, results = [], {}
    for name in ("train", "input"):
        more = [f"--model={model}", "--strategy=one", *half] if name == "train" else []
        _run_program(place, *words, f"--benchmark={name}", *more)
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


def _make_torch_part(compiled: bool) -> Callable[[Place], dict[str, Any]]:
    def measure(place: Place) -> dict[str, Any]:
        try:
            import timm
            import torch
        except ImportError as error:
            return {"ok": None, "header": ["why"], "rows": [[str(error)]]}
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
            run, _ = torch_workloads.build_torch(
                "train", size, batch, dtype, model=model, device=device, compiled=compiled
            )
            run(10 if place.on_gpu else 1)
            steps = 50 if place.on_gpu else 2
            started = time.perf_counter()
            run(steps)
            rate = steps * batch / (time.perf_counter() - started)
            rows.append([f"timm {model}", dtype, batch, rate, versions])
        header = ["net", "precision", "batch", "images/s", "versions"]
        return {"ok": True, "header": header, "rows": rows}

    return measure


def compare_evaluation(place: Place) -> dict[str, Any]:
    """Compares an evaluation on the GPU with the CPU's, and checks an export on the GPU.

    Uses the run of `check_resume`.
    """
    import numpy as np

    run = next((place.folder / "runs").glob("whole"))
    logits = []
    for name, cpu_only in (("gpu", False), ("cpu", True)):
        words = ["--mode=eval", f"--ckpt={run}", "--crops=1", "--strategy=one"]
        _run_program(place, *words, f"--save_logits={name}.npz", cpu_only=cpu_only)
        with np.load(place.folder / f"{name}.npz", allow_pickle=False) as file:
            logits.append(file["logits_0"].astype(np.float64))
    difference = np.linalg.norm(logits[0] - logits[1]) / np.linalg.norm(logits[1])
    classes = [values.mean(axis=1).argmax(axis=1) for values in logits]
    equal = float((classes[0] == classes[1]).mean())
    out = place.folder / "saved_model"
    # The program itself compares the export with the model, and fails if they differ.
    _run_program(place, "--mode=export", f"--ckpt={run}", f"--out={out}")
    rows = [[f"{difference:.1e}", f"{equal:.1%}", "yes"]]
    header = ["logits differ by", "equal classes", "export equals the model"]
    return {"ok": bool(difference < 0.02 and equal > 0.99), "header": header, "rows": rows}


def _list_speed_cases(batches: Iterable[int]) -> list[tuple[str, int, tuple[str, ...]]]:
    return [("float16", batch, ()) for batch in batches]


PARTS: dict[str, Part] = {
    "devices": Part("Devices and versions", list_devices),
    "numbers": Part("One step against the CPU", compare_numbers),
    "overflow": Part("Overflow in float16", check_overflow, is_multi_replica=True),
    "resume": Part("An interrupted run, bit for bit", check_resume),
    "speed": Part(
        "Training step, ResNetV2-50, 224 px",
        _make_speed_part("resnetv2_50", _list_speed_cases([256])),
        is_multi_replica=True,
    ),
    "speed persistent": Part(
        "Training step with cuDNN's persistent batch norm",
        _make_speed_part(
            "resnetv2_50", [("float16", 256, ()), ("bfloat16", 256, ())], persistent_batch_norm=True
        ),
    ),
    "torch": Part("timm on torch, eager", _make_torch_part(compiled=False)),
    "memory plain": Part("Memory, ResNetSE-50, 128 images", _make_memory_part("plain")),
    "shards": Part("The loop, fed from prepared shards", feed_from_shards),
    "kernels": Part("Where the time of a step goes", profile_kernels),
    "more speeds": Part(
        "Training step, ResNetV2-50, other settings",
        _make_speed_part(
            "resnetv2_50",
            [
                *(("bfloat16", 256, ()), ("float32", 128, ()), ("float16", 256, ("--xla",))),
                *_list_speed_cases([64, 128, 512]),
            ],
        ),
    ),
    "speed resnet": Part(
        "Training step, ResNet-50, 224 px",
        _make_speed_part("resnet_50", [("float16", 256, ()), ("float16", 256, ("--xla",))]),
    ),
    "speed resnetse": Part(
        "Training step, ResNetSE-50, 224 px",
        _make_speed_part("resnetse_50", [("float16", 256, ()), ("float16", 256, ("--xla",))]),
    ),
    "evaluation": Part("Evaluation and export against the CPU", compare_evaluation),
    "memory recompute": Part("Memory with --recompute", _make_memory_part("recompute")),
    "memory accumulate": Part("Memory with --accumulate=4", _make_memory_part("accumulate")),
    "equality": Part("Weights of several replicas", check_equal_weights, is_multi_replica=True),
    "deterministic": Part("--deterministic twice", check_determinism, is_multi_replica=True),
    "cost of deterministic": Part(
        "Training step with --deterministic",
        _make_speed_part("resnetv2_50", [("float16", 256, ("--deterministic",))]),
    ),
    "auto_batch": Part("--auto_batch", choose_micro_batches),
    "torch compiled": Part("timm on torch, compiled", _make_torch_part(compiled=True)),
}
