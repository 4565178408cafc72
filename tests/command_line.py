"""What tests of the command line share."""

import pytest

import flags
from input_pipeline.errors import UsageError
from loops.config import validation
from loops.config.config import leaves


def parse(*words):
    return flags.parse(["main.py", *words])


def resolve(*words):
    config, _ = parse(*words)
    return validation.resolve(config)


def leaf(config, name):
    return dict(leaves(config))[name]


def refusal(function, *args):
    """The message of a UsageError: always one line that ends up after `error: `."""
    with pytest.raises(UsageError) as caught:
        function(*args)
    message = str(caught.value)
    assert message.strip() and "\n" not in message
    return message
