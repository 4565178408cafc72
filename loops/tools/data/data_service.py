"""`--mode=data_service`: a process that loads images for training on other machines."""

import time
from typing import NoReturn

from input_pipeline.errors import UsageError
from input_pipeline.service import data_service
from loops.config.config import Config
from loops.monitoring import console
from loops.runtime.stop_signals import StoppedBySignal, StopSignals, exit_now

_POLL_SECONDS = 0.2


def run(config: Config) -> NoReturn:
    """Runs the dispatcher or a worker until Ctrl-C or SIGTERM, then ends the process.

    Args:
      config: config of the command line.

    Raises:
      UsageError: an address is missing, not valid or in use.
    """
    role, dispatcher = config.service.role, config.data.data_service
    if not dispatcher:
        raise UsageError("--data_service is missing: give HOST:PORT of the dispatcher")
    with StopSignals() as signals:
        _server = data_service.start_server(
            role, dispatcher, config.service.workers, lambda: signals.received is not None
        )
        named = dispatcher if role == "dispatcher" else config.service.workers
        port = data_service.parse_address(named.strip())[1]
        rows = [
            ("dispatcher", dispatcher),
            ("workers", config.service.workers),
            ("listens on", f"all addresses of this machine, port {port}"),
            ("callers", "unchecked, may read and write files: private networks only"),
        ]
        if not signals.received:
            console.print_summary(f"data service, {role}: ready", rows)
        while not signals.received:
            time.sleep(_POLL_SECONDS)
    # The server's destructor would wait for minutes if a dispatcher or worker is gone.
    exit_now(StoppedBySignal(signals.received, f"the {role} of the data service has ended"))
