"""`--mode=import`: makes a run folder from weights that were trained elsewhere."""

import pathlib
from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal

import keras
import numpy as np
from absl import logging

from input_pipeline import datasets
from input_pipeline.config import PREPROCESSING_FIELDS, DataConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import source
from input_pipeline.text import pluralize
from loops.checkpointing import checkpoint, restore, run_folder
from loops.config import dataset_flags, resolve
from loops.config.config import Config
from loops.distribution import strategies
from loops.monitoring import console
from loops.runtime import output_files
from loops.tools.weights import sidecar, weight_file
from loops.tools.weights.weight_file import WeightFile
from nets import torch_names

# Rejects files that claim a huge classifier and would allocate any amount of memory.
_MAX_CLASSES = 100_000
# How the first weights of torchvision and those of timm's recipes `a1` to `a3` are evaluated. timm
# rounds 224 / 0.95 down to 235 pixels.
_PREPROCESSING = {
    "torchvision": {"crop_fraction": 224 / 256, "interpolation": "bilinear"},
    "timm": {"crop_fraction": 224 / 235, "interpolation": "bicubic"},
}
# Mean and std of timm's pre-activation nets, which were trained on images from -1 to 1.
_HALF_RANGE = (127.5, 127.5, 127.5)
_MAX_NAMES_SHOWN = 3


def run(config: Config) -> dict:
    """Imports the file that `--weights` names.

    Args:
      config: config of the command line.

    Returns:
      dict as in the JSON file.

    Raises:
      UsageError: the file is not valid, or its weights are not those of the model. Nothing is
        written then.
    """
    importing, model_name = config.importing, config.net.model
    run_dir = run_folder.resolve_new_run_dir(config, "the imported weights")
    _require_supported(importing.source, model_name)
    file_format = "h5" if importing.source == "h5" else "safetensors"
    with weight_file.open_file(importing.weights, file_format) as file:
        num_classes = _read_num_classes(file, importing.source, model_name)
        config, class_names = resolve_config(config, num_classes)
        strategy = strategies.make_strategy(strategies.to_single_process(config.distribution))
        model = restore.build_model(strategy, config.net, num_classes, "float32")
        names = _map_tensor_names(importing.source, model_name, model)
        used = set(names.values())
        unused = set(file.shapes) - used
        counters = {name for name in unused if _is_counter(file, name, used)}
        _require_complete_match(file, names, unused - counters, model_name)
        layout: Literal["keras", "torch"] = "keras" if file_format == "h5" else "torch"
        _assign_variables(file, names, model, layout)
    weights: dict[str, int | str] = {
        "file": importing.weights,
        "sha256": file.sha256,
        "source": importing.source,
        "tensors": len(names),
        "ignored": len(counters),
        "hashes": sidecar.verify(importing.weights, {v.path: v.numpy() for v in model.variables}),
    }
    with run_folder.create_or_roll_back(run_dir):
        record = run_folder.Record(config, class_names, {}, weights)
        run_folder.write_record(run_dir, record)
        variables = {"model": restore.variables_by_path(model)}
        step_dir = checkpoint.save(run_dir, 0, variables)
    return _report(config, weights, class_names, step_dir)


def _require_supported(source_name: str, model_name: str) -> None:
    """Raises UsageError if a source has no weights for a model."""
    supported = torch_names.MODELS.get(source_name)
    if supported is not None and model_name not in supported:
        raise UsageError(
            f"--model={model_name}: {source_name} has no net of this form; it has"
            f" {', '.join(supported)}"
        )


def _read_num_classes(file: WeightFile, source_name: str, model_name: str) -> int:
    """Returns the length of the classifier's bias."""
    name = "logits/1" if source_name == "h5" else torch_names.get_head_names(model_name)[1]
    shape = file.shapes.get(name)
    if shape is None or len(shape) != 1 or not 1 <= shape[0] <= _MAX_CLASSES:
        reason = "is missing" if shape is None else f"has shape {shape}"
        raise UsageError(
            f"--weights={file.path}: not the weights of a {model_name}: {name}, the bias of the"
            f" head, {reason}"
        )
    return shape[0]


def resolve_config(config: Config, num_classes: int) -> tuple[Config, tuple[str, ...]]:
    """Resolves the config of the imported run as if it had been trained here.

    Args:
      config: config of the command line.
      num_classes: number of classes of the weights.

    Returns:
      (resolved config, class names by label).

    Raises:
      UsageError: the data set has another number of classes.
    """
    importing = config.importing
    if "dataset" not in config.typed:
        is_imagenet = num_classes == 1000 and "class_names" not in config.typed
        config = config.replace(dataset="ilsvrc2012" if is_imagenet else "lists")
    dataset_flags.check_list_flags(config)
    values: dict[str, Any] = dict(_PREPROCESSING.get(importing.source, {}))
    recorded_names: tuple[str, ...] = ()
    if importing.source == "h5":
        values, recorded_names = sidecar.read_preprocessing(importing.weights, num_classes)
    if recorded_names and not config.typed & {"dataset", "class_names"}:
        class_names = recorded_names
    else:
        class_names = _find_class_names(config.data, num_classes)
    if len(class_names) != num_classes:
        raise UsageError(
            f"--dataset={config.data.dataset} has {len(class_names)} classes, but the head in"
            f" {importing.weights} has {num_classes}"
        )
    if importing.source != "h5":
        uses_half_range = importing.source == "timm" and config.net.model.startswith("resnetv2")
        values["mean"] = _HALF_RANGE if uses_half_range else datasets.IMAGENET_MEAN
        values["std"] = _HALF_RANGE if uses_half_range else datasets.IMAGENET_STD
    values = {name: value for name, value in values.items() if name not in config.typed}
    return resolve.resolve(config.replace(**values)), class_names


