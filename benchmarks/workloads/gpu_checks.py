"""The parts of `benchmarks.gpu_check` that can be wrong; each runs in a new process.

A part takes a Place and returns a dict: ok, header and rows of a table. ok is None if it could not
run. A part may read what an earlier one wrote to the folder.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.workloads import gpu_place
from benchmarks.workloads.gpu_place import NUM_CLASSES, Place

# The weights of N replicas differ from those of one by rounding; a wrong sum differs far more.
_MAX_DIFFERENCE = 1e-4
_OVERFLOW_LOSS_SCALE = 8.0
# Nets of each family, and the largest relative difference of the gradients by precision: at least
# twice the difference between the types on a CPU. Unrelated gradients differ by 1.4.
_FAMILIES = ("resnetv2_18", "resnet_18", "resnetse_18", "alexnet_bn", "zfnet_bn")
_MAX_GRADIENT_DIFFERENCE = {
    "float32": 1e-3,
    "TF32": 0.4,
    "XLA": 2e-3,
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
    labels = rng.integers(0, NUM_CLASSES, batch).astype(np.int32)
    device = "GPU:0" if place.on_gpu else "CPU:0"

    def compute(model: str, dtype: str, device: str, weights: list | None, xla: bool) -> tuple:
        argv = ["main.py", f"--model={model}", f"--image_size={size}", f"--batch_size={batch}"]
        config = resolve.resolve(
            flags.parse([*argv, *gpu_place.precision_flags(dtype), "--dropout=0"])
        )
        strategy = strategies.make_one_device_strategy(device)
        state = TrainState(strategy, config, NUM_CLASSES)
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
    step = gpu_place.make_step(
        place, *gpu_place.precision_flags("float16", scale=_OVERFLOW_LOSS_SCALE)
    )
    before = gpu_place.get_replica_weights(step)[0]
    first = step.sums(1)
    loss_scale = step.state.loss_scale
    after = gpu_place.get_replica_weights(step)[0]
    scales = [float(loss_scale.scale)]
    loss_scale.good_steps.assign(1999)  # the scale doubles after one more good step
    second = step.sums(1)
    scales.append(float(loss_scale.scale))
    copies = gpu_place.get_replica_weights(step)
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
    step = gpu_place.make_step(place, "--sync_batch_norm")
    step(3)
    copies = gpu_place.get_replica_weights(step)
    spread = max(np.abs(a - b).max() for c in copies for a, b in zip(copies[0], c, strict=True))
    path = place.folder / "one.npz"
    if place.replicas == 1:
        np.savez(path, *copies[0])
        difference = 0.0
    elif not path.exists():
        return gpu_place.not_run("needs the weights of one replica")
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
    words += [*gpu_place.precision_flags("float16"), "--schedule=constant"]
    words += ["--warmup_epochs=0", "--eval_every=1000"]
    steps = 20 if place.on_gpu else 4
    gpu_place.run_program(place, *words, "--run_name=whole", f"--steps={steps}")
    gpu_place.run_program(place, *words, "--run_name=parts", f"--steps={steps // 2}")
    gpu_place.run_program(
        place, "--mode=train", *words[6:8], "--run_name=parts", f"--steps={steps}"
    )
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
        step = gpu_place.make_step(place, "--deterministic", *gpu_place.precision_flags("float16"))
        step(3)
        copies.append(gpu_place.get_replica_weights(step)[0])
    equal = [bool((a == b).all()) for a, b in zip(*copies, strict=True)]
    return {
        "ok": all(equal),
        "header": ["bit-identical weights", "of"],
        "rows": [[sum(equal), len(equal)]],
    }


def compare_evaluation(place: Place) -> dict[str, Any]:
    """Compares an evaluation on the GPU with the CPU's, and checks an export on the GPU.

    Uses the run of `check_resume`.
    """
    import numpy as np

    run = place.folder / "runs/whole"
    if not run.exists():
        return gpu_place.not_run("needs the run of the part resume")
    logits = []
    for name, cpu_only in (("gpu", False), ("cpu", True)):
        words = ["--mode=eval", f"--ckpt={run}", "--crops=1", "--strategy=one"]
        gpu_place.run_program(place, *words, f"--save_logits={name}.npz", cpu_only=cpu_only)
        with np.load(place.folder / f"{name}.npz", allow_pickle=False) as file:
            logits.append(file["logits_0"].astype(np.float64))
    difference = np.linalg.norm(logits[0] - logits[1]) / np.linalg.norm(logits[1])
    classes = [values.mean(axis=1).argmax(axis=1) for values in logits]
    equal = float((classes[0] == classes[1]).mean())
    out = place.folder / "saved_model"
    # The program itself compares the export with the model, and fails if they differ.
    gpu_place.run_program(place, "--mode=export", f"--ckpt={run}", f"--out={out}")
    rows = [[f"{difference:.1e}", f"{equal:.1%}", "yes"]]
    header = ["logits differ by", "equal classes", "export equals the model"]
    return {"ok": bool(difference < 0.02 and equal > 0.99), "header": header, "rows": rows}
