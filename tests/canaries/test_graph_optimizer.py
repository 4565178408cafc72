"""A fault of TensorFlow's graph optimizer, which tests otherwise run without."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.faults
def test_rewritten_sums_fail_in_nested_loops(tmp_path):
    """`train_setup.make_step` turns the rewrite off for steps of user code with micro-batches."""
    code = (
        "import runpy, sys, tensorflow as tf\n"
        "tf.config.optimizer.set_experimental_options = lambda options: None\n"
        "runpy.run_path('main.py', run_name='__main__')\n"
    )
    words = ["--mode=train", "--dataset=shapes", "--model=resnet_18", "--image_size=32"]
    words += ["--batch_size=16", "--steps=6", "--crops=1", "--dropout=0.5", "--accumulate=2"]
    words += ["--step=docs/examples/consistency.py:Consistency", f"--checkpoint_dir={tmp_path}"]
    command = [sys.executable, "-c", code, *words]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode and "AddOpsRewrite" in result.stderr, result.stderr
