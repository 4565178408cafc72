"""The flags of training: length, optimization, precision, devices, run folder, fine-tuning.

Each flag is one field: `Annotated[type, help, facts]`. See `flag_fields` for the facts.
"""

import dataclasses
from typing import Annotated, Literal

from loops.config import choices, modes, recipes
from loops.config.modes import MODEL_MODES


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthConfig:
    """Length of training: one of the first three, or none for the default of the data set."""

    epochs: Annotated[
        float | None,
        "Length of training in epochs.",
        {
            "common_in": ("train",),
            "other_names": "num_epochs n_epochs max_epochs num_train_epochs epoch",
            "minimum": 1e-9,
            "maximum": 1e9,
            "modes": ("train",),
            "on_resume": True,
            "affects_training": True,
            "is_length": True,
            "benchmarks": (),
        },
    ] = None
    steps: Annotated[
        int | None,
        "Length of training in optimizer steps, instead of epochs. repro: steps to replay.",
        {
            "other_names": "max_steps num_steps train_steps iterations max_iter",
            "minimum": 1,
            "maximum": 10**12,
            "modes": ("train", "repro"),
            "on_resume": True,
            "affects_training": True,
            "is_length": True,
            "benchmarks": (),
            "default_text": "",
        },
    ] = None
    examples: Annotated[
        int | None,
        "Length of training in images, instead of epochs.",
        {
            "minimum": 1,
            "maximum": 10**15,
            "modes": ("train",),
            "on_resume": True,
            "affects_training": True,
            "is_length": True,
            "benchmarks": (),
            "default_text": "",
        },
    ] = None
    seed: Annotated[
        int,
        "Seed of the initial weights, the sample order and the augmentation.",
        {
            "other_names": "random_seed manual_seed",
            "minimum": 0,
            "maximum": 2**32 - 1,
            "modes": ("train", "eval", "predict", "export", "average", "repro", "preview"),
            "benchmarks": ("step", "input", "eval", "train"),
            "in_recipe": False,
        },
    ] = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizationConfig:
    """Loss, optimizer and schedule. None stands for the default of the data set."""

    recipe: Annotated[
        str,
        "Recipe that sets flags: a built-in name, a file of --name=value lines, or a run folder. "
        "Typed flags override it. short is for small data sets and few epochs, finetune for "
        "--init_from; the others are published.",
        {
            "common_in": ("train", "preview"),
            "other_names": "config c cfg",
            "choices": recipes.names,
            "accepts_paths": True,
            "in_recipe": False,
            "modes": ("train", "eval", "predict", "export", "average", "repro", "preview"),
        },
    ] = "none"
    optimizer: Annotated[
        str,
        "sgd (with momentum), adamw, lars (sgd with a learning rate per layer), lamb (adamw with "
        "a learning rate per layer) or muon (sgd with orthogonal steps of convolutions).",
        {
            "common_in": ("train",),
            "other_names": "opt",
            "other_values": {"adam": "adamw"},
            "choices": choices.OPTIMIZERS.names,
            "accepts_code": True,
        },
    ] = "sgd"
    momentum: Annotated[
        float,
        "Momentum of sgd, lars and muon.",
        {"minimum": 0, "maximum": 1, "is_optimizer_specific": True},
    ] = 0.9
    nesterov: Annotated[
        bool, "Nesterov momentum for sgd and muon.", {"is_optimizer_specific": True}
    ] = True
    beta1: Annotated[
        float | None,
        "Decay of the first moment of adamw and lamb.",
        {
            "other_names": "adam_beta1",
            "minimum": 0,
            "below": 1,
            "is_optimizer_specific": True,
            "default_text": "0.9",
        },
    ] = None
    beta2: Annotated[
        float | None,
        "Decay of the second moment of adamw and lamb.",
        {
            "other_names": "adam_beta2",
            "minimum": 0,
            "below": 1,
            "is_optimizer_specific": True,
            "default_text": "0.999",
        },
    ] = None
    epsilon: Annotated[
        float | None,
        "Epsilon of adamw and lamb, added to the square root of the second moment. adamw adds it "
        "before bias correction: epsilon hat in section 2 of Kingma and Ba 2015.",
        {
            "other_names": "opt_eps eps adam_epsilon",
            "minimum": 1e-16,
            "is_optimizer_specific": True,
            "default_text": "1e-8 for adamw, 1e-6 for lamb",
        },
    ] = None
    learning_rate: Annotated[
        float | None,
        "Peak learning rate per 256 images of a batch, or --nolinear_scaling for the rate itself.",
        {
            "common_in": ("train",),
            "other_names": "lr base_lr lr_base blr init_lr peak_lr lr0",
            "minimum": 0,
            "is_optimizer_specific": True,
            "default_text": "by --optimizer and data set, see docs/recipes.md",
        },
    ] = None
    final_learning_rate: Annotated[
        float,
        "Learning rate per 256 images at the end of the cosine and linear schedules.",
        {
            "other_names": "min_lr lr_min eta_min end_lr",
            "minimum": 0,
            "is_optimizer_specific": True,
        },
    ] = 0.0
    linear_scaling: Annotated[bool, "Multiply the learning rate by batch_size / 256."] = True
    schedule: Annotated[
        str,
        "Learning-rate schedule after warm-up: constant; cosine or linear, down to "
        "--final_learning_rate; or step, times 0.1 at 1/3, 2/3 and 8/9 of training.",
        {
            "other_names": "sched lr_scheduler scheduler lr_schedule lr_scheduler_type",
            "other_values": {
                "multistep": "step",
                "steplr": "step",
                "multisteplr": "step",
                "cosineannealinglr": "cosine",
            },
            "choices": choices.schedule_names,
        },
    ] = "cosine"
    milestones: Annotated[
        str,
        "Epochs at which the step schedule multiplies by 0.1, as in 30,60,80.",
        {"other_names": "decay_milestones lr_milestones lr_steps decay_epochs"},
    ] = ""
    warmup_epochs: Annotated[
        float | None,
        "Epochs of linear warm-up.",
        {"other_names": "lr_warmup_epochs warmup warmup_steps", "minimum": 0},
    ] = None
    weight_decay: Annotated[
        float,
        "Weight decay of kernels (not of biases and norms).",
        {"common_in": ("train",), "other_names": "wd", "minimum": 0, "is_optimizer_specific": True},
    ] = 1e-4
    decay_kind: Annotated[
        Literal["auto", "l2", "decoupled"],
        "l2: added to the loss gradient. decoupled: as in AdamW. auto: l2 for sgd and lars, "
        "decoupled for adamw, lamb and muon.",
        {"is_optimizer_specific": True},
    ] = "auto"
    loss: Annotated[
        str,
        "softmax: cross-entropy over all classes. bce: binary cross-entropy of each class.",
        {
            "other_names": "criterion",
            "other_values": {
                "ce": "softmax",
                "crossentropy": "softmax",
                "binarycrossentropy": "bce",
            },
            "choices": choices.LOSSES.names,
            "accepts_code": True,
        },
    ] = "softmax"
    step: Annotated[
        str,
        "The training step: a subclass of TrainStep that changes the loss of a batch, or what "
        "follows an update.",
        {"choices": choices.STEPS.names, "accepts_code": True},
    ] = "standard"
    label_smoothing: Annotated[
        float, "Label smoothing (0: off).", {"other_names": "smoothing", "minimum": 0, "maximum": 1}
    ] = 0.0
    clip_norm: Annotated[
        float,
        "Clip gradients to this global norm (0: off).",
        {
            "other_names": "clip_grad clip_grad_norm max_grad_norm gradient_clip_val clipnorm",
            "minimum": 0,
        },
    ] = 0.0
    clip_factor: Annotated[
        float,
        "Adaptive gradient clipping (AGC): maximum ratio of gradient norm to weight norm per unit "
        "(0: off).",
        {"other_names": "agc clip_mode", "minimum": 0},
    ] = 0.0
    ema: Annotated[
        float,
        "Decay per step of the exponential moving average (EMA) of the weights, as in 0.9999 "
        "(0: off). Evaluation uses the average.",
        {
            "other_names": "model_ema use_ema ema_decay",
            "minimum": 0,
            "below": 1,
            "example": "0.9999",
        },
    ] = 0.0
    auto_batch: Annotated[
        bool, "Choose --accumulate so that a micro-batch fits into memory.", {"benchmarks": ()}
    ] = False
    accumulate: Annotated[
        int,
        "Gradient accumulation: number of micro-batches that each replica splits its batch into.",
        {
            "other_names": "grad_accum_steps gradient_accumulation_steps accum_iter",
            "minimum": 1,
            "maximum": 2**20,
        },
    ] = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrecisionConfig:
    """Compute types of the forward and backward pass. Variables are always float32."""

    mixed_precision: Annotated[
        bool,
        "Mixed precision (AMP): compute in a half-precision type.",
        {
            "common_in": ("train", "benchmark"),
            "other_names": "amp fp16 bf16 half native_amp",
            "modes": ("train", "eval", "predict", "import", "average", "repro"),
            "on_eval": True,
        },
    ] = False
    half_dtype: Annotated[
        Literal["auto", "float16", "bfloat16"],
        "The type of --mixed_precision. auto: float16 with dynamic loss scaling on GPUs, bfloat16 "
        "on CPUs that have it, else float32 with a warning.",
        {
            "other_names": "amp_dtype dtype",
            "other_values": {"fp16": "float16", "half": "float16", "bf16": "bfloat16"},
            "modes": ("train", "eval", "predict", "import", "average", "repro"),
            "on_eval": True,
        },
    ] = "auto"
    xla: Annotated[
        bool,
        "Compile the forward and backward pass of training with XLA.",
        {"other_names": "compile torchcompile jit_compile"},
    ] = False
    initial_loss_scale: Annotated[
        float, "Initial loss scale of float16.", {"other_names": "loss_scale", "minimum": 2.0**-5}
    ] = 2.0**15


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributionConfig:
    """Devices that take part, and whether their results are deterministic."""

    strategy: Annotated[
        Literal["auto", "one", "mirrored", "multi_worker"],
        "auto: multi_worker if TF_CONFIG names several workers, mirrored if there are several "
        "GPUs or --cpu_devices, else one device. multi_worker: the processes that TF_CONFIG or "
        "Slurm names.",
        {
            "modes": ("train", "eval", "predict", "import", "repro"),
            "on_resume": True,
            "affects_training": True,
            "in_recipe": False,
        },
    ] = "auto"
    cpu_devices: Annotated[
        int,
        "Split the CPU into this many devices, to try several replicas without GPUs.",
        {
            "minimum": 1,
            "maximum": 1024,
            "on_resume": True,
            "affects_training": True,
            "in_recipe": False,
        },
    ] = 1
    deterministic: Annotated[
        bool,
        "Use only deterministic operations, which are slower, to resume exactly on GPUs. CPUs are "
        "deterministic anyway.",
        {"other_names": "cudnn_deterministic use_deterministic_algorithms", "on_eval": True},
    ] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Names and intervals. An interval is a number of steps, or of epochs as in `2epochs`."""

    checkpoint_dir: Annotated[
        str,
        "Folder that holds the run folders.",
        {
            "other_names": "output_dir output out_dir save_dir work_dir model_dir log_dir logdir",
            "is_path": True,
            "modes": ("train", "import", "average"),
            "on_resume": True,
            "hints": dict.fromkeys(MODEL_MODES, "--ckpt has the whole path"),
        },
    ] = "checkpoints"
    run_name: Annotated[
        str,
        "Name of the run folder. train: an existing name resumes that run; the default is "
        "model-dataset-time. import: the default is the name of the weights. average: required.",
        {
            "common_in": ("train", "import", "average"),
            "other_names": "experiment name exp_name resume resume_from_checkpoint auto_resume",
            "modes": ("train", "import", "average"),
            "on_resume": True,
            "benchmarks": (),
            "hints": dict.fromkeys(
                ("eval", "predict", "export"), "name the run folder with --ckpt"
            ),
        },
    ] = ""
    save_every: Annotated[
        str,
        "Interval of checkpoints in steps, or in epochs as in 2epochs. A step that is "
        "better than all earlier ones is saved, too.",
        {
            "other_names": "save_freq checkpoint_freq save_interval save_steps",
            "modes": ("train",),
            "on_resume": True,
            "benchmarks": (),
        },
    ] = "1epochs"
    eval_every: Annotated[
        str,
        "Interval of evaluations in steps, or in epochs as in 2epochs.",
        {
            "other_names": "eval_freq val_freq val_interval validation_freq eval_steps",
            "modes": ("train",),
            "on_resume": True,
            "benchmarks": (),
        },
    ] = "1epochs"
    log_every: Annotated[
        str,
        "Interval of log lines in steps, or in epochs as in 0.5epochs.",
        {
            "other_names": "print_freq p log_interval log_freq logging_steps",
            "modes": ("train",),
            "on_resume": True,
        },
    ] = "20"
    keep: Annotated[
        int,
        "Number of checkpoints to keep besides the best one.",
        {
            "other_names": "checkpoint_hist save_total_limit max_to_keep",
            "minimum": 1,
            "modes": ("train",),
            "on_resume": True,
        },
    ] = 3
    keep_every: Annotated[
        str,
        "Also keep checkpoints at this interval, in steps or in epochs as in 10epochs (0: off).",
        {"modes": ("train",), "on_resume": True},
    ] = "0"
    profile: Annotated[
        str,
        "Profile the steps from START to STOP, given as START,STOP.",
        {"modes": ("train",), "on_resume": True, "benchmarks": ()},
    ] = ""
    log_norms: Annotated[
        bool,
        "Log the norm of each variable and of its gradient.",
        {"modes": ("train",), "on_resume": True},
    ] = False
    verbose: Annotated[
        bool,
        "Show the details of the log and the time of each line, as in the log.txt of a run folder.",
        {
            "other_names": "v debug",
            "modes": modes.names(),
            "benchmarks": ("step", "input", "eval", "train"),
            "on_resume": True,
            "on_replay": True,
            "with_logits": True,
        },
    ] = dataclasses.field(default=False, compare=False)  # config.json does not record it
    trust_code: Annotated[
        bool,
        "Execute the code that run folders of other people contain. The code can do anything that "
        "you can.",
        {
            "modes": ("train", "eval", "predict", "export", "average", "repro"),
            "on_resume": True,
            "benchmarks": (),
        },
    ] = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuningConfig:
    """Training that starts from the weights of another run."""

    init_from: Annotated[
        str,
        "Run or step folder, or published weights as in timm/resnet50.a1_in1k, to take initial "
        "weights from. The classifier is replaced if the classes differ.",
        {
            "common_in": ("train",),
            "other_names": "pretrained finetune initial_checkpoint pretrained_weights",
            "is_path": True,
            "modes": ("train", "repro"),
            "on_replay": True,
            "benchmarks": (),
        },
    ] = ""
    freeze: Annotated[
        Literal["none", "backbone"],
        "backbone: train the classifier only. Batch-norm statistics stay as they are.",
        {"other_names": "freeze_backbone linear_probe", "modes": ("train",)},
    ] = "none"
