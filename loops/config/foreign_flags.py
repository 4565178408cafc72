"""Answers for flags of other programs: which flag of this one does the same, or what to do."""

import difflib
import os
import re
from collections.abc import Sequence

from loops.config import modes, run_paths
from loops.config.config import all_flags

_MAX_ANSWERS = 20  # a shell may replace a glob by thousands of words
_SIMILARITY = 0.7  # of names, from 0 to 1
# A misspelled name is at least so similar: with as many words, and with more or fewer.
_MISSPELLED, _MISSPELLED_WORDS = 0.8, 0.9
# Flags of PyTorch, timm, torchvision, Keras and others that no flag of this program replaces as is.
ANSWERS = {
    **dict.fromkeys(
        ("gpu", "gpus", "gpu_id", "gpu_ids", "device", "devices", "cuda", "no_cuda", "accelerator")
        + ("no_accel",),
        "all visible GPUs are used; set CUDA_VISIBLE_DEVICES=0 before the command to choose, or -1"
        " for the CPU",
    ),
    **dict.fromkeys(
        ("world_size", "rank", "local_rank", "dist_url", "dist_backend", "nproc_per_node", "nnodes")
        + ("node_rank", "master_addr", "master_port", "multiprocessing_distributed", "distributed")
        + ("ddp", "num_nodes", "num_processes"),
        "all GPUs of a machine are used; TF_CONFIG or Slurm names several machines, see --strategy",
    ),
    **dict.fromkeys(
        ("num_classes", "nb_classes", "n_classes"),
        "the data set decides; see --dataset and --data_dir",
    ),
    **dict.fromkeys(
        ("evaluate", "e", "eval_only", "test", "test_only", "validate", "val", "do_eval"),
        "give --mode=eval --ckpt=checkpoints/RUN",
    ),
    **dict.fromkeys(
        ("start_epoch", "initial_epoch"),
        "a run continues at its newest checkpoint; name the run with --run_name",
    ),
    **dict.fromkeys(
        ("val_split", "validation_split", "val_fraction"),
        "class folders without val are split automatically; --split is what --mode=eval reads",
    ),
    **dict.fromkeys(
        ("steps_per_epoch", "validation_steps"),
        "an epoch is all images; --epochs or --steps is the length of training",
    ),
    **dict.fromkeys(
        ("gamma", "lr_gamma", "decay_rate"), "--schedule=step multiplies by 0.1 at --milestones"
    ),
    "lr_step_size": "a step of 30 epochs is --schedule=step --milestones=30,60",
    **dict.fromkeys(
        ("lr_warmup_decay", "lr_warmup_method", "warmup_lr", "warmup_lr_init"),
        "the learning rate rises linearly from zero over --warmup_epochs, so leave it out",
    ),
    **dict.fromkeys(
        ("norm_weight_decay", "bias_weight_decay", "bias_decay", "no_bias_decay"),
        "norms and biases never decay, only kernels do, see --weight_decay, so leave it out",
    ),
    **dict.fromkeys(
        ("model_ema_steps", "model_ema_decay"),
        "--ema is the decay per step, and each step updates the average; timm's decay is the same,"
        " torchvision's decay D is 1 - (1 - D) * batch size / epochs here",
    ),
    "hflip": "images are flipped with probability 0.5; --augment='standard,flip(0)' turns it off",
    "vflip": "give --augment='standard,vflip(0.5)'",
    **dict.fromkeys(
        ("reprob", "random_erase", "random_erasing"),
        "for a probability of 0.1 give --augment='standard,erasing(0.1)'",
    ),
    "color_jitter": "give --augment='standard,hsv(36,0.6,1.4)': degrees of hue and two factors",
    "ratio": "give --augment='standard,crop(min_aspect=0.75,max_aspect=1.33)'",
    "no_aug": "give --augment=none",
    **dict.fromkeys(
        ("aa", "auto_augment"),
        "give --augment='standard,randaugment(2,9)' or standard,trivialaugment",
    ),
    "train_interpolation": "--interpolation is that of evaluation; training has one filter, so"
    " leave it out",
    "bce_loss": "give --loss=bce",
    "bce_target_thresh": "with --loss=bce it is always 0.2, so leave it out",
    **dict.fromkeys(("opt_betas", "betas"), "give --beta1=0.9 --beta2=0.999"),
    "results_file": "give --json=FILE",
    **dict.fromkeys(
        ("mixup_prob", "mixup_switch_prob", "mixup_mode", "cutmix_minmax"),
        "every batch is mixed; see --mixup and --cutmix",
    ),
    "val_resize_size": "--crop_fraction is the crop divided by it, as 224 / 256 = 0.875",
    "dummy": "--mode=benchmark --benchmark=step measures training on random images",
    **dict.fromkeys(
        ("dataset_download", "download"),
        "nothing is downloaded; name the folder of your copy with --data_dir",
    ),
    **dict.fromkeys(
        ("train_split", "train_dir", "val_dir"),
        "--data_dir names the folder that contains train and val",
    ),
    **dict.fromkeys(
        ("channels_last", "pin_mem", "pin_memory", "persistent_workers", "no_prefetcher", "fuser")
        + ("backend", "use_v2", "model_ema_force_cpu", "gp", "amp_impl"),
        "there is nothing to set, so leave it out",
    ),
    **dict.fromkeys(
        ("transformer_embedding_decay", "layer_decay", "bn_momentum", "bn_eps", "split_bn")
        + ("drop_block", "jsd_loss", "augmix_severity", "crop_mode", "lr_noise")
        + ("cooldown_epochs", "patience_epochs", "sched_on_updates", "lr_cycle_decay")
        + ("remode", "recount", "resplit"),
        "there is nothing like it here, so leave it out",
    ),
    **dict.fromkeys(
        ("log_wandb", "wandb", "tensorboard", "use_tensorboard"),
        "every run folder has metrics.jsonl and the files of TensorBoard, so leave it out",
    ),
}


