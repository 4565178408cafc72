"""Helpers for tests of the command line."""

from collections.abc import Callable
from typing import Any

import pytest

import flags
from input_pipeline.errors import UserError
from loops.config import resolve as resolve_module
from loops.config.config import Config


def parse(*words: str) -> Config:
    """Parses flags, without checking that the mode uses them."""
    return flags.parse(["main.py", *words])


def resolve(*words: str) -> Config:
    """Parses and resolves flags."""
    return resolve_module.resolve(parse(*words))


def leaf(config: Config, name: str) -> Any:
    """Returns one value of a config tree."""
    return config.leaves()[name]


def refusal(function: Callable, *args: Any, **kwargs: Any) -> str:
    """Returns the message of the UserError that a call raises; it is always one line."""
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert message.strip() and "\n" not in message
    return message
