"""Training that is killed again and again ends with the very weights of one that was not."""

import random
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from loops.run import checkpoint

_STEPS = 60


def _start(folder, checkpoint_dir, name):
    words = f"--mode=train --model=resnetv2_18 --dataset=folder --data_dir={folder} --image_size=32"
    words += f" --batch_size=8 --crops=1 --steps={_STEPS} --save_every=2 --eval_every=20 --keep=2"
    words += f" --checkpoint_dir={checkpoint_dir} --run_name={name}"
    return subprocess.Popen(
        [sys.executable, "main.py", *words.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _tensors(run_dir):
    newest = checkpoint.newest_intact(run_dir)
    assert checkpoint.step_of(newest) == _STEPS
    reader = tf.train.load_checkpoint(str(newest / "ckpt"))
    names = set(reader.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: reader.get_tensor(name) for name in names}


@pytest.mark.faults
def test_killed_runs_end_bit_for_bit_like_an_undisturbed_one(tiny_folder, tmp_path):
    whole = _start(tiny_folder, tmp_path, "whole")
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output
    delays = random.Random(0)
    kills = 0
    for attempt in range(40):
        child = _start(tiny_folder, tmp_path, "killed")
        try:
            # Past the start, when steps and saves alternate; every third kill is a polite one.
            output, _ = child.communicate(timeout=delays.uniform(9.0, 16.0))
        except subprocess.TimeoutExpired:
            kind = signal.SIGTERM if attempt % 3 == 2 else signal.SIGKILL
            child.send_signal(kind)
            output, _ = child.communicate(timeout=60)
            # A signal that meets the last moments finds a run that ends by itself.
            expected = {signal.SIGTERM: (143, 0, -15), signal.SIGKILL: (-9, 0)}[kind]
            assert child.returncode in expected, output
            kills += 1
            continue
        assert child.returncode == 0, output
        break
    else:
        pytest.fail("the run never came to its end")
    assert kills >= 3
    left = [p.name for p in (tmp_path / "killed").iterdir() if p.name.startswith((".tmp", ".del"))]
    assert left == []
    whole, killed = _tensors(tmp_path / "whole"), _tensors(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(value, killed[name], name)
