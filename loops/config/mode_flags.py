"""Which modes read a flag: one that is typed for another mode is an error, not a wish unheard."""

from input_pipeline.errors import UsageError
from loops.config import flag_fields
from loops.config.config import Config

_MODEL_MODES = ("train", "eval", "predict", "import", "export", "average", "repro")
_DATA_TOOL_MODES = ("prepare", "verify", "stats", "data_service")
_RESULT_MODES = (*_MODEL_MODES, "prepare", "verify", "stats")
_IMAGE_MODES = tuple(mode for mode in _MODEL_MODES if mode != "import")
_DATASET_MODES = tuple(mode for mode in _RESULT_MODES if mode != "predict")
# `benchmark` reads whatever is measured, and so it is not checked.
_CHECKED_MODES = (*_MODEL_MODES, *_DATA_TOOL_MODES)

# Flags of a command, and the modes that read them. Where a mode begins with a run, `config.merge`
# refuses what conflicts with its net, its images or its optimisation.
_MODES_BY_FLAG = {
    **dict.fromkeys(("steps", "init_from"), ("train", "repro")),
    **dict.fromkeys(("epochs", "examples", "freeze"), ("train",)),
    "recompute": ("train", "repro"),
    **dict.fromkeys(
        ("mixed_precision", "half_dtype"), tuple(mode for mode in _MODEL_MODES if mode != "export")
    ),
    **dict.fromkeys(("save_every", "eval_every", "log_every"), ("train",)),
    **dict.fromkeys(("keep", "keep_every", "profile", "log_norms"), ("train",)),
    **dict.fromkeys(("crops", "top_k", "eval_batch_size"), ("train", "eval", "predict")),
    **dict.fromkeys(("test_size", "real_labels", "save_logits", "logits"), ("eval",)),
    **dict.fromkeys(("members", "watch", "watch_patience"), ("eval",)),
    **dict.fromkeys(("image", "seam_carving", "explain", "report", "csv"), ("predict",)),
    **dict.fromkeys(("weights", "source"), ("import",)),
    **dict.fromkeys(("quantize", "calibration_images"), ("export",)),
    **dict.fromkeys(("short_side", "quality", "shard_megabytes"), ("prepare",)),
    **dict.fromkeys(("devkit", "split_csv"), ("prepare", "verify")),
    **dict.fromkeys(("role", "workers"), ("data_service",)),
    "ckpt": ("eval", "predict", "export", "average", "repro"),
    **dict.fromkeys(("run_name", "checkpoint_dir"), ("train", "import", "average")),
    "split": ("eval", "stats"),
    "json": _RESULT_MODES,
    **dict.fromkeys(("dataset", "data_dir", "class_names"), _DATASET_MODES),
    **dict.fromkeys(("train_list", "val_list", "test_list"), _DATASET_MODES),
    "reader_threads": (*_IMAGE_MODES, "prepare", "verify", "stats"),
    "cache": (*(mode for mode in _IMAGE_MODES if mode != "predict"), "stats"),
    "strategy": tuple(mode for mode in _MODEL_MODES if mode not in ("export", "average")),
    "seed": _IMAGE_MODES,
    "format": ("export", "prepare"),
    "out": ("export", "prepare", "verify", "stats"),
    "bn_batches": ("average",),
    "data_service": ("train", "data_service"),
    "benchmark": (),
}
# Branches of the config tree that only the modes with a net read. Imported weights have been
# optimised already.
_MODES_BY_BRANCH = {
    "net": _MODEL_MODES,
    "optimization": tuple(mode for mode in _MODEL_MODES if mode != "import"),
    "precision": _MODEL_MODES,
    "distribution": _MODEL_MODES,
    "data": _MODEL_MODES,
}
_HINTS = {
    ("ckpt", "train"): "to resume a run, name it with --run_name",
    ("ckpt", "import"): "name the file with --weights",
    ("weights", "train"): "import them first, and train their run folder with --init_from",
    ("run_name", "eval"): "name the run folder with --ckpt",
    ("run_name", "predict"): "name the run folder with --ckpt",
    ("run_name", "export"): "name the run folder with --ckpt",
    **{("checkpoint_dir", mode): "--ckpt has the whole path" for mode in _MODEL_MODES},
}


def get_modes(name):
    """The modes, of those that are checked, that read a flag: tuple of str."""
    if name in _MODES_BY_FLAG:
        return _MODES_BY_FLAG[name]
    for branch, modes in _MODES_BY_BRANCH.items():
        names = {field.name for field in flag_fields.iter_fields(type(getattr(Config(), branch)))}
        if name in names:
            return modes
    return _CHECKED_MODES


def check_flags(mode, given):
    """Checks that a mode reads every flag that was typed.

    Args:
      mode: value of `--mode`.
      given: names of the flags that were typed.

    Raises:
      UsageError: it does not read one of them.
    """
    if mode not in _CHECKED_MODES:
        return
    for name in sorted(given):
        if mode in get_modes(name):
            continue
        who = ", ".join(get_modes(name) or ("benchmark",))
        hint = _HINTS.get((name, mode), "leave it out")
        raise UsageError(f"--{name}: --mode={mode} does not read it, it is for {who}; {hint}")
