"""What the user can say about prediction; flags are made from these fields."""

import dataclasses
from typing import Annotated, Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What is predicted, and what is written of it."""

    image: Annotated[
        str, "Image files, folders or globs, separated by commas; - reads paths from stdin."
    ] = ""
    seam_carving: Annotated[
        bool, "Predict: one more view, resized to a square by removing seams of little content."
    ] = False
    explain: Annotated[
        bool,
        "Predict: draw what the answer rests on (Grad-CAM, occlusion) into RUN/explain; --report "
        "has it anyway.",
    ] = False
    report: Annotated[
        str, "Predict: write a self-contained HTML page of the pictures to this file."
    ] = ""
    csv: Annotated[str, "Predict: write a table with one line per image to this file."] = ""


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
class BenchmarkConfig:
    """What is measured."""

    benchmark: Annotated[
        Literal["step", "input", "eval", "train"],
        "benchmark: what is measured. step: the training step, on images made up in memory; "
        "input: the stages of the input pipeline; eval: the forward pass of an evaluation, on "
        "images made up in memory; train: the training loop with its input pipeline.",
    ] = "step"
