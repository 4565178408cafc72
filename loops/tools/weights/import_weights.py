"""`--mode=import`: makes a run folder from weights that were trained elsewhere."""

import dataclasses
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
from loops.tools.weights import hub, sidecar, weight_file
from loops.tools.weights.card import Card
from loops.tools.weights.located_weights import LocatedWeights, locate
from loops.tools.weights.weight_file import WeightFile
from nets import published_weights, torch_names
from nets.layers.random_layers import Dropout

# Rejects files that claim a huge classifier and would allocate any amount of memory.
_MAX_CLASSES = 100_000
# How the first weights of torchvision and those of timm's recipes `a1` to `a3` are evaluated. It is
# assumed if there is no card.
_PREPROCESSING = {
    "torchvision": {"image_size": 224, "crop_fraction": 224 / 256, "interpolation": "bilinear"},
    "timm": {"image_size": 224, "crop_fraction": 0.95, "interpolation": "bicubic"},
}
# Mean and std of timm's pre-activation nets, which were trained on images from -1 to 1.
_HALF_RANGE = (127.5, 127.5, 127.5)
_MAX_NAMES_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class ImportedRun:
    """The run folder that an import has written.

    Attributes:
      record: its record.
      step_dir: its only checkpoint.
      card: card of the weights, or None.
    """

    record: run_folder.Record
    step_dir: pathlib.Path
    card: Card | None


def run(config: Config) -> dict:
    """Imports the weights that `--weights` names.

    Args:
      config: config of the command line.

    Returns:
      dict as in the JSON file.

    Raises:
      UsageError: the file is not valid, or its weights are not those of the model. Nothing is
        written then.
    """
    return _report(config, import_run(config, locate("weights", config.importing.weights)))


def import_run(config: Config, located: LocatedWeights) -> ImportedRun:
    """Writes a run folder from weights.

    Args:
      config: config of the command line.
      located: the weights. They are downloaded after the flags are checked.

    Raises:
      UsageError: see `run`.
    """
    config = _name_net_and_run(config, located)
    importing, model_name = config.importing, config.net.model
    run_dir = run_folder.resolve_new_run_dir(config, "the imported weights")
    _require_supported(importing.source, model_name)
    file_format = "h5" if importing.source == "h5" else "safetensors"
    path = located.fetch()
    with weight_file.open_file(str(path), file_format, located.where) as file:
        is_verified = located.name is not None and hub.verify_hash(located.where, path, file.sha256)
        num_classes = _read_num_classes(file, importing.source, model_name)
        config, class_names = resolve_config(config, num_classes, located)
        strategy = strategies.make_strategy(strategies.to_single_process(config.distribution))
        model = restore.build_model(strategy, config.net, num_classes, "float32")
        names = _map_tensor_names(importing.source, model_name, model)
        used = set(names.values())
        unused = set(file.shapes) - used
        counters = {name for name in unused if _is_counter(file, name, used)}
        _require_complete_match(file, names, unused - counters, model_name)
        layout: Literal["keras", "torch"] = "keras" if file_format == "h5" else "torch"
        _assign_variables(file, names, model, layout)
    weights: dict[str, int | float | str] = {
        "file": str(path),
        "sha256": file.sha256,
        "source": importing.source,
        "tensors": len(names),
        "ignored": len(counters),
        "hashes": "verified"
        if is_verified
        else sidecar.verify(path, {v.path: v.numpy() for v in model.variables}),
    }
    if located.name is not None:
        weights["repository"] = located.name.repository
        weights["commit"] = path.parent.name
    if located.card is not None and located.card.license:
        weights["license"] = located.card.license
    record = run_folder.Record(config, class_names, {}, weights)
    with run_folder.create_or_roll_back(run_dir):
        checkpoint.remove_unfinished(run_dir)  # of an import that was killed
        run_folder.write_record(run_dir, record)
        variables = {"model": restore.variables_by_path(model)}
        step_dir = checkpoint.save(run_dir, 0, variables)
    return ImportedRun(record, step_dir, located.card)


