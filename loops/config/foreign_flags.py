"""Answers for flags of other programs: which flag of this one does the same, or what to do."""

import difflib
import os
import re
from collections.abc import Sequence

from loops.config import modes
from loops.config.config import all_flags

_SIMILARITY = 0.7  # of names, from 0 to 1
# Flags of PyTorch, timm, torchvision, Keras and others that no flag of this program replaces.
NO_COUNTERPART = {
    **dict.fromkeys(
        ("gpu", "gpus", "gpu_id", "gpu_ids", "device", "devices", "cuda", "no_cuda", "accelerator"),
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
    **dict.fromkeys(
        ("channels_last", "pin_mem", "pin_memory", "persistent_workers"),
        "there is nothing to set; leave it out",
    ),
    **dict.fromkeys(
        ("log_wandb", "wandb", "tensorboard", "use_tensorboard"),
        "every run folder has metrics.jsonl and the files of TensorBoard; leave it out",
    ),
}


def answer(words: Sequence[str]) -> str:
    """Returns in one line what to type instead of all words that are no flags of this program.

    Args:
      words: those of a command line that were not read, in order; a word after an unknown flag may
        be its value.
    """
    answers: list[str] = []
    value_of, is_end_of_flags = "", False
    for word in words:
        name, equals, _ = word.partition("=")
        is_end_of_flags |= word == "--"
        if re.match(r"--?[^-.\d]", name) and not is_end_of_flags:
            answers.append(f"{name}: unknown flag; {advise(name.lstrip('-'))}")
            value_of = "" if equals else answers[-1]
            continue
        advice = "flags look like --name=value"
        if word in modes.names():
            advice = f"did you mean --mode={word}?"
        elif os.path.isdir(word):
            advice = f"did you mean --data_dir={word}?"
        elif value_of:
            advice = ""
        if word != "--" and advice and "--data_dir" not in value_of:
            answers.append(f"{word!r} is not a flag: {advice}")
        value_of = ""
    return "; ".join(dict.fromkeys(answers))


def advise(name: str) -> str:
    """Returns what to type instead of an unknown flag.

    Args:
      name: of the flag, without dashes in front and without a value.
    """
    name = name.lower().replace("-", "_")
    name = re.sub(r"^([a-z])\d+$", r"\1", name)  # `-b32`
    flags = all_flags()
    ours = {other: flag for flag in flags.values() for other in flag.other_names.split()}
    positive = re.sub("^no_?", "", name)
    negated = name.startswith("no_") and name.removeprefix("no_")
    if name in flags:
        return f"did you mean --{name}?"
    if positive in flags and flags[positive].type is bool:
        return f"did you mean --no{positive}?"
    if name in ours:
        first_sentence = ours[name].help.partition(". ")[0].rstrip(".")
        return f"here it is --{ours[name].name}: {first_sentence}"
    if negated in ours:
        return f"leave --{ours[negated].name} out"
    if name in NO_COUNTERPART:
        return NO_COUNTERPART[name]
    if name in modes.names():
        return f"did you mean --mode={name}?"
    similar = difflib.get_close_matches(name, [*flags, *ours], 3, _SIMILARITY)
    names = dict.fromkeys(f"--{ours[n].name if n in ours else n}" for n in similar)
    return (
        f"did you mean {' or '.join(names)}?"
        if names
        else "python main.py --helpfull lists all flags"
    )
