"""imagenet-loops on the command line: `python main.py --help`."""

import importlib
import pathlib
import sys
from collections.abc import Callable

if sys.flags.safe_path:  # PYTHONSAFEPATH leaves out the folder of the script
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import flags
from input_pipeline import user_code
from loops.config import mode_flags, modes
from loops.config.config import Config
from loops.runtime import process, tensorflow_startup


def mode_function(mode: str) -> Callable[[Config], object]:
    """Imports TensorFlow and a mode's module; returns its `run`. Late, so that `--help` is fast."""
    with tensorflow_startup.gc_paused_and_frozen():
        tensorflow_startup.load_tensorflow()
        return importlib.import_module(modes.MODULES[mode]).run


def run(argv: list[str]) -> None:
    """Runs a command line."""
    if {"--help", "-help", "-h", "--helpfull"} & {*argv[1:]}:
        sys.stdout.write(flags.format_help())
        return
    config = flags.parse(argv)
    mode_flags.check_flags(config)
    if config.run.trust_code:
        user_code.trust_all()
    mode_function(config.mode)(config)


def main(argv: list[str]) -> int:
    """Runs a command line and returns its exit code."""
    return process.run(lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
