"""The checks of `benchmarks.gpu_check`; each runs in a new process.

A check takes (place, replicas, folder) and returns a dict: ok, and what (a line of details).
`place` is "gpu", or "cpu" for the same check at a tiny size. A check may read what an earlier one
wrote to `folder`.
"""

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.workloads.bare_step import BareStep

Check = Callable[[str, int, pathlib.Path], dict[str, Any]]

_NUM_CLASSES = 10
# The weights of N replicas differ from those of one by rounding; a wrong sum differs far more.
_MAX_DIFFERENCE = 1e-4
_OVERFLOW_LOSS_SCALE = 8.0


def _make_step(
    place: str,
    replicas: int,
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

    gpus = tf.config.list_physical_devices("GPU")
    tf.config.set_visible_devices(gpus[:replicas] if place == "gpu" else [], "GPU")
    if place == "cpu":
        model, size, batch = "resnetv2_18", 32, 8
        words = (*words, f"--cpu_devices={replicas}")
    strategy = "one" if replicas == 1 else "mirrored"
    argv = ["main.py", f"--model={model}", f"--image_size={size}", f"--strategy={strategy}"]
    return BareStep([*argv, f"--batch_size={batch}", *words], _NUM_CLASSES)


def _get_replica_weights(step: "BareStep") -> "list[tuple[np.ndarray, ...]]":
    """Returns the weights of each replica."""
    local = step.strategy.experimental_local_results
    values = [[v.numpy() for v in local(w.value)] for w in step.state.model.trainable_variables]
    return list(zip(*values, strict=True))


def _float16_flags(*more: str, scale: float = 128.0) -> list[str]:
    """Returns the flags of float16; at the default loss scale no step overflows by itself."""
    half = ["--mixed_precision", "--half_dtype=float16", f"--initial_loss_scale={scale}"]
    return [*half, *more]


def check_overflow(place: str, replicas: int, folder: pathlib.Path) -> dict[str, Any]:
    """Checks that all replicas skip a step if only the last one overflows, then apply the next."""
    import numpy as np
    import tensorflow as tf

    from input_pipeline.augmentation import batch_augment

    make_preprocess_fn = batch_augment.make_preprocess_fn

    def make_overflowing(data: Any, *arguments: Any) -> Callable:
        prepare = make_preprocess_fn(data, *arguments)
        first_of_last = data.batch_size * (replicas - 1) // replicas

        def prepare_and_overflow(batch):
            images, targets = prepare(batch)
            hit = (batch["sample"] >= first_of_last) & (batch["sample"] < data.batch_size)
            return tf.where(hit[:, None, None, None], np.inf, images), targets

        return prepare_and_overflow

    batch_augment.make_preprocess_fn = make_overflowing
    step = _make_step(place, replicas, *_float16_flags(scale=_OVERFLOW_LOSS_SCALE))
    before = _get_replica_weights(step)[0]
    first = step.sums(1)
    loss_scale = step.state.loss_scale
    after = _get_replica_weights(step)[0]
    unchanged = all((a == b).all() for a, b in zip(before, after, strict=True))
    scales = [float(loss_scale.scale)]
    loss_scale.good_steps.assign(1999)  # the scale doubles after one more good step
    second = step.sums(1)
    scales.append(float(loss_scale.scale))
    copies = _get_replica_weights(step)
    equal = all((a == b).all() for c in copies for a, b in zip(copies[0], c, strict=True))
    finite = all(np.isfinite(value).all() for value in copies[0])
    applied = [first["applied"], second["applied"]]
    as_expected = applied == [0.0, 1.0] and scales == [
        _OVERFLOW_LOSS_SCALE / 2,
        _OVERFLOW_LOSS_SCALE,
    ]
    return {
        "ok": bool(unchanged and equal and finite and as_expected),
        "what": f"applied {applied}, loss scale {_OVERFLOW_LOSS_SCALE} to {scales}, weights"
        f" unchanged {unchanged}, replicas equal {equal}, finite {finite}",
    }


def check_equal_weights(place: str, replicas: int, folder: pathlib.Path) -> dict[str, Any]:
    """Checks that three float32 steps with sync batch norm give the weights of one device."""
    import numpy as np
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)
    step = _make_step(place, replicas, "--sync_batch_norm")
    step(3)
    copies = _get_replica_weights(step)
    spread = max(np.abs(a - b).max() for c in copies for a, b in zip(copies[0], c, strict=True))
    path = folder / "one.npz"
    if replicas == 1:
        np.savez(path, *copies[0])
        return {"ok": True, "what": "stored the weights"}
    with np.load(path) as one:
        pairs = zip(one.values(), copies[0], strict=True)
        difference = max(float(np.abs(a - b).max()) for a, b in pairs)
    return {
        "ok": bool(spread == 0 and difference <= _MAX_DIFFERENCE),
        "what": f"largest difference from one device {difference:.1e}, among replicas {spread:.1e}",
    }


