"""Formats the log as time and message, on stderr and in the run's log.txt."""

import contextlib
import logging as python_logging
import pathlib
from collections.abc import Iterator

from absl import logging

_ROOT = str(pathlib.Path(__file__).parents[2])


class _Formatter(python_logging.Formatter):
    """Formats records as `18:10:09 message`, with the level for warnings and errors."""

    def format(self, record: python_logging.LogRecord) -> str:
        level = "" if record.levelno <= python_logging.INFO else f"{record.levelname.lower()}: "
        return f"{self.formatTime(record, '%H:%M:%S')} {level}{record.getMessage()}"


def _should_log(record: python_logging.LogRecord) -> bool:
    """Returns whether a record is from this project or a warning from any package.

    The filter is needed because TensorFlow also logs through absl.
    """
    path = record.pathname.removeprefix(_ROOT)
    # `.venv` is inside the project's folder, so its packages are excluded by their path.
    is_own = path != record.pathname and "-packages/" not in path
    return is_own or record.levelno >= python_logging.WARNING


def set_up() -> None:
    """Sends the log to stderr."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(_Formatter())
    handler.addFilter(_should_log)


@contextlib.contextmanager
def copy_to_file(run_dir: pathlib.Path) -> Iterator[None]:
    """Copies the log to RUN/log.txt inside the context; lines are lost when the disk is full."""
    handler = python_logging.FileHandler(
        run_dir / "log.txt", encoding="utf-8", errors="backslashreplace"
    )
    # Patched for this one handler: logging has no other way to ignore errors.
    handler.handleError = lambda record: None  # type: ignore[method-assign]
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
