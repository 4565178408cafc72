"""Executes predict.ipynb cell by cell on a newly trained run."""

import base64
import pathlib

import cv2
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import flags
from loops import train

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "predict.ipynb"


def read_notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def run(tiny_folder, tmp_path_factory):
    words = ["--model=resnetv2_18", "--dataset=folder", f"--data_dir={tiny_folder}", "--crops=1"]
    words += ["--image_size=32", "--batch_size=8", "--steps=2", "--run_name=tiny"]
    root = tmp_path_factory.mktemp("notebook")
    train.run(flags.parse(["main.py", *words, f"--checkpoint_dir={root}"]))
    return root / "tiny"


def execute(run, image, tmp_path, monkeypatch):
    """Executes the notebook with `run` and `image` as its parameters; returns it with outputs."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")  # conftest.py sets it, users do not
    notebook = read_notebook()
    (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    parameters.source = f"RUN = {str(run)!r}\nIMAGE = {str(image)!r}"
    client = NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(ROOT)}})
    return client.execute()


def test_notebook_shows_only_the_figures(run, tiny_folder, tmp_path, monkeypatch):
    executed = execute(run, tiny_folder / "val" / "grid" / "00.jpg", tmp_path, monkeypatch)
    outputs = [o for cell in executed.cells if cell.cell_type == "code" for o in cell.outputs]
    shown = [o for o in outputs if o.output_type == "execute_result"]
    assert len(shown) == 2
    for output in shown:
        png = base64.b64decode(output.data["image/png"])
        figure = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        assert figure.shape[1] == 1120 and figure.shape[0] > 1200 and figure.std() > 20
    # No log lines of TensorFlow.
    assert [o.text for o in outputs if o.output_type == "stream"] == []


def test_notebook_is_committed_without_outputs_and_without_logic():
    cells = [cell for cell in read_notebook().cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    lines = [line for cell in cells for line in cell.source.splitlines() if line]
    assert len(lines) == 8  # two names, three imports, three calls
    nbformat.validate(read_notebook())
