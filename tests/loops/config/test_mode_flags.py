"""A flag that is typed for a mode that does not read it."""

import dataclasses

import pytest

from input_pipeline.errors import UsageError
from loops.config import flag_fields, mode_flags
from loops.config.config import Config


def flags_of(*branches):
    config = Config()
    return {f.name for b in branches for f in flag_fields.iter_fields(type(getattr(config, b)))}


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
def test_is_refused_with_the_modes_that_read_it(mode, name, others):
    with pytest.raises(UsageError) as caught:
        mode_flags.check_flags(mode, frozenset({"mode", name}))
    assert str(caught.value).startswith(f"--{name}: --mode={mode} does not read it")
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
def test_what_a_mode_reads_is_taken(mode, names):
    mode_flags.check_flags(mode, frozenset({"mode", *names.split()}))


def test_every_flag_of_a_command_has_its_readers():
    of_commands = flags_of("evaluation", "prediction", "importing", "fine_tuning", "export")
    of_commands |= flags_of("run", "service", "prepare") | {"epochs", "steps", "examples"}
    assert of_commands <= set(mode_flags._MODES_BY_FLAG)


def test_readers_are_modes_and_names_are_flags():
    config = Config()
    branches = [f.name for f in dataclasses.fields(config)]
    known = flags_of(*(b for b in branches if dataclasses.is_dataclass(getattr(config, b))))
    (mode,) = (field for field in flag_fields.iter_fields(Config) if field.name == "mode")
    assert set(mode_flags._MODES_BY_FLAG) <= known
    assert {m for modes in mode_flags._MODES_BY_FLAG.values() for m in modes} <= set(mode.choices)
