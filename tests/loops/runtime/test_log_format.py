"""The log contains all records of this project and warnings of all packages."""

import importlib.util
import logging
import os
import pathlib
import shutil

import pytest
from absl import logging as absl_logging

from loops.runtime import log_format


def load_copy(root):
    """Loads a copy of the module log_format from a checkout at another path."""
    path = root / "loops/runtime/log_format.py"
    path.parent.mkdir(parents=True)
    shutil.copy(log_format.__file__, path)
    spec = importlib.util.spec_from_file_location("log_format_copy", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_logged(module, run_dir, path, level):
    """Returns whether a record of the given source file arrives in log.txt."""
    record = logging.LogRecord("absl", level, str(path), 1, "text", (), None)
    with module.copy_to_file(run_dir):
        absl_logging.get_absl_logger().handle(record)
    return "text" in (run_dir / "log.txt").read_text()


@pytest.mark.parametrize(
    ("path", "level", "logged"),
    [
        ("loops/train.py", logging.INFO, True),
        (".venv/lib/python3.11/site-packages/tensorflow/a.py", logging.INFO, False),
        (
            ".venv/lib/python3.11/site-packages/keras/src/backend/tensorflow/a.py",
            logging.INFO,
            False,
        ),
        (".venv/lib/python3.11/site-packages/tensorflow/a.py", logging.WARNING, True),
        ("/usr/lib/python3/dist-packages/tensorflow/a.py", logging.INFO, False),
    ],
)
@pytest.mark.parametrize("root", ["home/my-tensorflow-imagenet", "opt/dist-packages/loops"])
def test_records_of_packages_are_filtered(tmp_path, root, path, level, logged):
    """A checkout in a folder named after TensorFlow once hid the whole log."""
    module = load_copy(tmp_path / root)
    assert is_logged(module, tmp_path, os.path.join(tmp_path / root, path), level) == logged


def test_records_of_this_checkout_are_logged(tmp_path):
    path = pathlib.Path(log_format.__file__)
    assert is_logged(log_format, tmp_path, path, logging.INFO)


def test_names_are_escaped_and_the_text_of_messages_is_not(tmp_path):
    name = "a\x1b[2J\nerror: b\udce9"
    record = logging.LogRecord(
        "absl", logging.INFO, log_format.__file__, 1, "1\n2: %s", (name,), None
    )
    # Only this handler: pytest's own could not report a name that is not UTF-8.
    logger = absl_logging.get_absl_logger()
    with log_format.copy_to_file(tmp_path):
        (tmp_path / "log.txt").write_text("")  # without what other tests have logged
        logger.handlers[-1].handle(record)
    text = (tmp_path / "log.txt").read_text()
    assert text[8:] == " 1\n2: a\\x1b[2J\\nerror: b\\udce9\n"


def test_log_is_not_written_through_a_link(tmp_path):
    (tmp_path / "log.txt").symlink_to(tmp_path / "outside")
    with pytest.raises(PermissionError, match="is a link"), log_format.copy_to_file(tmp_path):
        pass
    assert not (tmp_path / "outside").exists()
