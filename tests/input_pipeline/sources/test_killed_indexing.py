"""kill -9 while indexing: nothing half-written is trusted, and no finished part is lost."""

import json
import pathlib
import signal
import subprocess
import sys

import pytest

from tests.input_pipeline import imagenet_layouts

ROOT = pathlib.Path(__file__).parents[3]
NUM_PARTS = {
    **{"three_tars": 4, "half_unpacked": 4, "webdataset": 3, "parquet": 3},
    **{"tfds": 2, "tensorflow_models": 2},
}


@pytest.mark.faults
@pytest.mark.parametrize("layout", NUM_PARTS)
def test_killed_indexing_continues_where_it_was(tmp_path, layout):
    if layout == "parquet":
        pytest.importorskip("pyarrow", reason="requirements/parquet.txt is not installed")
    folder = imagenet_layouts.make(layout, tmp_path)
    command = [sys.executable, "-m", "tests.input_pipeline.sources.killed_indexing", str(folder)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    undisturbed, *kills = map(json.loads, ended.stdout.splitlines())
    assert undisturbed["num_scanned"] == NUM_PARTS[layout]
    assert {kill["num_finished"] for kill in kills} == {*range(NUM_PARTS[layout] + 1)}
    assert {kill["has_index"] for kill in kills} == {False, True}
    for kill in kills:
        assert kill["status"] == -signal.SIGKILL
        assert kill["content"] == undisturbed["content"], kill
        # What was written down before the kill is not scanned again.
        expected = 0 if kill["has_index"] else NUM_PARTS[layout] - kill["num_finished"]
        assert kill["num_scanned"] == expected, kill
        assert kill["has_index"] or kill["num_finished"] >= kill["num_written"], kill
        if not kill["has_index"]:
            assert kill["left"] == ["ilsvrc2012-train.npz"], kill
