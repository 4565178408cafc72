"""What the user can say about the training step: optimisation, precision, devices."""

import dataclasses
from typing import Annotated, Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizationConfig:
    """Loss, optimizer and schedule. None means: from the dataset."""

    recipe: Annotated[
        Literal["none", "cosine50", "step90", "nvidia90", "rsb_a3", "ffcv16", "short"],
        "Flags of a published recipe, or of short, ours for small sets and few epochs; those that "
        "are given beside it win.",
    ] = "none"
    optimizer: Annotated[
        Literal["sgd", "lamb", "lars", "adamw"],
        "sgd, with momentum; lars, the same with a rate for each layer; adamw; lamb, adamw with a "
        "rate for each layer.",
    ] = "sgd"
    momentum: Annotated[float, "Momentum of sgd and lars."] = 0.9
    nesterov: Annotated[bool, "Nesterov's form of the momentum of sgd."] = True
    learning_rate: Annotated[float | None, "Peak learning rate per 256 images of a batch."] = None
    final_learning_rate: Annotated[
        float, "Learning rate per 256 images at the end of the cosine and the linear schedule."
    ] = 0.0
    linear_scaling: Annotated[bool, "Multiply the learning rate by batch_size / 256."] = True
    schedule: Annotated[
        Literal["cosine", "step", "constant", "linear"],
        "After warm-up: cosine or linear, down to --final_learning_rate; step: times 0.1 at 1/3, "
        "2/3 and 8/9 of training; constant.",
    ] = "cosine"
    warmup_epochs: Annotated[float | None, "Epochs of linear warm-up."] = None
    weight_decay: Annotated[float, "Decay of kernels (not of biases and norms)."] = 1e-4
    decay_kind: Annotated[
        Literal["auto", "l2", "decoupled"],
        "l2: the penalty's gradient joins the gradient; decoupled: kernels shrink by learning rate "
        "x weight decay beside it; auto: l2 for sgd and lars, decoupled for adamw and lamb.",
    ] = "auto"
    loss: Annotated[
        Literal["softmax", "bce"],
        "softmax: cross-entropy of one class out of all; bce: binary cross-entropy of every class.",
    ] = "softmax"
    label_smoothing: Annotated[float, "Share of the target spread evenly over all classes."] = 0.0
    clip_norm: Annotated[float, "Largest norm of all gradients together; 0: any."] = 0.0
    clip_factor: Annotated[
        float, "Largest norm of a unit's gradient over the norm of its weights; 0: any."
    ] = 0.0
    ema: Annotated[
        float, "Decay per step of the moving average of weights that is evaluated; 0: none."
    ] = 0.0
    auto_batch: Annotated[bool, "Choose --accumulate so that a micro-batch fits into memory."] = (
        False
    )
    accumulate: Annotated[
        int, "Micro-batches that each replica cuts its share of a batch into."
    ] = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionConfig:
    """Number formats of the forward and backward pass; variables are float32 always."""

    mixed_precision: Annotated[bool, "Compute in half precision."] = False
    half_dtype: Annotated[
        Literal["auto", "float16", "bfloat16"],
        "With --mixed_precision. auto: float16 with dynamic loss scaling on GPUs, bfloat16 on "
        "CPUs that have it, else float32 with a warning.",
    ] = "auto"
    xla: Annotated[bool, "Compile the forward and backward pass of a training step."] = False
    initial_loss_scale: Annotated[float, "First loss scale of float16."] = 2.0**15


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributionConfig:
    """Which devices take part, and how freely they compute."""

    strategy: Annotated[
        Literal["auto", "one", "mirrored", "multi_worker"],
        "auto: multi_worker where TF_CONFIG names several, mirrored where there is more than one "
        "GPU, else one device. multi_worker: the processes that TF_CONFIG or Slurm names.",
    ] = "auto"
    cpu_devices: Annotated[
        int, "Split the CPU into this many devices, to try --strategy=mirrored anywhere."
    ] = 1
    deterministic: Annotated[
        bool,
        "Take only operations that give the same bits every time, for exact resume on GPUs too; "
        "CPUs do so anyway. Costs speed.",
    ] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Names and intervals. An interval is a number of steps, or of epochs as in `2epochs`."""

    checkpoint_dir: Annotated[str, "Folder of all run folders."] = "checkpoints"
    run_name: Annotated[
        str, "Name of the run folder; naming an existing run resumes it. Else model-dataset-time."
    ] = ""
    save_every: Annotated[str, "Steps between checkpoints, or epochs as in 2epochs."] = "1epochs"
    eval_every: Annotated[str, "Steps between evaluations, or epochs as in 2epochs."] = "1epochs"
    log_every: Annotated[str, "Steps between log lines, or epochs as in 0.5epochs."] = "20"
    keep: Annotated[int, "Checkpoints to keep besides the best one."] = 3
    keep_every: Annotated[
        str, "Also keep the checkpoint of every so many steps, or epochs as in 10epochs; 0: none."
    ] = "0"
    profile: Annotated[str, "Profile the steps from START to STOP, given as START,STOP."] = ""
    log_norms: Annotated[bool, "Log the norm of each variable and of its gradient."] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthConfig:
    """How long training takes: one of the three, or none of them for the dataset's epochs."""

    epochs: Annotated[float | None, "Length of training in epochs."] = None
    steps: Annotated[int | None, "Length of training in optimizer steps, instead."] = None
    examples: Annotated[int | None, "Length of training in images, instead."] = None
    seed: Annotated[int, "Seed of weights, order and augmentation."] = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuningConfig:
    """Training that starts from the weights of another run."""

    init_from: Annotated[
        str,
        "Run or step folder to take the weights from; the head is replaced where classes differ.",
    ] = ""
    freeze: Annotated[
        Literal["none", "backbone"],
        "backbone: train the head alone; batch-norm statistics stay, too.",
    ] = "none"
