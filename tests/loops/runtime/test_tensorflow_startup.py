"""Settings that TensorFlow is imported with."""

import os
import subprocess
import sys

import pytest

from loops.runtime import tensorflow_startup

_VARIABLE = "TF_ENABLE_ONEDNN_OPTS"


@pytest.mark.parametrize("machine, expected", [("x86_64", "1"), ("AMD64", "1"), ("aarch64", None)])
def test_onednn_is_enabled_on_x86(monkeypatch, machine, expected):
    environ = {}
    monkeypatch.setattr(tensorflow_startup.platform, "machine", lambda: machine)
    monkeypatch.setattr(tensorflow_startup.os, "environ", environ)
    tensorflow_startup.set_environment()
    assert environ.get(_VARIABLE) == expected


def test_variable_of_the_shell_is_kept(monkeypatch):
    monkeypatch.setattr(tensorflow_startup.platform, "machine", lambda: "x86_64")
    monkeypatch.setenv(_VARIABLE, "0")
    tensorflow_startup.set_environment()
    assert tensorflow_startup.os.environ[_VARIABLE] == "0"


@pytest.mark.parametrize("content", [None, '{"floatx": "float16", "backend": "jax"}', "[1]", "{"])
def test_keras_ignores_settings_of_other_projects(tmp_path, content):
    """Those are KERAS_BACKEND and ~/.keras/keras.json, which Keras also writes if it is missing."""
    environment = {**os.environ, "HOME": str(tmp_path), "KERAS_BACKEND": "torch"}
    environment.pop("KERAS_HOME", None)
    if content is not None:
        (tmp_path / ".keras").mkdir()
        (tmp_path / ".keras/keras.json").write_text(content)
    code = (
        "from loops.runtime import tensorflow_startup; tensorflow_startup.load_tensorflow()\n"
        "import keras; config = keras.config\n"
        "print(config.backend(), config.floatx(), config.image_data_format(), config.epsilon())\n"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert process.stdout == "tensorflow float32 channels_last 1e-07\n"
    assert len([*tmp_path.rglob("*")]) == (0 if content is None else 2)


@pytest.mark.parametrize("module", ["main", "benchmarks.harness"])
def test_tensorflow_is_not_imported_before_variable_is_set(module):
    """TensorFlow reads the variable only once, during the import."""
    code = f"import sys, {module}; print('tensorflow' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout == "False\n"


def test_mode_runs_with_onednn():
    code = (
        f"import os; os.environ.pop('{_VARIABLE}', None); import main; main.mode_function('stats');"
        f" import sys; print('tensorflow' in sys.modules, os.environ.get('{_VARIABLE}'))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    expected = "1" if tensorflow_startup.platform.machine() in ("x86_64", "AMD64") else None
    assert process.stdout == f"True {expected}\n"


def test_unused_packages_are_not_imported_with_tensorflow():
    code = (
        "import sys, main; main.mode_function('stats'); print('sklearn' in sys.modules);"
        " import sklearn.metrics; print(sklearn.metrics.accuracy_score([0], [0]))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout == "False\n1.0\n"


def test_imported_objects_are_frozen_once():
    """Objects created after the first import may become garbage and must not be frozen."""
    code = (
        "import gc, main; main.mode_function('stats'); first = gc.get_freeze_count();"
        " objects = [[] for _ in range(1000)]; main.mode_function('eval');"
        " print(first, gc.get_freeze_count() - first, gc.isenabled())"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    first, more, enabled = process.stdout.split()
    assert int(first) > 100_000 and int(more) <= 0 and enabled == "True"