def answer(words: Sequence[str]) -> str:
    """Returns in one line what to type instead of all words that are no flags of this program.

    Args:
      words: those of a command line that were not read, in order; a word after an unknown flag may
        be its value.
    """
    asked: dict[str, str] = {}  # by what is typed: what to type instead
    value_of, is_end_of_flags = "", False
    for word in words:
        name, equals, _ = word.partition("=")
        is_end_of_flags |= word == "--"
        if re.match(r"--?[^-.\d]", name) and not is_end_of_flags:
            asked[name] = f"unknown flag; {advise(name.lstrip('-'))}"
            value_of = "" if equals else asked[name]
            continue
        advice = "flags look like --name=value"
        if word in modes.names():
            advice = f"did you mean --mode={word}?"
        elif os.path.isdir(word) and not (value_of and run_paths.is_run(word)):
            advice = f"did you mean --data_dir={word}?"
        elif value_of:
            advice = ""
        if word != "--" and advice and "--data_dir" not in value_of:
            asked[repr(word)] = advice
        value_of = value_of if re.fullmatch(r"[\d.]+", word) else ""  # as in `--betas 0.9 0.95`
    flags_by_advice: dict[str, list[str]] = {}
    for typed, advice in list(asked.items())[:_MAX_ANSWERS]:
        key = advice if typed.startswith("-") else f"{typed} is not a flag: {advice}"
        flags_by_advice.setdefault(key, []).append(typed)
    answers = [
        f"{', '.join(typed)}: {key}" if typed[0].startswith("-") else key
        for key, typed in flags_by_advice.items()
    ]
    more = f"; and {len(asked) - _MAX_ANSWERS} more" if len(asked) > _MAX_ANSWERS else ""
    return "; ".join(answers) + more


def advise(name: str) -> str:
    """Returns what to type instead of an unknown flag.

    Args:
      name: of the flag, without dashes in front and without a value.
    """
    name = name.lower().replace("-", "_")
    name = re.sub(r"^([a-z])\d+$", r"\1", name)  # `-b32`
    flags = all_flags()
    ours = {other: flag for flag in flags.values() for other in flag.other_names.split()} | flags
    positive = re.sub("^no_?", "", name)
    if name in ANSWERS:
        return ANSWERS[name]
    if positive in flags and flags[positive].type is bool and positive != name:
        return f"did you mean --no{positive}?"
    if name in ours:
        first_sentence = ours[name].help.partition(". ")[0].rstrip(".")
        return f"here it is --{ours[name].name}: {first_sentence}"
    if positive in ours and not ours[positive].default:
        return f"leave --{ours[positive].name} out"
    if name in modes.names():
        return f"did you mean --mode={name}?"
    everything = "python main.py --helpfull lists all flags"
    similar = difflib.get_close_matches(name, ours, 3, _SIMILARITY)
    names = " or ".join(dict.fromkeys(f"--{ours[n].name}" for n in similar))
    if any(_is_misspelled(name, known) for known in similar):
        return f"did you mean {names}?"
    return f"{names} has only a similar name; {everything}" if names else everything


def _is_misspelled(name: str, known: str) -> bool:
    """Returns whether a name is likely a known one. One with another word means another thing."""
    words = [text.count("_") for text in (name, known)]
    least = _MISSPELLED if words[0] == words[1] else _MISSPELLED_WORDS
    return difflib.SequenceMatcher(None, name, known).ratio() >= least
