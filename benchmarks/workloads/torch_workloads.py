"""The two sides of `benchmarks.step_vs_torch`: timm's net on torch, and ours.

Each is imported where it runs: torch may live in an environment of its own, without TensorFlow.
"""

import time

import numpy as np

_CLASSES = 1000
_LEARNING_RATE, _MOMENTUM, _WEIGHT_DECAY = 0.0125, 0.9, 1e-4


def build_torch(work, size, batch_size, dtype):
    """Builds timm's resnetv2_50 as its users train it on a CPU: channels last, autocast, eager.

    Args:
      work: "train" for training steps, "eval" for forward passes.
      size: side of the images in pixels.
      batch_size: images per step.
      dtype: "float32" or "bfloat16".

    Returns:
      (function that does a number of steps, multiply-adds of an image).
    """
    import timm
    import torch

    torch.manual_seed(0)
    net = timm.create_model("resnetv2_50").to(memory_format=torch.channels_last)
    multiply_adds = _count_multiply_adds(net, size)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (batch_size, size, size, 3), np.uint8))
    images = images.permute(0, 3, 1, 2)  # a view: these are channels last already
    labels = torch.from_numpy(rng.integers(0, _CLASSES, batch_size))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([127.5] * 3, [127.5] * 3))
    optimizer = torch.optim.SGD(
        net.parameters(),
        _LEARNING_RATE,
        momentum=_MOMENTUM,
        weight_decay=_WEIGHT_DECAY,
        nesterov=True,
        foreach=True,
    )
    half = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")

    def train(steps):
        net.train()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with half:
                logits = net((images.float() - mean) / std)
            torch.nn.functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()

    def evaluate(steps):
        net.eval()
        with torch.inference_mode(), half:
            for _ in range(steps):
                net((images.float() - mean) / std).float().numpy()

    return {"train": train, "eval": evaluate}[work], multiply_adds


def _count_multiply_adds(net, size):
    """Multiply-adds of the convolutions and dense layers of one image, by the shapes met."""
    import torch

    counted = []

    def count(layer, _, output):
        positions = output.numel() // output.shape[1]
        counted.append(positions * layer.weight.numel())

    layers = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        net.eval()(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return sum(counted)


def build_ours(work, size, batch_size, dtype):
    """Builds our training step or our evaluation; arguments and result as of `build_torch`."""
    from benchmarks.workloads import step_workloads
    from nets.macs import count_multiply_adds

    if work == "train":
        net, run = step_workloads.build_ours(size, batch_size, dtype)
    else:
        net, run = _build_our_evaluation(size, batch_size, dtype)
    return run, count_multiply_adds(net, size)


def _build_our_evaluation(size, batch_size, dtype):
    """As `step_workloads.build_ours`, for the forward pass of an evaluation."""
    import tensorflow as tf

    import flags
    from loops.checkpointing import restore
    from loops.config import resolve
    from loops.distribution import strategies
    from loops.evaluator import make_logits_fn

    words = ["benchmark", "--dataset=ilsvrc2012", "--strategy=one", f"--image_size={size}"]
    config = resolve.resolve(flags.parse(words))
    strategy = strategies.make_strategy(config.distribution)
    net = restore.build_model(strategy, config.net, _CLASSES, dtype)
    forward = tf.function(make_logits_fn(net, config.data.mean, config.data.std))
    rng = np.random.default_rng(0)
    views = tf.constant(rng.integers(0, 256, (batch_size, 1, size, size, 3), np.uint8))

    def run(steps):
        for _ in range(steps):
            forward(views).numpy()

    return net, run


def measure(run, batch_size, steps):
    """Times a side: the first step, two to warm up, then `steps` one by one.

    Returns:
      dict: images_per_second (of the median step), seconds (of each), cpu_seconds_per_step
      (of all cores together), first_step_seconds.
    """

    def seconds():
        started = time.perf_counter()
        run(1)
        return time.perf_counter() - started

    first, *_ = (seconds() for _ in range(3))
    before = time.process_time()
    taken = [seconds() for _ in range(steps)]
    used = (time.process_time() - before) / steps
    return {
        "images_per_second": batch_size / float(np.median(taken)),
        "seconds": taken,
        "cpu_seconds_per_step": used,
        "first_step_seconds": first,
    }
