"""`--mode=data_service`: a process that loads images for trainers on other machines."""

import time

from input_pipeline import data_service
from input_pipeline.errors import UsageError
from loops.run import report
from loops.run.signals import Stopped, StopSignals

_SECONDS = 0.2


def run(config, given):
    """Serves until a signal asks for an end.

    Args:
      config: Config of the command line.
      given: names of the flags that were typed.

    Raises:
      Stopped: by Ctrl-C or SIGTERM; there is no other end.
    """
    del given
    role, dispatcher = config.service.role, config.data.data_service
    if not dispatcher:
        raise UsageError("--data_service is missing: HOST:PORT of the dispatcher")
    with StopSignals() as signals:
        server = data_service.start(role, dispatcher, config.service.workers)
        rows = [("dispatcher", dispatcher), ("workers", config.service.workers)]
        report.summary(f"data service, {role}: ready", rows)
        while not signals.received:
            time.sleep(_SECONDS)
        del server
    raise Stopped(signals.received, f"the {role} of the data service has ended")
