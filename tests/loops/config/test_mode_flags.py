"""Tests that a flag is refused in a mode that does not use it."""

import pytest

from input_pipeline.errors import UsageError
from loops.config import mode_flags, modes
from loops.config.config import all_flags
from tests.command_line import parse


def parse_with_flag(mode, name):
    """Parses a command line with a mode and one flag, which has any valid value."""
    flag = all_flags()[name]
    value = flag.choices[0] if flag.choices else {bool: True, str: "x"}.get(flag.type, 1)
    return parse(f"--mode={mode}", f"--{name}={value}")


@pytest.mark.parametrize(
    ("mode", "name", "others"),
    [
        ("eval", "image", "predict"),
        ("eval", "seam_carving", "predict"),
        ("eval", "explain", "predict"),
        ("eval", "report", "predict"),
        ("eval", "csv", "predict"),
        ("eval", "out", "export, prepare, verify, stats"),
        ("eval", "epochs", "train"),
        ("predict", "logits", "eval"),
        ("predict", "save_logits", "eval"),
        ("predict", "split", "eval, stats"),
        ("predict", "watch", "eval"),
        ("predict", "data_dir", "train, eval"),
        ("predict", "cache", "train, eval"),
        ("average", "strategy", "train, eval"),
        ("export", "crops", "train, eval, predict"),
        ("export", "mixed_precision", "train, eval, predict"),
        ("export", "half_dtype", "train, eval, predict"),
        ("eval", "recompute", "train, repro"),
        ("eval", "data_service", "train, data_service"),
        ("export", "recompute", "train, repro"),
        ("average", "quantize", "export"),
        ("import", "ckpt", "eval, predict, export, average"),
        ("train", "ckpt", "--run_name"),
        ("train", "weights", "--init_from"),
        ("verify", "model", "train, eval"),
        ("prepare", "learning_rate", "train"),
        ("data_service", "json", "train, eval"),
        ("repro", "image", "predict"),
        ("repro", "epochs", "train"),
        ("eval", "checkpoint_dir", "train, import, average; --ckpt has the whole path"),
        ("import", "ema", "train, eval"),
        ("stats", "mixup", "train, eval"),
        ("verify", "batch_size", "train, eval"),
        ("prepare", "image_size", "train, eval"),
        ("data_service", "data_dir", "train, eval"),
        ("data_service", "reader_threads", "train, eval"),
        ("verify", "cache", "train, eval"),
        ("verify", "seed", "train, eval"),
        ("import", "seed", "train, eval"),
    ],
)
def test_unused_flag_error_names_modes_that_use_it(mode, name, others):
    with pytest.raises(UsageError) as caught:
        mode_flags.check_flags(parse_with_flag(mode, name))
    assert str(caught.value).startswith(f"--{name}: --mode={mode} does not use it")
    assert others in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("train", "model mixed_precision steps run_name init_from crops json save_every cache"),
        ("eval", "ckpt crops split top_k save_logits json test_size image_size strategy cache"),
        ("eval", "logits members json real_labels"),
        ("predict", "ckpt image crops seam_carving explain report top_k csv json"),
        ("prepare", "dataset data_dir out format short_side devkit split_csv json"),
        ("verify", "dataset data_dir out json devkit split_csv reader_threads"),
        ("stats", "dataset data_dir split out json cache"),
        ("import", "weights source model run_name checkpoint_dir crop_fraction"),
        ("export", "ckpt format out quantize calibration_images data_dir json"),
        ("average", "ckpt run_name bn_batches"),
        ("repro", "ckpt steps json strategy data_dir init_from"),
        ("data_service", "role workers data_service"),
    ],
)
def test_flags_of_a_mode_are_accepted(mode, names):
    for name in names.split():
        mode_flags.check_flags(parse_with_flag(mode, name))


def test_every_flag_is_used_by_a_mode():
    for name, flag in all_flags().items():
        assert flag.modes or flag.benchmarks, name
        assert {*flag.modes, *flag.hints} <= {*modes.names()}, name
