"""Completes a configuration: what the user left open comes from the run, the recipe, the data set.

`resolve_training` does this in order for a training run; the other modes use parts of it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from absl import logging

from input_pipeline import augment_spec, datasets, pixel_statistics
from input_pipeline.config import PREPROCESSING_FIELDS
from input_pipeline.errors import UsageError
from input_pipeline.sources import source
from loops.config import dataset_flags, recipes, validation
from loops.config.choices import OPTIMIZERS
from loops.config.config import Config, all_flags, merge, select_flags
from nets import registry

# The recipe of `--init_from`, and the warm-up without a recipe.
FINE_TUNING_RECIPE = "finetune"
_FINE_TUNING_WARMUP_EPOCHS = 0.5
# Where the pixel statistics of data sets without published ones come from, as the log names it.
_STATISTICS_SOURCE = dict.fromkeys(
    ("folder", "lists"), "ImageNet (run --mode=stats to measure those of the images)"
)


def resolve_training(
    config: Config, saved: Config | None = None, parent: Config | None = None
) -> Config:
    """Resolves the configuration of a training run. The order of the steps matters.

    Args:
      config: config of the command line.
      saved: config of the run to resume; None for a new run.
      parent: config of the run behind `--init_from`; None without it.

    Raises:
      UsageError: flags that conflict, or values that no run could use.
    """
    # 1. A prepared `--data_dir` names its data set.
    config = dataset_flags.resolve_dataset(config)
    if saved is not None:
        # 2. A resumed run keeps its config; only some flags may change.
        config = merge(saved, config, select_flags(on_resume=True), "resume")
    else:
        # 2. A new run takes the preprocessing of the weights that it starts from, then a recipe.
        if config.optimization.auto_batch and "accumulate" in config.typed:
            raise UsageError(
                f"--accumulate={config.optimization.accumulate} with --auto_batch, which chooses"
                " that number; drop one"
            )
        if parent is not None:
            if "recipe" not in config.typed and config.fine_tuning.freeze == "none":
                config = config.replace(recipe=FINE_TUNING_RECIPE)
            values = choose_fine_tuning_values(config, parent)
            config = apply_recipe(config.replace(**values))
            _log_fine_tuning(config, values)
        else:
            config = apply_recipe(config)
        if config.data.dataset == "shapes" and not {"dataset", "data_dir"} & config.typed:
            logging.warning(
                "no data set is named: this reads the built-in toy set shapes; name the folder of"
                " your images with --data_dir"
            )
    dataset_flags.require_named_dataset(config)
    # 3. The data set and the optimizer fill in the rest; then everything is checked.
    return resolve(config)


def choose_fine_tuning_values(config: Config, parent: Config) -> dict[str, Any]:
    """Returns what a run takes over from the weights that it starts from, by name of the leaf.

    These are the net, the preprocessing and the batch-norm constants. A learning rate and a warm-up
    for fine-tuning count where no recipe sets them. A new head on frozen weights has the usual
    learning rate. Typed flags are left out.
    """
    values: dict[str, Any] = {
        "model": parent.net.model,
        **{name: getattr(parent.data, name) for name in PREPROCESSING_FIELDS},
        "batch_norm_momentum": parent.net.batch_norm_momentum,
        "batch_norm_epsilon": parent.net.batch_norm_epsilon,
        "warmup_epochs": _FINE_TUNING_WARMUP_EPOCHS,
    }
    if config.fine_tuning.freeze == "none":
        facts = OPTIMIZERS.get(config.optimization.optimizer).facts
        rate = facts.fine_tuning_learning_rate
        if rate is None and facts.learning_rate is not None:
            rate = 0.1 * facts.learning_rate
        if rate is not None:
            values["learning_rate"] = rate
    return {name: value for name, value in values.items() if name not in config.typed}


def _log_fine_tuning(config: Config, values: dict[str, Any]) -> None:
    """Logs the flags that the weights have set; a recipe may have changed some again."""
    leaves, flags = config.leaves(), all_flags()
    chosen = [name for name, value in values.items() if name in flags and leaves[name] == value]
    texts = {name: leaves[name] for name in chosen}
    for name in ("mean", "std"):
        if name in texts:
            texts[name] = ",".join(f"{number:g}" for number in texts[name])
    _log_values(f"--init_from={config.fine_tuning.init_from}", texts)


def apply_recipe(config: Config) -> Config:
    """Sets the flags of `--recipe` except those that were typed, and logs them.

    Flags of residual blocks are left out for other nets. Flags that belong to the recipe's
    optimizer are left out if another optimizer is typed, and its image sizes if one is typed. What
    a typed `--augment` sets takes precedence over the recipe's flags, and typed flags over what the
    recipe's `--augment` sets.

    Raises:
      UsageError: see `recipes.read`.
    """
    name, typed = config.optimization.recipe, config.typed
    values = recipes.read(name, all_flags())
    if typed & (lengths := select_flags(is_length=True)):
        values = {flag: value for flag, value in values.items() if flag not in lengths}
    model = config.net.model if "model" in typed else values.get("model", config.net.model)
    if not registry.is_residual(model):
        residual_only = select_flags(is_residual_only=True)
        values = {flag: value for flag, value in values.items() if flag not in residual_only}
    old = config.leaves()
    if "optimizer" in typed and old["optimizer"] != values.get("optimizer", old["optimizer"]):
        left_out = values.keys() & select_flags(is_optimizer_specific=True) - typed
        values = {flag: value for flag, value in values.items() if flag not in left_out}
        flags = ", ".join(f"--{flag}" for flag in sorted(left_out))
        logging.info(
            "--recipe=%s: %s left out, because of --optimizer=%s", name, flags, old["optimizer"]
        )
    if "image_size" in typed and values.keys() - typed >= {"image_size_schedule"}:
        logging.info(
            "--recipe=%s: --image_size_schedule=%s left out, because of --image_size=%s",
            name,
            values.pop("image_size_schedule"),
            old["image_size"],
        )
    if "augment" in typed:
        for flag, part in augment_spec.flags_set_by(old["augment"]).items():
            if flag in values.keys() - typed:
                logging.info(
                    "--recipe=%s: --%s=%s left out, because of %s in --augment=%s",
                    *(name, flag, values.pop(flag), part, old["augment"]),
                )
    elif "augment" in values:
        values["augment"] = augment_spec.remove_arguments(values["augment"], typed)
    for flag in (flag for flag in values if flag in typed):
        logging.info("--recipe=%s: the typed --%s=%s is kept", name, flag, old[flag])
    values = {flag: value for flag, value in values.items() if flag not in typed}
    if values:
        _log_values(f"--recipe={name}", values)
    return config.replace(**values)


def _log_values(origin: str, values: Mapping[str, Any]) -> None:
    """Logs which flags something has set."""
    flags = " ".join(f"--{flag}={value}" for flag, value in values.items())
    logging.info("%s sets %s", origin, flags)


def resolve(config: Config) -> Config:
    """Fills in the defaults of the data set and of the optimizer, then checks all values.

    Raises:
      UsageError: flags that conflict, or values out of range.
    """
    validation.check_choices(config)
    spec, values = datasets.get(config.data.dataset), config.leaves()
    length_flags = select_flags(is_length=True)
    lengths = [name for name in values if name in length_flags and values[name] is not None]
    if len(lengths) > 1:
        raise UsageError(f"--{lengths[0]} and --{lengths[1]} are both set: use one of them")
    defaults = {
        "image_size": spec.image_size,
        "batch_size": spec.batch_size,
        "min_crop_area": spec.min_crop_area,
        "warmup_epochs": spec.warmup_epochs,
        "learning_rate": OPTIMIZERS.get(config.optimization.optimizer).facts.learning_rate
        or spec.learning_rate,
    }
    if not lengths:
        defaults["epochs"] = spec.epochs
    defaults = {name: value for name, value in defaults.items() if values[name] is None}
    if registry.has_fixed_input_size(config.net.model):
        defaults["input_size"] = values["image_size"] or defaults["image_size"]
    config = config.replace(**defaults)
    validation.check(config)
    validation.check_training_code(config)
    config = fill_pixel_statistics(config)
    validation.check_values(config)
    return config


def fill_pixel_statistics(config: Config) -> Config:
    """Fills in mean, std and principal components of the pixels, unless the run recorded them.

    The file that `--mode=stats` wrote next to the images takes precedence over the data set's
    defaults.
    """
    data = config.data
    recorded = (data.mean, data.std, data.pca_values, data.pca_vectors)
    if all(recorded):
        return config
    spec, measured = datasets.get(data.dataset), pixel_statistics.load(source.get_data_dir(data))
    if measured:
        origin = pixel_statistics.FILENAME
        vectors = tuple(number for row in measured.pca_eigenvectors for number in row)
        defaults = (measured.mean, measured.std, measured.pca_eigenvalues, vectors)
    else:
        origin = _STATISTICS_SOURCE.get(data.dataset, data.dataset)
        defaults = (spec.mean, spec.std, spec.pca_values, spec.pca_vectors)
    if not (data.mean and data.std):
        shown = [", ".join(f"{number:.2f}" for number in numbers) for numbers in defaults[:2]]
        logging.debug("normalization: mean (%s), std (%s) of %s", *shown, origin)
    names = ("mean", "std", "pca_values", "pca_vectors")
    pairs = zip(names, recorded, defaults, strict=True)
    filled: dict[str, Any] = {name: old or new for name, old, new in pairs}
    return dataclasses.replace(config, data=dataclasses.replace(data, **filled))
