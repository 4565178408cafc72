"""Formats the log as time and message, on stderr and in the run's log.txt."""

import contextlib
import io
import logging as python_logging
import os
import pathlib
from collections.abc import Iterator

from absl import logging

from input_pipeline.system import atomic_files
from input_pipeline.text import escape_unprintable

_ROOT = str(pathlib.Path(__file__).parents[2])


class _Formatter(python_logging.Formatter):
    """Formats records as `18:10:09 message`, with the level for warnings and errors.

    What a terminal would obey is escaped, because names of files and classes may contain anything.
    Only the text of the message itself may have several lines.
    """

    def format(self, record: python_logging.LogRecord) -> str:
        level = "" if record.levelno <= python_logging.INFO else f"{record.levelname.lower()}: "
        message = str(record.msg)
        if isinstance(record.args, tuple) and record.args:
            message %= tuple(map(_escape_argument, record.args))
        lines = "\n".join(map(escape_unprintable, message.split("\n")))
        return f"{self.formatTime(record, '%H:%M:%S')} {level}{lines}"


def _escape_argument(argument: object) -> object:
    is_text = isinstance(argument, (str, os.PathLike, BaseException))
    return escape_unprintable(str(argument)) if is_text else argument


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
    file = io.TextIOWrapper(
        atomic_files.open_to_append(run_dir / "log.txt"),
        encoding="utf-8",
        errors="backslashreplace",
    )
    handler = python_logging.StreamHandler(file)
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
            file.close()
