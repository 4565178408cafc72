"""The checks of `benchmarks.gpu_check`; each runs in a process of its own.

Each takes (place, replicas, folder) and returns a dict: ok, and what: a line of figures. `place` is
"gpu", or "cpu" for the same at a tiny size. What one check leaves in `folder` another may read.
"""

_NUM_CLASSES = 10
# The weights of N replicas differ from those of one by rounding; a wrong sum shows far above.
_MAX_DIFFERENCE = 1e-4
_EASY_SCALE = 8.0


def _make_step(place, replicas, *words, model="resnetv2_18", size=64, batch=168):
    """A BareStep on so many GPUs, or halves of the CPU; 168 images are for 1 to 4, 6, 7 or 8."""
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


def _replica_weights(step):
    """Every replica's weights: a list for each of lists of arrays."""
    local = step.strategy.experimental_local_results
    values = [[v.numpy() for v in local(w.value)] for w in step.state.model.trainable_variables]
    return list(zip(*values, strict=True))


def _float16_flags(*more, scale=128.0):
    """Flags of float16; the scale is low enough for no step to be skipped on its own."""
    half = ["--mixed_precision", "--half_dtype=float16", f"--initial_loss_scale={scale}"]
    return [*half, *more]


def check_overflow(place, replicas, folder):
    """An infinity on the last replica alone is skipped by all, and the next step is applied."""
    import numpy as np
    import tensorflow as tf

    from input_pipeline.augmentation import batch_augment

    make_prepare = batch_augment.make_preprocess_fn

    def make(data, *arguments):
        prepare = make_prepare(data, *arguments)
        last = data.batch_size * (replicas - 1) // replicas

        def spoiled(batch):
            images, targets = prepare(batch)
            hit = (batch["sample"] >= last) & (batch["sample"] < data.batch_size)
            return tf.where(hit[:, None, None, None], np.inf, images), targets

        return spoiled

    batch_augment.make_preprocess_fn = make
    step = _make_step(place, replicas, *_float16_flags(scale=_EASY_SCALE))
    before = _replica_weights(step)[0]
    first = step.sums(1)
    scale = step.state.loss_scale
    kept = all((a == b).all() for a, b in zip(before, _replica_weights(step)[0], strict=True))
    scales = [float(scale.scale)]
    scale.good_steps.assign(1999)  # one good step more, and it doubles
    second = step.sums(1)
    scales.append(float(scale.scale))
    copies = _replica_weights(step)
    equal = all((a == b).all() for c in copies for a, b in zip(copies[0], c, strict=True))
    finite = all(np.isfinite(value).all() for value in copies[0])
    applied = [first["applied"], second["applied"]]
    right = applied == [0.0, 1.0] and scales == [_EASY_SCALE / 2, _EASY_SCALE]
    return {
        "ok": bool(kept and equal and finite and right),
        "what": f"applied {applied}, scale {_EASY_SCALE} to {scales}, weights kept {kept}, "
        f"replicas equal {equal}, finite {finite}",
    }


def check_equal_weights(place, replicas, folder):
    """Three float32 steps with synchronised batch norm end in the weights of one device."""
    import numpy as np
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)
    step = _make_step(place, replicas, "--sync_batch_norm")
    step(3)
    copies = _replica_weights(step)
    spread = max(np.abs(a - b).max() for c in copies for a, b in zip(copies[0], c, strict=True))
    path = folder / "one.npz"
    if replicas == 1:
        np.savez(path, *copies[0])
        return {"ok": True, "what": "weights noted"}
    with np.load(path) as one:
        pairs = zip(one.values(), copies[0], strict=True)
        difference = max(float(np.abs(a - b).max()) for a, b in pairs)
    return {
        "ok": bool(spread == 0 and difference <= _MAX_DIFFERENCE),
        "what": f"largest difference to one device {difference:.1e}, among replicas {spread:.1e}",
    }


def check_determinism(place, replicas, folder):
    """With --deterministic, three steps of two processes end in the same bits."""
    import numpy as np

    step = _make_step(place, replicas, "--deterministic", *_float16_flags())
    step(3)
    weights = _replica_weights(step)[0]
    path = folder / f"deterministic-{replicas}.npz"
    if not path.exists():
        np.savez(path, *weights)
        return {"ok": True, "what": "weights noted"}
    with np.load(path) as before:
        equal = [bool((a == b).all()) for a, b in zip(before.values(), weights, strict=True)]
    return {"ok": all(equal), "what": f"{sum(equal)} of {len(equal)} weights equal bit for bit"}


def check_memory_growth(place, replicas, folder):
    """Memory is taken as it is needed, not all of it at the start."""
    import tensorflow as tf

    step = _make_step(place, replicas)
    step(1)
    gpus = tf.config.get_visible_devices("GPU")
    grows = [tf.config.experimental.get_memory_growth(gpu) for gpu in gpus]
    return {"ok": all(grows), "what": f"memory growth of {len(gpus)} GPU(s): {grows}"}


def _make_memory_check(case):
    def check(place, replicas, folder):
        from benchmarks import memory_table

        big = ("resnetse_50", 224, 64, "float16") if place == "gpu" else ("resnetse_18", 32, 8)
        found = memory_table.measure(*big[:3], (*big, "float32")[3], case)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        return {"ok": True, "what": figures, **found}

    return check


def _make_speed_check(*words):
    def check(place, replicas, folder):
        step = _make_step(
            place, replicas, *words, model="resnetv2_50", size=224, batch=64 * replicas
        )
        found = step.measure_speed(3, 20 if place == "gpu" else 4, 2)
        return {"ok": True, "what": f"{found['images_per_second']:.1f} images/s", **found}

    return check


CHECKS = {
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
