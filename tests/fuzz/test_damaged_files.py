"""Commands that read a damaged file end with a promised exit code and bounded memory."""

import pytest

from tests.fuzz import campaign, damaged_files
from tests.fuzz.box import Example

COMMANDS = sorted({command for commands in damaged_files.READERS.values() for command in commands})


@pytest.mark.parametrize("count", [100, pytest.param(5000, marks=pytest.mark.faults)])
def test_damaged_files_are_reported(box, count):
    assert campaign.run(box, damaged_files.examples(), count) == ""


@pytest.mark.faults
@pytest.mark.parametrize("path", damaged_files.READERS)
def test_every_command_reads_its_file(box, path):
    """Without damage the command works; without the file it fails or writes something else."""
    for command in damaged_files.READERS[path]:
        outcome, fault = box.run(Example(tuple(command.split())))
        assert (outcome.code, fault) == (0, "")
