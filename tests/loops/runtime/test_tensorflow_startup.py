"""The settings that TensorFlow is loaded with."""

import subprocess
import sys

import pytest

from loops.runtime import tensorflow_startup

_SETTING = "TF_ENABLE_ONEDNN_OPTS"


@pytest.mark.parametrize("machine, wanted", [("x86_64", "1"), ("AMD64", "1"), ("aarch64", None)])
def test_kernels_are_asked_for_on_x86(monkeypatch, machine, wanted):
    environ = {}
    monkeypatch.setattr(tensorflow_startup.platform, "machine", lambda: machine)
    monkeypatch.setattr(tensorflow_startup.os, "environ", environ)
    tensorflow_startup.enable_onednn()
    assert environ.get(_SETTING) == wanted


def test_a_setting_of_the_shell_stays(monkeypatch):
    monkeypatch.setattr(tensorflow_startup.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv(_SETTING, "0")
    tensorflow_startup.enable_onednn()
    assert tensorflow_startup.os.environ[_SETTING] == "0"


@pytest.mark.parametrize("word", ["main", "benchmarks.harness"])
def test_nothing_loads_tensorflow_before_the_kernels_are_chosen(word):
    """TensorFlow reads the setting once, when it is loaded."""
    code = f"import sys, {word}; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_mode_runs_with_them(monkeypatch):
    code = (
        f"import os; os.environ.pop('{_SETTING}', None); import main; main.mode_function('stats');"
        f" import sys; print('tensorflow' in sys.modules, os.environ.get('{_SETTING}'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wanted = "1" if tensorflow_startup.platform.machine() in ("x86_64", "AMD64") else None
    assert done.stdout == f"True {wanted}\n"


def test_the_collector_leaves_what_is_imported_alone():
    """Once: what a process has made since may be garbage one day."""
    code = (
        "import gc, main; main.mode_function('stats'); first = gc.get_freeze_count();"
        " made = [[] for _ in range(1000)]; main.mode_function('eval');"
        " print(first, gc.get_freeze_count() - first, gc.isenabled())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, more, enabled = done.stdout.split()
    assert int(first) > 100_000 and int(more) <= 0 and enabled == "True"
