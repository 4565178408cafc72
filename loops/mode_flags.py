"""Which modes read a flag: one that is typed for another mode is an error, not a wish unheard."""

from input_pipeline.errors import UsageError
from loops import flag_fields
from loops.config import Config

_OF_A_NET = ("train", "eval", "predict", "import", "export", "average", "repro")
_TOOLS = ("prepare", "verify", "stats", "data_service")
# `benchmark` reads whatever is measured, and so it is not checked.
_CHECKED = (*_OF_A_NET, *_TOOLS)

# Flags of a command, and the modes that read them. What describes a run (its net, its images, its
# optimisation) is checked elsewhere: `config.merge` refuses what conflicts with the run.
_READERS = {
    **dict.fromkeys(("steps", "init_from"), ("train", "repro")),
    **dict.fromkeys(("epochs", "examples", "freeze"), ("train",)),
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
    "run_name": ("train", "import", "average"),
    "split": ("eval", "stats"),
    "json": tuple(mode for mode in _CHECKED if mode != "data_service"),
    "format": ("export", "prepare"),
    "out": ("export", "prepare", "verify", "stats"),
    "bn_batches": ("average",),
    "data_service": ("train", "data_service"),
    "benchmark": (),
}
# Branches of the config tree that only the modes with a net read.
_BRANCHES_OF_A_NET = ("net", "optimization", "precision", "distribution")
_HINTS = {
    ("ckpt", "train"): "to resume a run, name it with --run_name",
    ("ckpt", "import"): "name the file with --weights",
    ("weights", "train"): "import them first, and train their run folder with --init_from",
    ("run_name", "eval"): "name the run folder with --ckpt",
    ("run_name", "predict"): "name the run folder with --ckpt",
    ("run_name", "export"): "name the run folder with --ckpt",
}


def readers(name):
    """The modes, of those that are checked, that read a flag: tuple of str."""
    hidden = {
        f.name for b in _BRANCHES_OF_A_NET for f in flag_fields.of(type(getattr(Config(), b)))
    }
    return _READERS.get(name, _OF_A_NET if name in hidden else _CHECKED)


def require_read(mode, given):
    """Checks that a mode reads every flag that was typed.

    Args:
      mode: value of `--mode`.
      given: names of the flags that were typed.

    Raises:
      UsageError: it does not read one of them.
    """
    if mode not in _CHECKED:
        return
    for name in sorted(given):
        if mode in readers(name):
            continue
        who = ", ".join(readers(name) or ("benchmark",))
        hint = _HINTS.get((name, mode), "leave it out")
        raise UsageError(f"--{name}: --mode={mode} does not read it, it is for {who}; {hint}")
