"""What the user can say about the training step: optimisation, precision, devices."""

import dataclasses
from typing import Annotated, Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizationConfig:
    """Loss, optimizer and schedule. None means: from the dataset."""

    optimizer: Annotated[Literal["sgd"], "sgd: with momentum."] = "sgd"
    momentum: Annotated[float, "Momentum of sgd."] = 0.9
    nesterov: Annotated[bool, "Nesterov's form of the momentum."] = True
    learning_rate: Annotated[float | None, "Peak learning rate per 256 images of a batch."] = None
    linear_scaling: Annotated[bool, "Multiply the learning rate by batch_size / 256."] = True
    schedule: Annotated[
        Literal["cosine", "step", "constant"],
        "After warm-up: cosine to zero; step: times 0.1 at 1/3, 2/3 and 8/9 of training; constant.",
    ] = "cosine"
    warmup_epochs: Annotated[float | None, "Epochs of linear warm-up."] = None
    weight_decay: Annotated[float, "L2 penalty of kernels (not of biases and norms)."] = 1e-4
    label_smoothing: Annotated[float, "Share of the target spread evenly over all classes."] = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionConfig:
    """Number formats of the forward and backward pass; variables are float32 always."""

    mixed_precision: Annotated[bool, "Compute in half precision."] = False
    half_dtype: Annotated[
        Literal["auto", "float16", "bfloat16"],
        "With --mixed_precision. auto: float16 with dynamic loss scaling on GPUs, bfloat16 on "
        "CPUs that have it, else float32 with a warning.",
    ] = "auto"
    initial_loss_scale: Annotated[float, "First loss scale of float16."] = 2.0**15


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributionConfig:
    """Which devices take part."""

    strategy: Annotated[
        Literal["auto", "one", "mirrored"],
        "auto: mirrored where there is more than one GPU, else one device.",
    ] = "auto"
    cpu_devices: Annotated[
        int, "Split the CPU into this many devices, to try --strategy=mirrored anywhere."
    ] = 1
