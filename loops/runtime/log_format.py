"""The log: short on the screen, with all details and times in the run's log.txt.

Records of level INFO and above are for the screen, that is, stderr. `logging.debug` is for details.
"""

import collections
import contextlib
import functools
import io
import logging as python_logging
import os
import pathlib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator

from absl import logging

from input_pipeline.system import atomic_files
from input_pipeline.text import escape_unprintable

_ROOT = str(pathlib.Path(__file__).parents[2])
_MAX_EARLY_RECORDS = 1000
_COMMAND = re.compile("python main.py |tensorboard --logdir ")


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


class _TerminalFormatter(_Formatter):
    """Formats records without the time, in lines that fit the terminal.

    A line with a command is not wrapped, so that it can be copied.
    """

    def format(self, record: python_logging.LogRecord) -> str:
        width = shutil.get_terminal_size().columns
        text = super().format(record).partition(" ")[2]
        wrap = functools.partial(
            textwrap.fill,
            width=width,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines = text.split("\n")
        return "\n".join(line if _COMMAND.search(line) else wrap(line) for line in lines)


class _Screen(python_logging.StreamHandler):
    """Writes to the present stderr, above the progress bars."""

    def emit(self, record: python_logging.LogRecord) -> None:
        self.stream = sys.stderr
        has_details = self.level < python_logging.INFO
        is_short = self.stream.isatty() and not has_details
        self.setFormatter(_TerminalFormatter() if is_short else _Formatter())
        tqdm = sys.modules.get("tqdm")  # its import takes a while
        with tqdm.tqdm.external_write_mode(self.stream) if tqdm else contextlib.nullcontext():
            super().emit(record)


class _EarlyRecords(python_logging.Handler):
    """Keeps the records from before a run has its log.txt."""

    def __init__(self) -> None:
        super().__init__()
        self.records: collections.deque[python_logging.LogRecord] = collections.deque(
            maxlen=_MAX_EARLY_RECORDS
        )

    def emit(self, record: python_logging.LogRecord) -> None:
        self.records.append(record)


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


_SCREEN, _EARLY = _Screen(), _EarlyRecords()


def set_up(verbose: bool = False) -> None:
    """Sends the log to stderr, and its details, too, if `verbose`."""
    logging.set_verbosity(logging.DEBUG)
    _EARLY.records.clear()
    _SCREEN.setLevel(python_logging.DEBUG if verbose else python_logging.INFO)
    for handler in (_SCREEN, _EARLY):
        handler.addFilter(_should_log)
        python_logging.getLogger().addHandler(handler)


@contextlib.contextmanager
def copy_to_file(run_dir: pathlib.Path) -> Iterator[None]:
    """Copies the log to RUN/log.txt inside the context, with what was logged before.

    Lines are lost when the disk is full.
    """
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
    python_logging.getLogger().removeHandler(_EARLY)
    while _EARLY.records:
        handler.handle(_EARLY.records.popleft())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            file.close()