def _name_net_and_run(config: Config, located: LocatedWeights) -> Config:
    """Returns the config with `--model` and `--run_name` from the weights, unless typed.

    Raises:
      UsageError: the weights are those of a net that is not here.
    """
    values = {}
    if located.run_name and "run_name" not in config.typed:
        values["run_name"] = located.run_name
    if "model" not in config.typed and config.importing.source != "h5":
        timm_name = located.card.architecture if located.card else located.run_name
        model = torch_names.find_model(timm_name)
        if model is None and timm_name:
            raise UsageError(
                f"{located.where}: are weights of {timm_name}, which is not one of the nets here"
                f" ({', '.join(torch_names.MODELS['timm'])}); if it is one under another name, give"
                " --model"
            )
        if model is not None:
            values["model"] = model
    return config.replace(**values)


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
            f"{file.where}: not the weights of a {model_name}: {name}, the bias of the head,"
            f" {reason}"
        )
    return shape[0]


def resolve_config(
    config: Config, num_classes: int, located: LocatedWeights
) -> tuple[Config, tuple[str, ...]]:
    """Resolves the config of the imported run as if it had been trained here.

    Args:
      config: config of the command line.
      num_classes: number of classes of the weights.
      located: the weights. Their card decides about all that is not typed.

    Returns:
      (resolved config, class names by label).

    Raises:
      UsageError: the data set or the card has another number of classes.
    """
    importing = config.importing
    recorded_names: tuple[str, ...] = ()
    if importing.source == "h5":
        values, recorded_names = sidecar.read_preprocessing(located.path, num_classes)
    else:
        values, recorded_names = _read_card(config, num_classes, located)
    if "dataset" not in config.typed:
        is_imagenet = num_classes == 1000 and "class_names" not in config.typed
        if recorded_names and importing.source != "h5":
            is_imagenet = is_imagenet and recorded_names == datasets.load_wnids("ilsvrc2012")
        config = config.replace(dataset="ilsvrc2012" if is_imagenet else "lists")
    dataset_flags.check_list_flags(config)
    if recorded_names and not config.typed & {"dataset", "class_names"}:
        class_names = recorded_names
    else:
        class_names = _find_class_names(config.data, num_classes)
    if len(class_names) != num_classes:
        raise UsageError(
            f"--dataset={config.data.dataset} has {len(class_names)} classes, but the head in"
            f" {importing.weights} has {num_classes}"
        )
    values = {name: value for name, value in values.items() if name not in config.typed}
    try:
        return resolve.resolve(config.replace(**values)), class_names
    except UsageError as error:
        if located.card is None:
            raise
        raise UsageError(f"{located.where}, with its card: {error}") from None


