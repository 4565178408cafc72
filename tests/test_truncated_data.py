"""A truncated tar, TFRecord or Parquet file ends each mode with exit code 3 and names the file."""

import contextlib
import io
import re
import shutil

import pytest

import main
from tests.input_pipeline import imagenet_layouts
from tests.loops.tiny_nets import two_convolutions

# The layout, the file that is cut, and the part of it that is kept.
CASES = [
    ("three_tars", "ILSVRC2012_img_train.tar", 0.8),
    ("three_tars", "ILSVRC2012_img_val.tar", 0.5),
    ("half_unpacked", "train/n01443537.tar", 0.5),
    ("webdataset", "imagenet1k-train-0001.tar", 0.5),
    ("webdataset", "imagenet1k-validation-0001.tar", 0.9),
    ("tfds", "5.1.0/imagenet2012-train.tfrecord-00001-of-00002", 0.7),
    ("tfds", "5.1.0/imagenet2012-validation.tfrecord-00000-of-00001", 0.99),
    ("tensorflow_models", "train-00000-of-00002", 0.7),
    ("tensorflow_models", "train-00001-of-00002", 0.0),
    ("tensorflow_models", "validation-00000-of-00001", 0.0),
    ("parquet", "data/train-00001-of-00003.parquet", 0.7),
    ("parquet", "data/validation-00000-of-00001.parquet", 0.99),
    ("prepared", "train-00000-of-00001.tfrecord", 0.99),
    ("prepared", "val-00000-of-00001.tfrecord", 0.0),
]


def _run(*words):
    """Returns the exit code of a command and the last line that it wrote."""
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        code = main.main(["main.py", *map(str, words)])
    return code, stderr.getvalue().splitlines()[-1]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A folder with every layout, and with a prepared data set."""
    pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    root = tmp_path_factory.mktemp("originals")
    for layout in {layout for layout, *_ in CASES} - {"prepared"}:
        imagenet_layouts.make(layout, root)
    words = [f"--data_dir={root / 'tfds'}", f"--out={root / 'prepared'}"]
    assert _run("--mode=prepare", *words)[0] == 0
    return root


@pytest.fixture(scope="module")
def run(originals):
    """The folder of a run of one step."""
    words = ["--run_name=run", f"--checkpoint_dir={originals}", "--steps=1", "--batch_size=8"]
    words += [f"--data_dir={originals / 'tfds'}", "--image_size=32", "--crops=1"]
    with two_convolutions():
        assert _run("--mode=train", "--model=resnetv2_18", *words)[0] == 0
    return originals / "run"


@pytest.mark.parametrize("is_indexed", [False, pytest.param(True, marks=pytest.mark.faults)])
@pytest.mark.parametrize(("layout", "name", "keep"), CASES)
def test_truncated_file_is_named(originals, run, tmp_path, layout, name, keep, is_indexed):
    folder = tmp_path / layout
    shutil.copytree(originals / layout, folder, ignore=shutil.ignore_patterns(".index"))
    commands = {
        "prepare": [f"--out={tmp_path / 'out'}"],
        "verify": [],
        "train": ["--model=resnetv2_18", f"--checkpoint_dir={tmp_path}", "--image_size=32"],
        "eval": [f"--ckpt={run}"],
    }
    if layout == "prepared":
        del commands["prepare"]
    elif is_indexed:
        assert _run("--mode=verify", f"--data_dir={folder}")[0] == 0
        assert [*folder.rglob("*.npz")]
    if "train" in name:  # evaluation reads only val
        del commands["eval"]
    path = folder / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    for mode, words in commands.items():
        code, line = _run(f"--mode={mode}", f"--data_dir={folder}", *words)
        assert code == 3, (mode, line)
        assert re.match(rf"error: .*\b{re.escape(path.name)}\b", line), (mode, line)
    assert not (tmp_path / "out/manifest.json").exists()
    assert not [*tmp_path.rglob("step-*")]
