"""Random command lines end with a promised exit code, and write only where they say."""

import pytest

from loops.config import modes
from tests.fuzz import campaign, command_lines


def test_every_mode_has_a_base():
    assert set(command_lines.BASES) == set(modes.names())


@pytest.mark.parametrize("count", [100, pytest.param(5000, marks=pytest.mark.faults)])
def test_random_command_lines_end_as_promised(box, count):
    report = campaign.run(box, command_lines.examples(), count)
    assert not report, report
