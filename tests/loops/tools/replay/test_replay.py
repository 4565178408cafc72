"""`--mode=repro`: an equal run is bit-identical, and the cause of a difference is named."""

import json
import os
import shutil

import pytest
import tensorflow as tf

import flags
from input_pipeline.errors import DataError, UsageError
from loops import train, train_setup
from loops.checkpointing import checkpoint, loss_trace
from loops.distribution import strategies
from loops.tools.replay import replay
from loops.train_setup import TrainSetup
from tests.loops import tiny_nets

FLAGS = [
    "--model=resnetv2_18",
    "--image_size=32",
    "--batch_size=8",
    "--crops=1",
    "--dataset=folder",
]
INTERVALS = ["--save_every=2", "--eval_every=100", "--log_every=1"]


def train_run(folder, root, *words):
    argv = ["main.py", *FLAGS, f"--data_dir={folder}", f"--checkpoint_dir={root}", *words]
    return train.run(flags.parse(argv))


def run_replay(run, *words):
    return replay.run(flags.parse(["main.py", "--mode=repro", f"--ckpt={run}", *words]))


def lines(run):
    return (run / loss_trace.FILE_NAME).read_text().splitlines()


def file_stats(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with tiny_nets.two_convolutions():
        yield


@pytest.fixture(scope="module")
def trained(tiny, tiny_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    train_run(tiny_folder, root, "--run_name=r", "--steps=6", *INTERVALS)
    return root / "r"


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "r")
    return tmp_path / "r"


def rewrite(run, index, change):
    """Changes the JSON of one line of the trace."""
    texts = lines(run)
    values = json.loads(texts[index])
    change(values)
    texts[index] = json.dumps(values)
    (run / loss_trace.FILE_NAME).write_text("\n".join(texts) + "\n")


def test_trace_contains_the_loss_of_every_step(trained):
    _, steps, ended = loss_trace.read(trained / loss_trace.FILE_NAME)
    assert (len(steps), ended) == (6, [])
    metrics = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    logged = {m["step"]: m["loss/cross_entropy"] for m in metrics if m["split"] == "train"}
    for step, loss in logged.items():
        if step > 1:
            assert steps[step - 1].loss_sum / 8 == pytest.approx(loss, rel=1e-6)
    assert len(logged) == 6


def test_equal_replay_is_bit_identical(trained, tmp_path):
    before = file_stats(trained)
    results = run_replay(trained, f"--json={tmp_path / 'results.json'}")
    assert file_stats(trained) == before
    assert results["verdict"] == "bitwise"
    assert (results["steps"], results["bitwise_steps"], results["departs_at"]) == (6, 6, None)
    assert (results["weights"], results["largest_difference"]) == ("equal", 0.0)
    assert results["differences"] == []
    assert json.loads((tmp_path / "results.json").read_text()) == results


def test_changed_loss_and_environment_are_reported(copy):
    def raise_loss(values):
        values["sum"] = (float.fromhex(values["sum"]) * 1.1).hex()

    def other_numpy(values):
        values["environment"]["numpy"] = "1.0"

    rewrite(copy, 3, raise_loss)
    rewrite(copy, 0, other_numpy)
    with pytest.raises(
        DataError, match=r"differs at step 3: .*bit-identical before.*numpy was 1\.0"
    ):
        run_replay(copy)


def test_environment_differences_of_an_equal_replay(copy):
    """Another commit, processor or fingerprint need not change the losses."""

    def change_environment(values):
        values["environment"] |= {"git_commit": "abc", "cpu": "Z80"}
        values["record"]["dataset"]["train"]["fingerprint"] = "others"

    rewrite(copy, 0, change_environment)
    results = run_replay(copy)
    assert results["verdict"] == "bitwise"
    differences = results["differences"]
    assert len(differences) == 3
    for start in (
        "git_commit was abc, here ",
        "cpu was Z80, here ",
        "train fingerprint was others, ",
    ):
        assert any(line.startswith(start) for line in differences), differences


@pytest.mark.faults
def test_another_seed_changes_the_initial_weights(copy):
    def change_seed(values):
        values["record"]["config"]["length"]["seed"] = 1

    rewrite(copy, 0, change_seed)
    with pytest.raises(DataError, match=r"differs at step 1: .*initial weights already differ"):
        run_replay(copy / "best")


def test_changed_image_is_named(copy, tiny_folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_folder, data)
    header = loss_trace.read(copy / loss_trace.FILE_NAME)[0]
    rewrite(copy, 0, lambda values: values.update(time=(data / "train").stat().st_ctime + 1))
    config = header.record.config.replace(data_dir=str(data))
    train_input = TrainSetup(config, with_val=False).train_input
    changed = train_input.describe_sample(8 * 2 + 3)  # of the third step, which ends the epoch
    assert changed not in [train_input.describe_sample(sample) for sample in range(16)]
    others = [path for path in (data / "train").rglob("*.jpg") if str(path) != changed]
    while True:  # until the file is newer than the trace
        shutil.copyfile(others[0], changed)
        if os.stat(changed).st_mtime > (data / "train").stat().st_ctime + 1.1:
            break
    with pytest.raises(DataError, match=rf"differs at step 3: .*1 image.*step 3.*{changed}"):
        run_replay(copy, f"--data_dir={data}")


@pytest.mark.faults
def test_trace_of_resumed_runs(tiny_folder, trained, copy):
    """The resumed trace equals the uninterrupted one. Resuming with other flags ends the trace."""
    uninterrupted = lines(copy)
    shutil.rmtree(copy / "step-00000006")
    shutil.rmtree(copy / "step-00000004")
    train_run(tiny_folder, copy.parent, "--run_name=r")
    assert lines(copy) == uninterrupted
    train_run(tiny_folder, copy.parent, "--run_name=r", "--steps=8")
    assert lines(copy)[:-1] == uninterrupted
    assert json.loads(lines(copy)[-1]) == {"ended": ["--steps=8, was 6"]}
    results = run_replay(copy, "--steps=2")
    assert (results["verdict"], results["steps"]) == ("bitwise", 2)
    assert results["trace_ended_by"] == ["--steps=8, was 6"]


@pytest.mark.faults
def test_replay_on_two_replicas_with_init_from(
    tiny_folder, trained, tmp_path, monkeypatch, mirrored
):
    monkeypatch.setattr(strategies, "make_strategy", lambda config: mirrored)
    words = [f"--init_from={trained}", "--run_name=two", "--steps=3", "--accumulate=2"]
    words += ["--mixed_precision", "--half_dtype=float16", "--initial_loss_scale=64"]
    train_run(tiny_folder, tmp_path, *words, *INTERVALS)
    header = loss_trace.read(tmp_path / "two" / loss_trace.FILE_NAME)[0]
    assert header.placement == {"workers": 1, "replicas": 2, "dtype": "float16"}
    results = run_replay(tmp_path / "two")
    assert (results["verdict"], results["steps"]) == ("bitwise", 3)


def get_usage_error(run, *words):
    with pytest.raises(UsageError) as caught:
        run_replay(run, *words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_out_of_memory(copy, monkeypatch):
    """One device replays what several have trained. The advised --recompute is bit-identical."""

    def step(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmuch more")

    assert run_replay(copy, "--recompute")["verdict"] == "bitwise"
    monkeypatch.setattr(train_setup, "make_step", lambda *_: step)
    with pytest.raises(
        UsageError,
        match=r"--mode=repro with 8 images per step: out of memory; .*--recompute.*\(OOM when",
    ):
        run_replay(copy)


def test_runs_that_cannot_be_replayed(copy, tmp_path):
    assert "name one run" in get_usage_error(f"{copy},{copy}")
    assert "no such folder" in get_usage_error(tmp_path / "nowhere")
    assert "--weight_decay=0.5 conflicts" in get_usage_error(copy, "--weight_decay=0.5")
    rewrite(copy, 0, lambda values: values["placement"].update(workers=2))
    assert "2 workers" in get_usage_error(copy)
    (copy / loss_trace.FILE_NAME).write_text("{}\n")
    assert "not the trace of a run" in get_usage_error(copy)
    (copy / loss_trace.FILE_NAME).unlink()
    assert "missing; only a run that was trained" in get_usage_error(copy)
    assert checkpoint.find_newest_intact(copy)


def test_step_skipped_on_one_side(copy, capsys):
    rewrite(copy, 3, lambda line: line.update(applied=False))
    with pytest.raises(DataError, match="differs at step 3"):
        run_replay(copy)
    assert (
        "a step was skipped, or images were replaced, on one side only" in capsys.readouterr().out
    )


def test_missing_data_dir_is_not_filled_with_shapes(copy, tmp_path):
    record = json.loads((copy / "config.json").read_text())
    record["config"]["data"] |= {"dataset": "shapes", "data_dir": ""}
    (copy / "config.json").write_text(json.dumps(record))
    header = json.loads(lines(copy)[0].replace('"folder"', '"shapes"'))
    rewrite(copy, 0, lambda line: line.update(header))
    nowhere = tmp_path / "nowhere"
    with pytest.raises(UsageError, match="nowhere: there is no such folder"):
        run_replay(copy, f"--data_dir={nowhere}")
    assert not nowhere.exists()
