"""The two sides of `benchmarks.step_vs_torch`: timm's network on torch, and ours.

Each side imports its packages in its build function, because torch may be installed in an
environment without TensorFlow.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras
    import torch

_NUM_CLASSES = 1000
_LEARNING_RATE, _MOMENTUM, _WEIGHT_DECAY = 0.0125, 0.9, 1e-4

# (function that runs a number of steps, multiply-adds per image).
Side = tuple[Callable[[int], object], float]


def build_torch(
    work: str,
    size: int,
    batch_size: int,
    dtype: str,
    *,
    model: str = "resnetv2_50",
    device: str = "cpu",
    compiled: bool = False,
) -> Side:
    """Builds a net of timm as users train it: channels last, autocast, a scaler for float16.

    Args:
      work: "train" for training steps, "eval" for forward passes.
      size: image size in pixels.
      batch_size: images per step.
      dtype: "float32", "bfloat16" or "float16".
      model: name in timm.
      device: "cpu" or "cuda".
      compiled: use torch.compile.
    """
    import timm
    import torch

    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    net = timm.create_model(model)
    multiply_adds = _count_multiply_adds(net, size)
    net = net.to(device, memory_format=torch.channels_last)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (batch_size, size, size, 3), np.uint8))
    images = images.permute(0, 3, 1, 2).to(device)  # a view that is already channels last
    labels = torch.from_numpy(rng.integers(0, _NUM_CLASSES, batch_size)).to(device)
    mean, std = (torch.full((1, 3, 1, 1), 127.5, device=device) for _ in range(2))
    optimizer = torch.optim.SGD(
        net.parameters(),
        _LEARNING_RATE,
        momentum=_MOMENTUM,
        weight_decay=_WEIGHT_DECAY,
        nesterov=True,
        foreach=True,
    )
    autocast = torch.autocast(device, getattr(torch, dtype), enabled=dtype != "float32")
    scaler = torch.amp.GradScaler(device, enabled=dtype == "float16")
    forward = torch.compile(net) if compiled else net

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def train(steps: int) -> None:
        net.train()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                logits = forward((images.float() - mean) / std)
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        finish()

    def evaluate(steps: int) -> None:
        net.eval()
        with torch.inference_mode(), autocast:
            for _ in range(steps):
                forward((images.float() - mean) / std).float().cpu().numpy()

    return {"train": train, "eval": evaluate}[work], multiply_adds


def _count_multiply_adds(model: "torch.nn.Module", size: int) -> int:
    """Counts the multiply-adds of convolutions and dense layers for one image, from its shapes."""
    import torch

    counts = []

    def count(layer, _, output):
        positions = output.numel() // output.shape[1]
        counts.append(positions * layer.weight.numel())

    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        model.eval()(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def build_ours(work: str, size: int, batch_size: int, dtype: str) -> Side:
    """Builds our training step or our evaluation; see `build_torch`."""
    from benchmarks.workloads import step_workloads
    from nets.macs import count_multiply_adds

    if work == "train":
        model, run = step_workloads.build_ours(size, batch_size, dtype)
    else:
        model, run = _build_our_evaluation(size, batch_size, dtype)
    return run, count_multiply_adds(model, size)


def _build_our_evaluation(
    size: int, batch_size: int, dtype: str
) -> tuple["keras.Model", Callable[[int], None]]:
    """Builds our network and a function that runs a number of its evaluation steps."""
    import tensorflow as tf

    import flags
    from loops.checkpointing import restore
    from loops.config import resolve
    from loops.distribution import strategies
    from loops.evaluator import make_logits_fn

    words = ["benchmark", "--dataset=ilsvrc2012", "--strategy=one", f"--image_size={size}"]
    config = resolve.resolve(flags.parse(words))
    strategy = strategies.make_strategy(config.distribution)
    model = restore.build_model(strategy, config.net, _NUM_CLASSES, dtype)
    forward = tf.function(make_logits_fn(model, config.data.mean, config.data.std))
    rng = np.random.default_rng(0)
    views = tf.constant(rng.integers(0, 256, (batch_size, 1, size, size, 3), np.uint8))

    def run(steps: int) -> None:
        for _ in range(steps):
            forward(views).numpy()

    return model, run


def measure(run: Callable[[int], object], batch_size: int, steps: int) -> dict:
    """Times a side: the first step, two warm-up steps, then `steps` one by one.

    Returns:
      A dict: images_per_second (of the median step), seconds (of each step), cpu_seconds_per_step
      (of all cores), first_step_seconds.
    """

    def time_step() -> float:
        started = time.perf_counter()
        run(1)
        return time.perf_counter() - started

    first, *_ = (time_step() for _ in range(3))
    before = time.process_time()
    seconds = [time_step() for _ in range(steps)]
    cpu_seconds = (time.process_time() - before) / steps
    return {
        "images_per_second": batch_size / float(np.median(seconds)),
        "seconds": seconds,
        "cpu_seconds_per_step": cpu_seconds,
        "first_step_seconds": first,
    }
