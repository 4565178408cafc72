"""`--mode=data_service`: a process that loads images for trainers on other machines."""

import os
import sys
import time

from input_pipeline.errors import UsageError
from input_pipeline.service import data_service
from loops.monitoring import console
from loops.runtime.stop_signals import StoppedBySignal, StopSignals

_POLL_SECONDS = 0.2


def run(config):
    """Serves until a signal asks for an end.

    Args:
      config: Config of the command line.

    Never returns: Ctrl-C or SIGTERM ends the process.
    """
    role, dispatcher = config.service.role, config.data.data_service
    if not dispatcher:
        raise UsageError("--data_service is missing: HOST:PORT of the dispatcher")
    with StopSignals() as signals:
        _server = data_service.start_server(role, dispatcher, config.service.workers)
        rows = [("dispatcher", dispatcher), ("workers", config.service.workers)]
        console.print_summary(f"data service, {role}: ready", rows)
        while not signals.received:
            time.sleep(_POLL_SECONDS)
    _exit_now(StoppedBySignal(signals.received, f"the {role} of the data service has ended"))


def _exit_now(stopped):
    """Ends the process with the line and exit code of a mode that was stopped.

    At once: a server's destructor waits for a dispatcher or a worker that is gone, minutes long,
    and there is nothing to be saved.
    """
    sys.stderr.write(f"error: {stopped}\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(stopped.exit_code)
