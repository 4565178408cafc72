"""How the log looks: the time and the message, on stderr and in the run's log.txt."""

import contextlib
import logging as python_logging
import pathlib

from absl import logging

_ROOT = str(pathlib.Path(__file__).parents[2])


class _Formatter(python_logging.Formatter):
    """`18:10:09 message`; warnings and errors say so."""

    def format(self, record):
        level = "" if record.levelno <= python_logging.INFO else f"{record.levelname.lower()}: "
        return f"{self.formatTime(record, '%H:%M:%S')} {level}{record.getMessage()}"


def _should_log(record):
    """TensorFlow logs through absl as well, about matters of its own."""
    within = record.pathname.removeprefix(_ROOT)
    is_own = within != record.pathname and "-packages/" not in within  # .venv lies in there, too
    return is_own or record.levelno >= python_logging.WARNING


def set_up():
    """Sends the log to stderr."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(_Formatter())
    handler.addFilter(_should_log)


@contextlib.contextmanager
def copy_to_file(run_dir):
    """Copies the log to RUN/log.txt while entered; a full disk costs lines of it."""
    handler = python_logging.FileHandler(run_dir / "log.txt")
    handler.handleError = lambda record: None
    handler.setFormatter(_Formatter())
    handler.addFilter(_should_log)
    logger = logging.get_absl_logger()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()
