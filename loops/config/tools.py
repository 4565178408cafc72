"""The flags of all modes except training: evaluation, prediction, import, export, benchmarks.

Each flag is one field: `Annotated[type, help, facts]`. See `flag_fields` for the facts.
"""

import dataclasses
from typing import Annotated, Literal

from loops.config import choices
from loops.config.modes import RESULT_MODES


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """The images of a prediction, and the files it writes."""

    image: Annotated[
        str,
        "Image files, folders or globs, separated by commas. - reads paths from stdin.",
        {
            "common_in": ("predict",),
            "other_names": "input images image_path img",
            "needed_by": {"predict": "name files or folders, separated by commas"},
            "is_path_list": True,
            "modes": ("predict",),
            "on_eval": True,
        },
    ] = ""
    seam_carving: Annotated[
        bool,
        "Also classify a view that seam carving has made square.",
        {"modes": ("predict",), "on_eval": True},
    ] = False
    explain: Annotated[
        bool,
        "Write Grad-CAM and occlusion maps to RUN/explain. With --report, the page has them "
        "instead.",
        {"common_in": ("predict",), "modes": ("predict",), "on_eval": True},
    ] = False
    report: Annotated[
        str,
        "Write a self-contained HTML page of the predictions, or of augmented images, to this "
        "file. It shows at most 50 predictions: in folders of classes the most confident mistakes "
        "and then other images, else the first images.",
        {
            "common_in": ("predict", "preview"),
            "needed_by": {"preview": "name the page to write, as in --report=preview.html"},
            "is_path": True,
            "modes": ("predict", "preview"),
            "on_eval": True,
            "is_output_file": True,
        },
    ] = ""
    features: Annotated[
        str,
        "Write the features (the inputs of the classifier, averaged over the views) to this .npz "
        "file.",
        {"is_path": True, "modes": ("predict",), "on_eval": True, "is_output_file": True},
    ] = ""
    csv: Annotated[
        str,
        "Write a table with one line per image to this file.",
        {"is_path": True, "modes": ("predict",), "on_eval": True, "is_output_file": True},
    ] = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is evaluated, and how."""

    ckpt: Annotated[
        str,
        "Run folder (its newest intact step), RUN/best, a step folder, or published weights as in "
        "timm/resnet50.a1_in1k, which the first use imports. Several, separated by commas: eval "
        "and predict average the predictions, average averages the weights.",
        {
            "common_in": ("eval", "predict", "export", "average", "repro", "recipe"),
            "other_names": "checkpoint ckpt_path model_path load",
            "needed_by": dict.fromkeys(
                ("eval", "predict", "export", "average", "repro", "recipe"),
                "name a run folder, as in --ckpt=checkpoints/RUN",
            ),
            "is_path_list": True,
            "modes": ("eval", "predict", "export", "average", "repro", "recipe"),
            "on_eval": True,
            "on_replay": True,
            "benchmarks": (),
            "hints": {
                "train": "to resume a run, name it with --run_name",
                "import": "name the file with --weights",
            },
        },
    ] = ""
    split: Annotated[
        Literal["val", "test", "train"],
        "Split to evaluate. stats uses train unless this flag is given.",
        {
            "common_in": ("eval", "stats"),
            "modes": ("eval", "stats"),
            "on_eval": True,
            "with_logits": True,
            "benchmarks": (),
        },
    ] = "val"
    crops: Annotated[
        int,
        "Views per image: 10 (corners and center, also mirrored) or 1 (center). Evaluations during "
        "training use 1; the final one uses this number.",
        {
            "common_in": ("eval", "predict"),
            "other_names": "tta ten_crop",
            "choices": (10, 1),
            "modes": ("train", "eval", "predict"),
            "on_resume": True,
            "with_logits": True,
        },
    ] = 10
    top_k: Annotated[
        str,
        "Report top-k accuracy for each k, separated by commas. predict lists as many classes as "
        "the largest k.",
        {
            "common_in": ("predict",),
            "other_names": "topk",
            "modes": ("train", "eval", "predict"),
            "on_resume": True,
            "with_logits": True,
        },
    ] = "1,5"
    metrics: Annotated[
        str,
        "Additional metrics to report, separated by commas. nll, brier and ece are always "
        "reported.",
        {
            "choices": choices.METRICS.names,
            "is_list": True,
            "accepts_code": True,
            "modes": ("train", "eval"),
            "on_resume": True,
            "with_logits": True,
        },
    ] = ""
    best: Annotated[
        str,
        "Metric by which training chooses the best checkpoint, on center crops.",
        {
            "other_names": "eval_metric monitor",
            "choices": choices.best_names,
            "accepts_code": True,
            "modes": ("train",),
            "affects_training": False,
            "benchmarks": (),
        },
    ] = "top1"
    eval_batch_size: Annotated[
        int,
        "Images per evaluation batch (0: about 250 views per GPU, 50 on a CPU).",
        {
            "other_names": "val_batch_size validation_batch_size vb per_device_eval_batch_size",
            "minimum": 0,
            "maximum": 2**20,
            "modes": ("train", "eval", "predict"),
            "on_resume": True,
        },
    ] = 0
    json: Annotated[
        str,
        "Also write the JSON result of the mode to this file.",
        {
            "common_in": ("eval", "benchmark"),
            "is_path": True,
            "modes": RESULT_MODES,
            "on_resume": True,
            "on_replay": True,
            "is_output_file": True,
            "with_logits": True,
            "benchmarks": ("step", "input", "eval", "train"),
        },
    ] = ""
    test_size: Annotated[
        str,
        "Evaluate at each of these image sizes, separated by commas, as in 160,224.",
        {
            "other_names": "val_crop_size",
            "modes": ("eval",),
            "on_eval": True,
            "with_watch": False,
            "benchmarks": (),
        },
    ] = ""
    test_sets: Annotated[
        str,
        "Folders of test sets, separated by commas, to evaluate in one table: class folders as of "
        "ImageNet-V2, A, R, Sketch and C, or any data set with a val split.",
        {
            "is_path_list": True,
            "modes": ("eval",),
            "on_eval": True,
            "with_watch": False,
            "benchmarks": (),
        },
    ] = ""
    real_labels: Annotated[
        str,
        "File of ImageNet-ReaL labels (JSON): also score the val split of ilsvrc2012 with them.",
        {
            "is_path": True,
            "modes": ("eval",),
            "on_eval": True,
            "with_logits": True,
            "benchmarks": (),
        },
    ] = ""
    save_logits: Annotated[
        str,
        "Write the logits of every view to this .npz file.",
        {
            "is_path": True,
            "modes": ("eval",),
            "on_eval": True,
            "is_output_file": True,
            "with_watch": False,
            "benchmarks": (),
        },
    ] = ""
    logits: Annotated[
        str,
        "Score the logits in these files of --save_logits, separated by commas, instead of images.",
        {
            "is_path_list": True,
            "modes": ("eval",),
            "on_eval": True,
            "with_logits": True,
            "benchmarks": (),
        },
    ] = ""
    members: Annotated[
        str,
        "Of several models, use only these, counted from 1, as in 1,3. If empty, all of them.",
        {
            "modes": ("eval",),
            "on_eval": True,
            "with_logits": True,
            "with_watch": False,
            "benchmarks": (),
        },
    ] = ""
    watch: Annotated[
        bool,
        "Evaluate each checkpoint of a run as training saves it.",
        {"modes": ("eval",), "on_eval": True, "benchmarks": ()},
    ] = False
    watch_patience: Annotated[
        float,
        "Minutes without a new checkpoint after which --watch ends (0: never).",
        {"minimum": 0, "modes": ("eval",), "on_eval": True, "benchmarks": ()},
    ] = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What export, average, prepare, verify and stats write, and where."""

    format: Annotated[
        Literal["saved_model", "tflite", "onnx", "weights_h5", "tfrecord", "lists"],
        "Format of the exported model, or of the prepared data set (default there: tfrecord).",
        {"common_in": ("export", "prepare"), "modes": ("export", "prepare"), "on_eval": True},
    ] = "saved_model"
    out: Annotated[
        str,
        "export: new file or folder to write. prepare: folder to write. verify, stats: folder of "
        "the results, --data_dir by default.",
        {
            "common_in": ("export", "prepare"),
            "needed_by": {"prepare": "name the folder to write the prepared data set to"},
            "is_path": True,
            "modes": ("export", "prepare", "verify", "stats"),
            "on_eval": True,
        },
    ] = ""
    quantize: Annotated[
        Literal["none", "int8"],
        "tflite: int8 weights and activations, calibrated on training images.",
        {"modes": ("export",), "on_eval": True},
    ] = "none"
    calibration_images: Annotated[
        int,
        "Training images that calibrate int8.",
        {"minimum": 1, "modes": ("export",), "on_eval": True},
    ] = 100
    bn_batches: Annotated[
        int,
        "average: training batches that re-estimate the batch-norm statistics.",
        {"minimum": 1, "modes": ("average",), "on_eval": True},
    ] = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Weights from other programs."""

    weights: Annotated[
        str,
        "Weights to import: timm/NAME or hf_hub:OWNER/NAME, which are downloaded from the Hugging "
        "Face Hub; a folder with model.safetensors and config.json; or a file, .safetensors or "
        ".weights.h5.",
        {
            "common_in": ("import",),
            "needed_by": {
                "import": "name a repository as in timm/resnet50.a1_in1k, a folder or a file"
            },
            "is_path": True,
            "modes": ("import",),
            "hints": {
                "train": "give --init_from=timm/NAME, or the run folder that --mode=import made"
            },
        },
    ] = ""
    source: Annotated[
        Literal["timm", "torchvision", "h5"],
        "Naming scheme of the tensors. h5: a file of --mode=export --format=weights_h5.",
        {"common_in": ("import",), "modes": ("import",)},
    ] = "timm"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What is measured."""

    benchmark: Annotated[
        Literal["step", "input", "eval", "train"],
        "step: the training step on random images in memory. input: the stages of the input "
        "pipeline. eval: the forward pass of an evaluation on random images in memory. train: the "
        "training loop with its input pipeline.",
        {
            "common_in": ("benchmark",),
            "modes": (),
            "benchmarks": ("step", "input", "eval", "train"),
        },
    ] = "step"