def check_determinism(place: str, replicas: int, folder: pathlib.Path) -> dict[str, Any]:
    """Checks that three steps with --deterministic are bit-identical in two processes."""
    import numpy as np

    step = _make_step(place, replicas, "--deterministic", *_float16_flags())
    step(3)
    weights = _get_replica_weights(step)[0]
    path = folder / f"deterministic-{replicas}.npz"
    if not path.exists():
        np.savez(path, *weights)
        return {"ok": True, "what": "stored the weights"}
    with np.load(path) as before:
        equal = [bool((a == b).all()) for a, b in zip(before.values(), weights, strict=True)]
    return {"ok": all(equal), "what": f"{sum(equal)} of {len(equal)} weights are bit-identical"}


def check_memory_growth(place: str, replicas: int, folder: pathlib.Path) -> dict[str, Any]:
    """Checks that GPU memory is allocated as needed, not all at the start."""
    import tensorflow as tf

    step = _make_step(place, replicas)
    step(1)
    gpus = tf.config.get_visible_devices("GPU")
    grows = [tf.config.experimental.get_memory_growth(gpu) for gpu in gpus]
    return {"ok": all(grows), "what": f"memory growth of {len(gpus)} GPU(s): {grows}"}


def _make_memory_check(case: str) -> Check:
    def check(place: str, replicas: int, folder: pathlib.Path) -> dict[str, Any]:
        from benchmarks import memory_table

        if place == "gpu":
            result = memory_table.measure("resnetse_50", 224, 64, "float16", case)
        else:
            result = memory_table.measure("resnetse_18", 32, 8, "float32", case)
        text = ", ".join(f"{name} {value:.3f}" for name, value in result.items())
        return {"ok": True, "what": text, **result}

    return check


def _make_speed_check(*words: str) -> Check:
    def check(place: str, replicas: int, folder: pathlib.Path) -> dict[str, Any]:
        step = _make_step(
            place, replicas, *words, model="resnetv2_50", size=224, batch=64 * replicas
        )
        result = step.measure_speed(3, 20 if place == "gpu" else 4, 2)
        return {"ok": True, "what": f"{result['images_per_second']:.1f} images/s", **result}

    return check


CHECKS: dict[str, Check] = {
    "overflow": check_overflow,
    "equality": check_equal_weights,
    "deterministic": check_determinism,
    "deterministic again": check_determinism,
    "growth": check_memory_growth,
    "memory plain": _make_memory_check("plain"),
    "memory accumulate": _make_memory_check("accumulate"),
    "memory recompute": _make_memory_check("recompute"),
    "speed float32": _make_speed_check(),
    "speed float16": _make_speed_check(*_float16_flags()),
    "speed deterministic": _make_speed_check("--deterministic"),
    "speed xla": _make_speed_check(*_float16_flags("--xla")),
}
MULTI_REPLICA_CHECKS = (
    *("overflow", "equality", "deterministic", "deterministic again"),
    *("speed float32", "speed float16", "speed xla"),
)
