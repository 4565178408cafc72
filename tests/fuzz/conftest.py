"""The folder that the fuzzers' commands run in."""

import pytest

from tests.fuzz.box import Box


@pytest.fixture(scope="session")
def box():
    with Box() as built:
        yield built
