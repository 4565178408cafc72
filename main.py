"""imagenet-loops: `python main.py --help`."""

import signal
import sys

from absl import flags as absl_flags

import flags
from input_pipeline.errors import UserError
from loops import mode_flags
from loops.run import logs


def modes():
    """The function of each `--mode`. Imported late: TensorFlow takes seconds to load."""
    logs.load_tensorflow_quietly()
    from loops import (
        average,
        benchmark,
        data_service,
        evaluate,
        export,
        import_weights,
        predict,
        prepare,
        reproduce,
        stats,
        train,
        verify,
    )

    return {
        "train": train.run,
        "eval": evaluate.run,
        "predict": predict.run,
        "import": import_weights.run,
        "export": export.run,
        "average": average.run,
        "prepare": prepare.run,
        "verify": verify.run,
        "stats": stats.run,
        "benchmark": benchmark.run,
        "data_service": data_service.run,
        "repro": reproduce.run,
    }


def main(argv):
    """Runs a command line and returns its exit code."""
    if any(word in ("--help", "-help", "-h", "--helpfull") for word in argv[1:]):
        sys.stdout.write(flags.usage())
        return 0
    absl_flags.FLAGS(argv[:1])  # absl's own flags keep their defaults; ours are in flags.py
    logs.set_up()
    try:
        config, given = flags.parse(argv)
        mode_flags.require_read(config.mode, given)
        modes()[config.mode](config, given)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
