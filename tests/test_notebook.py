"""Executes both notebooks cell by cell, predict.ipynb on a newly trained run."""

import base64
import pathlib

import cv2
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import flags
from loops import train
from loops.config import mode_flags

ROOT = pathlib.Path(__file__).resolve().parents[1]


def read_notebook(name):
    return nbformat.read(ROOT / name, as_version=4)


@pytest.fixture(scope="module")
def run(tiny_folder, tmp_path_factory):
    words = ["--model=resnetv2_18", "--dataset=folder", f"--data_dir={tiny_folder}", "--crops=1"]
    words += ["--image_size=32", "--batch_size=8", "--steps=2", "--run_name=tiny"]
    root = tmp_path_factory.mktemp("notebook")
    train.run(flags.parse(["main.py", *words, f"--checkpoint_dir={root}"]))
    return root / "tiny"


def execute(name, parameters, folder, tmp_path, monkeypatch):
    """Executes a notebook in a folder with other parameters; returns the outputs of its cells."""
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")  # conftest.py sets it, users do not
    notebook = read_notebook(name)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", ())]
    cell.source += parameters
    client = NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}})
    cells = client.execute().cells
    return {cell.id: cell.outputs for cell in cells if cell.cell_type == "code"}


def decode_figure(outputs):
    """Returns the pixels of the figure of a cell that shows nothing else."""
    (output,) = outputs
    png = base64.b64decode(output.data["image/png"])
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def test_predict_notebook_shows_only_the_figures(run, tiny_folder, tmp_path, monkeypatch):
    image = tiny_folder / "val" / "grid" / "00.jpg"
    parameters = f"\nRUN = {str(run)!r}\nIMAGE = {str(image)!r}"
    shown = execute("predict.ipynb", parameters, ROOT, tmp_path, monkeypatch)
    assert shown.pop("choose") == []
    assert len(shown) == 2
    for outputs in shown.values():  # one output each, so no log lines of TensorFlow
        figure = decode_figure(outputs)
        assert figure.shape[1] == 1120 and figure.shape[0] > 1200 and figure.std() > 20


def test_quickstart_trains_shows_and_fine_tunes(tmp_path, monkeypatch):
    parameters = f"\nmain = f'{{sys.executable}} {ROOT / 'main.py'}'"
    parameters += "\nepochs, letter_epochs = 0.1, 1"
    shown = execute("quickstart.ipynb", parameters, tmp_path, tmp_path, monkeypatch)
    for name in ("train", "tune"):
        printed = "".join(output.text for output in shown[name])
        assert "run folder checkpoints/" in printed and "error:" not in printed
        assert "oneDNN" not in printed  # no message of TensorFlow's start
    assert (tmp_path / "checkpoints/letters/metrics.jsonl").is_file()
    assert len(list((tmp_path / "data/letters").rglob("*.png"))) == 100
    for name in ("curves", "mistakes", "look", "filters", "tuned"):
        assert decode_figure(shown[name][-1:]).std() > 10, name
    assert shown["settings"] == shown["draw"] == []


@pytest.mark.parametrize("name", ["predict.ipynb", "quickstart.ipynb"])
def test_notebook_is_committed_without_outputs(name):
    cells = [cell for cell in read_notebook(name).cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    nbformat.validate(read_notebook(name))


def test_predict_notebook_has_no_logic():
    cells = [cell for cell in read_notebook("predict.ipynb").cells if cell.cell_type == "code"]
    lines = [line for cell in cells for line in cell.source.splitlines() if line]
    assert len(lines) == 5  # two names, one import, two calls


def test_quickstart_commands_are_valid():
    words = {"{run}": "checkpoints/quickstart", "{epochs}": "4", "{letter_epochs}": "20"}
    sources = [c.source for c in read_notebook("quickstart.ipynb").cells if c.cell_type == "code"]
    sources = [source.partition("\n\n")[0].replace("\\\n", "") for source in sources]
    commands = [source for source in sources if source.startswith("!{main} ")]
    assert len(commands) == 3
    for command in commands:
        for name, value in words.items():
            command = command.replace(name, value)
        config = flags.parse(["main.py", *command.split()[1:]])
        mode_flags.check_flags(config)
        assert config.mode in ("train", "eval")
