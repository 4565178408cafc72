"""imagenet-loops on the command line: `python main.py --help`."""

import importlib
import pathlib
import sys
from collections.abc import Callable

if sys.flags.safe_path:  # PYTHONSAFEPATH leaves out the folder of the script
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import flags
from input_pipeline import user_code
from input_pipeline.errors import UsageError
from loops.config import hub_names, local_paths, mode_flags, modes
from loops.config.config import Config
from loops.runtime import log_format, process, tensorflow_startup


def mode_function(mode: str) -> Callable[[Config], object]:
    """Imports TensorFlow and a mode's module; returns its `run`. Late, so that `--help` is fast."""
    with tensorflow_startup.gc_paused_and_frozen():
        tensorflow_startup.load_tensorflow()
        return importlib.import_module(modes.MODES[mode].module).run


def run(argv: list[str]) -> None:
    """Runs a command line."""
    if text := flags.find_help(argv):
        sys.stdout.write(text)
        return
    if not argv[1:]:
        sys.stdout.write(flags.format_overview())
        raise UsageError("--mode is missing: name a mode, as in --mode=train")
    config = flags.parse(argv)
    mode_flags.check_flags(config)
    mode_flags.check_inputs(config)
    if config.run.verbose:
        log_format.set_up(verbose=True)
    if config.run.trust_code:
        user_code.trust_all()
    run_mode = mode_function(config.mode)
    run_mode(replace_hub_names(config))


def replace_hub_names(config: Config) -> Config:
    """Returns the config with run folders where `--ckpt` or `--init_from` name weights on the hub.

    The weights are imported if there is no such run folder yet.
    """
    named = [*local_paths.split(config.evaluation.ckpt), config.fine_tuning.init_from]
    if not hub_names.is_any(named):
        return config
    from loops.tools.weights import first_use

    return first_use.replace_names(config)


def main(argv: list[str]) -> int:
    """Runs a command line and returns its exit code."""
    return process.run(lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
