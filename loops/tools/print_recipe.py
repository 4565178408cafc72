"""`--mode=recipe`: prints the flags of a run as a file for `--recipe`."""

from loops.checkpointing import run_folder
from loops.config import recipes
from loops.config.config import Config, all_flags
from loops.monitoring import console


def run(config: Config) -> None:
    """Prints how the run behind `--ckpt` was trained, one flag on each line.

    Args:
      config: config of the command line.

    Raises:
      UsageError: `--ckpt` is not a run folder.
    """
    ckpt = config.evaluation.ckpt
    saved = run_folder.read_record(run_folder.find_run_dir(ckpt)).config
    head = f"# How {ckpt} was trained: {saved.net.model} on {saved.data.dataset}."
    defaults = (
        "# Flags with their default values are left out, as are data, paths, seed and devices."
    )
    console.print_lines([head, defaults, *recipes.format_lines(saved.leaves(), all_flags())])
