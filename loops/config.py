"""The whole configuration: the tree that flags build, and what may change later."""

import dataclasses
from typing import Annotated, Literal

from input_pipeline.config import DataConfig, PrepareConfig, ServiceConfig
from input_pipeline.errors import UsageError
from loops.prediction.config import PredictConfig
from loops.run.config import RunConfig
from loops.step.config import DistributionConfig, OptimizationConfig, PrecisionConfig
from nets import registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthConfig:
    """How long training takes: one of the three, or none of them for the dataset's epochs."""

    epochs: Annotated[float | None, "Length of training in epochs."] = None
    steps: Annotated[int | None, "Length of training in optimizer steps, instead."] = None
    examples: Annotated[int | None, "Length of training in images, instead."] = None
    seed: Annotated[int, "Seed of weights, order and augmentation."] = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is evaluated and how."""

    ckpt: Annotated[
        str,
        "Run folder (its newest intact step), RUN/best, or a step folder; of several, separated by "
        "commas, eval and predict average the predictions, --mode=average the weights.",
    ] = ""
    split: Annotated[
        Literal["val", "test", "train"], "Split to evaluate; stats takes train unless it is given."
    ] = "val"
    crops: Annotated[
        int,
        "Views per image: 10 (corners, centre, mirrored) or 1 (centre). Training takes this many "
        "at its end, and 1 on the way.",
        (10, 1),
    ] = 10
    top_k: Annotated[
        str,
        "Report top-k accuracy for each k, separated by commas; predict lists as many classes as "
        "the largest.",
    ] = "1,5"
    eval_batch_size: Annotated[
        int, "Images of one evaluation batch; 0: about 250 views a GPU, on a CPU 50."
    ] = 0
    json: Annotated[str, "Also write the mode's JSON result to this file."] = ""
    test_size: Annotated[
        str, "Evaluate at these image sizes in turn, separated by commas, as in 160,224."
    ] = ""
    real_labels: Annotated[
        str, "ImageNet-ReaL labels (JSON): also score ilsvrc2012's val split by them."
    ] = ""
    save_logits: Annotated[str, "Write the logits of every view to this .npz file."] = ""
    logits: Annotated[
        str, "Files of --save_logits, separated by commas, to score in place of images."
    ] = ""
    members: Annotated[
        str, "With several models: only these, counted from 1, as in 1,3. Empty: all of them."
    ] = ""
    watch: Annotated[bool, "Evaluate each checkpoint of a run as training saves it."] = False
    watch_patience: Annotated[
        float, "Minutes without a new checkpoint after which --watch gives up; 0: never."
    ] = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What a mode writes that makes something new, and where."""

    format: Annotated[
        Literal["saved_model", "tflite", "onnx", "weights_h5", "tfrecord", "lists"],
        "Form of the exported model, or of a prepared set (tfrecord unless given).",
    ] = "saved_model"
    out: Annotated[
        str,
        "export: file or folder to write, which must not be there yet; prepare: folder to write; "
        "verify, stats: folder of the results, else --data_dir.",
    ] = ""
    quantize: Annotated[
        Literal["none", "int8"], "tflite: int8 weights and activations, calibrated on train images."
    ] = "none"
    calibration_images: Annotated[int, "Training images that calibrate int8."] = 100
    bn_batches: Annotated[
        int, "average: as many images as so many training batches give the batch-norm statistics."
    ] = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Weights from elsewhere."""

    weights: Annotated[str, "File of weights to import: .safetensors or .weights.h5."] = ""
    source: Annotated[
        Literal["timm", "torchvision", "h5"],
        "Whose names the file has. h5: what --mode=export --format=weights_h5 writes.",
    ] = "timm"


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What is measured."""

    benchmark: Annotated[
        Literal["step", "input", "eval", "train"],
        "benchmark: what is measured. step: the training step, on images made up in memory; "
        "input: the stages of the input pipeline; eval: the forward pass of an evaluation, on "
        "images made up in memory; train: the training loop with its input pipeline.",
    ] = "step"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Everything a mode needs, made once from the command line."""

    mode: Annotated[
        Literal[
            *("train", "eval", "predict", "import", "export", "average"),
            *("prepare", "verify", "stats", "data_service", "benchmark", "repro"),
        ],
        "What to do. train: start or resume a run; eval: judge checkpoints; predict: classes of "
        "pictures; import, export: weights from and for other programs; average: one net of "
        "several checkpoints; prepare, verify, stats: make, check and measure a data set; "
        "data_service: load images for trainers; benchmark: measure speed; repro: replay the "
        "first steps of a run, exit code 3 where they depart.",
    ] = "train"
    net: registry.NetConfig = dataclasses.field(default_factory=registry.NetConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    length: LengthConfig = dataclasses.field(default_factory=LengthConfig)
    optimization: OptimizationConfig = dataclasses.field(default_factory=OptimizationConfig)
    precision: PrecisionConfig = dataclasses.field(default_factory=PrecisionConfig)
    distribution: DistributionConfig = dataclasses.field(default_factory=DistributionConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    evaluation: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    prediction: PredictConfig = dataclasses.field(default_factory=PredictConfig)
    importing: ImportConfig = dataclasses.field(default_factory=ImportConfig)
    fine_tuning: FineTuningConfig = dataclasses.field(default_factory=FineTuningConfig)
    prepare: PrepareConfig = dataclasses.field(default_factory=PrepareConfig)
    export: ExportConfig = dataclasses.field(default_factory=ExportConfig)
    service: ServiceConfig = dataclasses.field(default_factory=ServiceConfig)
    measurement: BenchmarkConfig = dataclasses.field(default_factory=BenchmarkConfig)


# Files that a command is told to write.
OUTPUTS = ("json", "csv", "report", "save_logits")

# What may differ when a run is resumed: its length, paths, devices, and what is written when.
MAY_CHANGE_ON_RESUME = frozenset(
    ("mode", "epochs", "steps", "examples", "checkpoint_dir", "run_name", "keep", "json")
    + ("save_every", "eval_every", "log_every", "crops", "top_k", "eval_batch_size")
    + ("data_dir", "train_list", "val_list", "test_list", "class_names", "reader_threads")
    + ("strategy", "cpu_devices", "recompute", "keep_every", "log_norms", "profile")
    + ("cache", "data_service")
)
# What may differ when a run is evaluated: besides, the images' size and split, and the precision.
MAY_CHANGE_ON_EVAL = MAY_CHANGE_ON_RESUME.union(
    ("ckpt", "split", "image", "image_size", "mixed_precision", "half_dtype", "deterministic")
    + ("crop_fraction", "interpolation")
    + ("seam_carving", "explain", "report", "csv")
    + ("test_size", "real_labels", "save_logits", "logits", "members", "watch", "watch_patience")
    + ("format", "out", "quantize", "calibration_images", "bn_batches")
)


def leaves(config):
    """Yields (flag name, value) of every field that has a flag, depth first."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value)
        else:
            yield field.name, value


def replace(config, values):
    """Returns the config with the named leaves replaced, wherever in the tree they are."""
    changes = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = replace(value, values)
        elif field.name in values:
            changes[field.name] = values[field.name]
    return dataclasses.replace(config, **changes)


def merge(saved, given, values, may_change, mode):
    """A saved run's config with the flags of this command laid over it.

    Args:
      saved: Config from the run's config.json.
      given: names of the flags that the user typed.
      values: Config of this command.
      may_change: names of the flags that may differ from the saved ones.
      mode: what is being done, for the message.

    Raises:
      UsageError: a flag that the user typed conflicts with the run.
    """
    old, new = dict(leaves(saved)), dict(leaves(values))
    for name in sorted(given - may_change):
        if new[name] != old[name]:
            raise UsageError(
                f"--{name}={new[name]} conflicts with the run, which has {old[name]}: leave the"
                f" flag out to {mode} it, or start a new run"
            )
    # A file that an earlier command was told to write is no wish of this one.
    changed = dict.fromkeys(OUTPUTS, "")
    changed |= {name: new[name] for name in given if name in old}
    if given & {"epochs", "steps", "examples"}:
        changed = {"epochs": None, "steps": None, "examples": None, **changed}
    return replace(saved, changed)
