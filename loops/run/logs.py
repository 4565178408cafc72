"""How the log looks: the time and the message, on stderr and in the run's log.txt."""

import contextlib
import logging as python_logging
import os

from absl import logging


class _Formatter(python_logging.Formatter):
    """`18:10:09 message`; warnings and errors say so."""

    def format(self, record):
        level = "" if record.levelno <= python_logging.INFO else f"{record.levelname.lower()}: "
        return f"{self.formatTime(record, '%H:%M:%S')} {level}{record.getMessage()}"


def _is_ours(record):
    """TensorFlow logs through absl as well, about matters of its own."""
    return "tensorflow" not in record.pathname or record.levelno >= python_logging.WARNING


def set_up():
    """Sends the log to stderr."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(_Formatter())
    handler.addFilter(_is_ours)


@contextlib.contextmanager
def to_file(run_dir):
    """Copies the log to RUN/log.txt while entered; a full disk costs lines of it."""
    handler = python_logging.FileHandler(run_dir / "log.txt")
    handler.handleError = lambda record: None
    handler.setFormatter(_Formatter())
    handler.addFilter(_is_ours)
    logger = logging.get_absl_logger()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            handler.close()


def load_tensorflow_quietly():
    """Imports TensorFlow without the notices that its C++ side prints as it loads.

    They come before any logging level is heard, so the file descriptor itself is turned away;
    errors are exceptions and still arrive. Setting TF_CPP_MIN_LOG_LEVEL shows all.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow  # noqa: F401
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
