"""The folder in which the fuzzers run commands, and a check that they leave the checkout alone."""

import os

import pytest

from tests.fuzz.box import Box
from tests.fuzz.fork_server import ROOT

_NOT_WATCHED = ("__pycache__", "data", "checkpoints")  # other tests write there


def _list_checkout():
    paths = set()
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [f for f in folders if not f.startswith(".") and f not in _NOT_WATCHED]
        paths |= {os.path.join(folder, name) for name in [*folders, *names]}
    return paths


@pytest.fixture(scope="session")
def box():
    before = _list_checkout()
    with Box() as built:
        yield built
    assert _list_checkout() == before
