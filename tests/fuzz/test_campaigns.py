"""Random commands, and commands that read a damaged file, end as promised and within bounds.

One file, because the folder in which they run takes a quarter of a minute to build.
"""

import dataclasses

import pytest

from loops.config import modes
from tests.fuzz import campaign, command_lines, damaged_files
from tests.fuzz.box import Example

COUNTS = [100, pytest.param(5000, marks=pytest.mark.faults)]


def test_every_mode_has_a_base():
    assert set(command_lines.BASES) == set(modes.names())


@pytest.mark.parametrize("count", COUNTS)
def test_random_command_lines_end_as_promised(box, count):
    report = campaign.run(box, command_lines.examples(), count)
    assert not report, report


@pytest.mark.parametrize("count", COUNTS)
def test_damaged_files_are_reported(box, count):
    report = campaign.run(box, damaged_files.examples(), count)
    assert not report, report


def test_every_fast_command_reads_its_file(box):
    """Its output changes if the file is missing or has other content."""
    for path, commands in damaged_files.FAST.items():
        intact = Example(tuple(commands[0].split()))
        others = [((path, "replace", 0, stand_in),) for stand_in in ("missing", "text")]
        examples = [intact, *(dataclasses.replace(intact, damages=damages) for damages in others)]
        outcomes, faults = zip(*map(box.run, examples), strict=True)
        assert faults[0] == "", intact
        texts = {outcome.out + "".join(outcome.err.splitlines()[-1:])[8:] for outcome in outcomes}
        assert len(texts) > 1, path


@pytest.mark.faults
def test_every_slow_command_works_without_damage(box):
    for path, commands in damaged_files.SLOW.items():
        for command in commands:
            outcome, fault = box.run(Example(tuple(command.split())))
            assert (outcome.code, fault) == (0, ""), (path, command)


def test_file_that_no_argument_names_is_a_fault(box):
    argv = tuple(damaged_files.FAST["words.txt"][0].split())
    damages = (("words.txt", "insert", 0, "--json=result.json\n"),)
    assert box.run(Example(argv, damages))[1] == "wrote work/result.json"
    assert box.run(Example((*argv, "--json=result.json"), damages))[1] == ""