def _read_card(
    config: Config, num_classes: int, located: LocatedWeights
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns values of the preprocessing flags and class names; warns of what is assumed.

    Raises:
      UsageError: the card has another number of classes.
    """
    source_name, card = config.importing.source, located.card
    values: dict[str, Any] = dict(_PREPROCESSING[source_name])
    uses_half_range = source_name == "timm" and config.net.model.startswith("resnetv2")
    values["mean"] = _HALF_RANGE if uses_half_range else datasets.IMAGENET_MEAN
    values["std"] = _HALF_RANGE if uses_half_range else datasets.IMAGENET_STD
    stated = card.preprocessing if card else {}
    assumed = [name for name in values if name not in stated and name not in config.typed]
    if assumed:
        shown = ", ".join(f"{name}={values[name]}" for name in assumed)
        lacks = "the card lacks some values" if card else "there is no card"
        logging.warning(
            "%s: %s; assumed: %s; give the flags if they differ", located.where, lacks, shown
        )
    values |= stated
    values["torchvision_rounding"] = True
    if card is None:
        return values, ()
    for count in {card.num_classes or num_classes, len(card.class_names) or num_classes}:
        if count != num_classes:
            raise UsageError(
                f"{located.where}: its card says {count} classes, but the head has {num_classes};"
                " to import the weights without the card, name the file of weights itself"
            )
    return values, card.class_names


def _find_class_names(data: DataConfig, num_classes: int) -> tuple[str, ...]:
    """Returns the class names of the data set, or numbers for `lists` without `--class_names`."""
    if data.dataset != "lists":
        if wnids := datasets.load_wnids(data.dataset):
            return wnids
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
            f"{file.where}: not the weights of a {model_name}:"
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
    feature_maps = _find_flattened_feature_maps(model)
    shapes = {}
    for path, name in names.items():
        shape = tuple(variables[path].shape)
        shapes[path] = _torch_shapes(shape) if layout == "torch" else [shape]
        weight_file.require_shape(file, name, shapes[path])
    for path, name in names.items():
        values = weight_file.read_tensor(file, name, shapes[path][0])
        if layout == "torch":
            values = _from_torch(values, feature_maps.get(path))
        if path.endswith("/moving_variance") and (values < 0).any():
            raise UsageError(f"{file.where}: {name} is a variance and has negative values")
        variables[path].assign(values)
    logging.debug("%d tensors of %s, sha256 %s", len(names), file.path, file.sha256)


def _torch_shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Returns PyTorch's shapes for a tensor; a dense kernel may be stored as 1 x 1 convolution."""
    if len(shape) == 4:
        height, width, inputs, outputs = shape
        return [(outputs, inputs, height, width)]
    if len(shape) == 2:
        inputs, outputs = shape
        return [(outputs, inputs), (outputs, inputs, 1, 1)]
    return [shape]


def _find_flattened_feature_maps(model: keras.Model) -> dict[str, tuple[int, int, int]]:
    """Returns (H, W, C) of the flattened input of dense kernels, by path of the kernel."""
    shapes = {
        layer.output.name: layer.input.shape[1:]
        for layer in model.layers
        if isinstance(layer, keras.layers.Flatten)
    }
    for layer in model.layers:  # in the order of the forward pass
        if isinstance(layer, Dropout) and layer.input.name in shapes:
            shapes[layer.output.name] = shapes[layer.input.name]
    return {
        layer.kernel.path: shapes[layer.input.name]
        for layer in model.layers
        if isinstance(layer, keras.layers.Dense) and layer.input.name in shapes
    }


def _from_torch(values: np.ndarray, feature_map: tuple[int, int, int] | None = None) -> np.ndarray:
    """Converts PyTorch's layout: [out, in, H, W] to [H, W, in, out], [out, in] to [in, out].

    Args:
      values: the tensor.
      feature_map: (H, W, C) if the inputs are a flattened feature map. PyTorch flattens [C, H, W].
    """
    if feature_map is not None:
        height, width, channels = feature_map
        by_channel = values.reshape(len(values), channels, height, width)
        return np.transpose(by_channel, (2, 3, 1, 0)).reshape(-1, len(values))
    if values.ndim == 4:
        return np.transpose(values, (2, 3, 1, 0))
    return np.transpose(values)


def _report(config: Config, imported: ImportedRun) -> dict:
    """Prints the results and writes the file of `--json`; returns the results."""
    record, card = imported.record, imported.card
    results: dict[str, Any] = {
        **record.weights,
        "model": record.config.net.model,
        "num_classes": len(record.class_names),
        "dataset": record.config.data.dataset,
        "step_folder": str(imported.step_dir),
        "preprocessing": {name: getattr(record.config.data, name) for name in PREPROCESSING_FIELDS},
    }
    rows = [(name, value) for name, value in results.items() if name != "preprocessing"]
    rows += results["preprocessing"].items()
    if entry := published_weights.find(str(record.weights.get("repository", ""))):
        texts = [f"{f.top1:.2%} / {f.top5:.2%} at {f.image_size} px" for f in entry.figures]
        rows.append(("published top-1 / top-5", ", ".join(texts)))
    if card is not None and card.test_image_size:
        flags = f"--test_size={card.test_image_size}"
        if card.test_crop_fraction:
            flags += f" --crop_fraction={card.test_crop_fraction}"
        rows.append(("publisher's best test", f"--mode=eval with {flags}"))
    console.print_summary(str(imported.step_dir), rows)
    output_files.write_json_output(config.evaluation.json, results)
    return results
