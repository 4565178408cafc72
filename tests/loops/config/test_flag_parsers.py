"""Tests of flag parsers: intervals and training lengths in steps."""

import pytest

from loops.config import flag_parsers
from loops.config.training import LengthConfig
from tests.command_line import refusal


@pytest.mark.parametrize(
    ("text", "steps_per_epoch", "expected"),
    [
        ("500", 40.0, 500),
        ("1", 40.0, 1),
        ("1epochs", 40.0, 40),
        ("2epochs", 40.0, 80),
        ("0.5epochs", 40.0, 20),
        ("1epochs", 31.25, 31.25),  # 1,000 images in batches of 32
        ("4epochs", 31.25, 125),
        ("0.001epochs", 40.0, 1),
        ("1epochs", 0.46, 1),  # 23 images in batches of 50
    ],
)
def test_parse_interval_flag(text, steps_per_epoch, expected):
    assert flag_parsers.parse_interval(text, steps_per_epoch, "--save_every") == expected


@pytest.mark.parametrize(
    "text",
    ["", "0", "-5", "1.5", "epochs", "0epochs", "2 weeks", "2epoch", "1e3", "epochs2"]
    + ["1e308epochs"],
)
def test_invalid_interval_flag_is_refused(text):
    message = refusal(flag_parsers.parse_interval, text, 40.0, "--eval_every")
    assert message.startswith(f"--eval_every={text}: ")


@pytest.mark.parametrize(
    ("length", "num_examples", "batch_size", "expected"),
    [
        ({"steps": 7}, 2000, 50, 7),
        ({"epochs": 10.0}, 2000, 50, 400),
        ({"epochs": 1.0}, 23, 8, 3),  # 2.9 steps
        ({"epochs": 2.0}, 23, 8, 6),  # 5.75 steps: a batch may span two epochs
        ({"epochs": 90.0}, 1_281_167, 256, 450_411),  # 450,410.3 steps
        ({"epochs": 0.5}, 2000, 50, 20),
        ({"epochs": 0.001}, 2000, 50, 1),
        ({"examples": 100}, 2000, 32, 4),
        ({"examples": 96}, 2000, 32, 3),
        ({"examples": 1}, 2000, 32, 1),
    ],
)
def test_total_steps_from_length_flags(length, num_examples, batch_size, expected):
    config = LengthConfig(**length)
    assert flag_parsers.compute_total_steps(config, num_examples, batch_size) == expected