def _find_class_names(data: DataConfig, num_classes: int) -> tuple[str, ...]:
    """Returns the class names of the data set, or numbers for `lists` without `--class_names`."""
    if data.dataset != "lists":
        table = datasets.load_class_table(data.dataset)
        if table:
            return tuple(wnid for wnid, _ in table)
        return source.open_split(data, "train").class_names
    if not data.class_names:
        return tuple(str(i) for i in range(num_classes))
    try:
        return tuple(wnid for wnid, _ in datasets.read_class_table(data.class_names))
    except OSError:
        raise UsageError(f"--class_names={data.class_names}: cannot be read") from None
    except ValueError as error:
        raise DataError(f"{data.class_names}, {error}") from None


def _map_tensor_names(source_name: str, model_name: str, model: keras.Model) -> dict[str, str]:
    """Maps the path of each of our variables to the name of its tensor in the file."""
    if source_name != "h5":
        return torch_names.map_tensor_names(model_name)
    return {
        variable.path: f"{layer.name}/{i}"
        for layer in model.layers
        for i, variable in enumerate(layer.variables)
    }


def _is_counter(file: WeightFile, name: str, used: Set[str]) -> bool:
    """Returns whether a tensor is only the batch counter of an imported batch norm."""
    norm, _, last = name.rpartition(".")
    is_imported = f"{norm}.running_mean" in used
    return last == torch_names.BATCH_COUNTER and is_imported and file.shapes[name] == ()


def _require_complete_match(
    file: WeightFile, names: Mapping[str, str], unused: Set[str], model_name: str
) -> None:
    """Raises UsageError unless all tensors are used and all variables get a tensor."""
    missing = sorted(set(names.values()) - set(file.shapes))
    if unused or missing:
        raise UsageError(
            f"--weights={file.path}: not the weights of a {model_name}:"
            f" {_format_names(sorted(unused))} of the file would be left over, and"
            f" {_format_names(missing)} of the model are missing"
        )


def _format_names(names: Sequence[str]) -> str:
    """Formats tensor names as in `4 tensors (a, b, c, ...)`."""
    shown = ", ".join(names[:_MAX_NAMES_SHOWN]) + (", ..." if len(names) > _MAX_NAMES_SHOWN else "")
    return pluralize(len(names), "tensor") + (f" ({shown})" if names else "")


def _assign_variables(
    file: WeightFile,
    names: Mapping[str, str],
    model: keras.Model,
    layout: Literal["keras", "torch"],
) -> None:
    """Reads the tensors into the model's variables, after all shapes have been checked.

    Raises:
      UsageError: a tensor is not valid.
    """
    variables = {v.path: v for v in model.variables}
    shapes = {}
    for path, name in names.items():
        shape = tuple(variables[path].shape)
        shapes[path] = _torch_shapes(shape) if layout == "torch" else [shape]
        weight_file.require_shape(file, name, shapes[path])
    for path, name in names.items():
        values = weight_file.read_tensor(file, name, shapes[path][0])
        if layout == "torch":
            values = _from_torch(values)
        if path.endswith("/moving_variance") and (values < 0).any():
            raise UsageError(f"--weights={file.path}: {name} is a variance and has negative values")
        variables[path].assign(values)
    logging.info("%d tensors of %s, sha256 %s", len(names), file.path, file.sha256)


def _torch_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Returns PyTorch's shapes for a tensor; a dense kernel may be stored as 1 x 1 convolution."""
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        return [(outputs, inputs, height, width)]
    if len(shape) == 2:
        inputs, outputs = shape
        return [(outputs, inputs), (outputs, inputs, 1, 1)]
    return [shape]


def _from_torch(values: np.ndarray) -> np.ndarray:
    """Converts PyTorch's layout: [out, in, H, W] to [H, W, in, out], [out, in] to [in, out]."""
    if values.ndim == 4:
        return np.transpose(values, (2, 3, 1, 0))
    return np.transpose(values)


def _report(
    config: Config, weights: dict, class_names: Sequence[str], step_dir: pathlib.Path
) -> dict:
    """Prints the results and writes the file of `--json`; returns the results."""
    results = {
        **weights,
        "model": config.net.model,
        "num_classes": len(class_names),
        "dataset": config.data.dataset,
        "step_folder": str(step_dir),
        "preprocessing": {name: getattr(config.data, name) for name in PREPROCESSING_FIELDS},
    }
    rows = [(name, value) for name, value in results.items() if name != "preprocessing"]
    console.print_summary(str(step_dir), [*rows, *results["preprocessing"].items()])
    output_files.write_json_output(config.evaluation.json, results)
    return results
