"""Which records are shown: ours, and everybody's warnings."""

import logging
import os

import pytest

from loops.runtime import log_format


@pytest.mark.parametrize(
    ("path", "level", "shown"),
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
@pytest.mark.parametrize("root", ["/home/me/my-tensorflow-imagenet", "/opt/dist-packages/loops"])
def test_whose_records_are_shown(monkeypatch, root, path, level, shown):
    """Wherever the checkout lies: a folder called after TensorFlow hid the whole log."""
    monkeypatch.setattr(log_format, "_ROOT", root)
    record = logging.LogRecord("absl", level, os.path.join(root, path), 1, "text", (), None)
    assert log_format._should_log(record) == shown


def test_the_root_is_that_of_the_modules():
    assert log_format.__file__.startswith(log_format._ROOT + os.sep)
