"""imagenet-loops: `python main.py --help`."""

import errno
import importlib
import os
import signal
import sys

from absl import flags as absl_flags

import flags
from input_pipeline.errors import UsageError, UserError
from loops.config import mode_flags
from loops.runtime import log_format, tensorflow_startup

# The module of each `--mode`; its function is `run`.
_MODULES = {
    "train": "loops.train",
    "eval": "loops.evaluate",
    "predict": "loops.tools.predict.predict",
    "prepare": "loops.tools.data.prepare",
    "verify": "loops.tools.data.verify",
    "stats": "loops.tools.data.stats",
    "import": "loops.tools.weights.import_weights",
    "export": "loops.tools.weights.export",
    "average": "loops.tools.weights.average",
    "benchmark": "loops.tools.benchmark.benchmark",
    "repro": "loops.tools.replay.replay",
    "data_service": "loops.tools.data.data_service",
}
# What the system says of a path that a command names, and no mode turns into words of its own.
_PATH_ERRNOS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)


def mode_function(mode):
    """The function of a `--mode`.

    Imported late, as TensorFlow takes seconds to load, and alone, as the other modes have their
    own libraries.
    """
    with tensorflow_startup.gc_paused_and_frozen():
        tensorflow_startup.load_tensorflow()
        return importlib.import_module(_MODULES[mode]).run


def main(argv):
    """Runs a command line and returns its exit code."""
    if sys.stdout is None:  # closed, as daemons and `>&-` have it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # TensorFlow writes to the number
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    code = 0
    try:
        code = _run(argv)
        sys.stdout.flush()  # else it is the interpreter that finds nobody there
    except BrokenPipeError:  # whoever read stdout has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or 128 + signal.SIGPIPE
    return code


def _run(argv):
    if any(word in ("--help", "-help", "-h", "--helpfull") for word in argv[1:]):
        sys.stdout.write(flags.format_help())
        return 0
    absl_flags.FLAGS(argv[:1])  # absl's own flags keep their defaults; ours are in flags.py
    log_format.set_up()
    try:
        config, given = flags.parse(argv)
        mode_flags.check_flags(config.mode, given)
        mode_function(config.mode)(config, given)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except OSError as error:
        if error.errno not in _PATH_ERRNOS or error.filename is None:
            raise
        sys.stderr.write(f"error: {error.filename}: {error.strerror}\n")
        return UsageError.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
