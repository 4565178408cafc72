"""`--mode=repro`: equal runs are found equal, and what was changed is found and named."""

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
EVERY = ["--save_every=2", "--eval_every=100", "--log_every=1"]


def train_run(folder, root, *words):
    argv = ["main.py", *FLAGS, f"--data_dir={folder}", f"--checkpoint_dir={root}", *words]
    return train.run(flags.parse(argv))


def run_replay(run, *words):
    return replay.run(flags.parse(["main.py", "--mode=repro", f"--ckpt={run}", *words]))


def lines(run):
    return (run / loss_trace.FILE_NAME).read_text().splitlines()


def contents(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


@pytest.fixture(scope="module", autouse=True)
def tiny():
    with tiny_nets.two_convolutions():
        yield


@pytest.fixture(scope="module")
def trained(tiny, tiny_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    train_run(tiny_folder, root, "--run_name=r", "--steps=6", *EVERY)
    return root / "r"


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "r")
    return tmp_path / "r"


def rewrite(run, at, change):
    """Changes the JSON of a line of the trace."""
    texts = lines(run)
    values = json.loads(texts[at])
    change(values)
    texts[at] = json.dumps(values)
    (run / loss_trace.FILE_NAME).write_text("\n".join(texts) + "\n")


def test_the_trace_holds_the_loss_of_every_step(trained):
    _, steps, ended = loss_trace.read(trained / loss_trace.FILE_NAME)
    assert (len(steps), ended) == (6, [])
    told = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    logged = {t["step"]: t["loss/cross_entropy"] for t in told if t["split"] == "train"}
    for step, loss in logged.items():
        if step > 1:
            assert steps[step - 1].loss_sum / 8 == pytest.approx(loss, rel=1e-6)
    assert len(logged) == 6


def test_an_equal_replay(trained, tmp_path):
    before = contents(trained)
    facts = run_replay(trained, f"--json={tmp_path / 'facts.json'}")
    assert contents(trained) == before
    assert facts["verdict"] == "bitwise"
    assert (facts["steps"], facts["bitwise_steps"], facts["departs_at"]) == (6, 6, None)
    assert (facts["weights"], facts["largest_difference"]) == ("equal", 0.0)
    assert facts["differences"] == []
    assert json.loads((tmp_path / "facts.json").read_text()) == facts


def test_a_tampered_loss_and_another_environment(copy):
    def raise_loss(values):
        values["sum"] = (float.fromhex(values["sum"]) * 1.1).hex()

    def other_numpy(values):
        values["environment"]["numpy"] = "1.0"

    rewrite(copy, 3, raise_loss)
    rewrite(copy, 0, other_numpy)
    with pytest.raises(DataError, match=r"departs at step 3: .*bit for bit before.*numpy was 1\.0"):
        run_replay(copy)


def test_what_differs_is_told_of_an_equal_replay(copy):
    """Commit, processor and images: none of them need make a difference."""

    def elsewhere(values):
        values["environment"] |= {"git_commit": "abc", "cpu": "Z80"}
        values["record"]["dataset"]["train"]["fingerprint"] = "others"

    rewrite(copy, 0, elsewhere)
    facts = run_replay(copy)
    assert facts["verdict"] == "bitwise"
    told = facts["differences"]
    assert len(told) == 3
    for start in (
        "git_commit was abc, here ",
        "cpu was Z80, here ",
        "train fingerprint was others, ",
    ):
        assert any(line.startswith(start) for line in told), told


@pytest.mark.faults
def test_another_seed_is_seen_in_the_weights(copy):
    def seed(values):
        values["record"]["config"]["length"]["seed"] = 1

    rewrite(copy, 0, seed)
    with pytest.raises(DataError, match=r"departs at step 1: .*initial weights differ already"):
        run_replay(copy / "best")


def test_a_changed_image_is_named(copy, tiny_folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_folder, data)
    start = loss_trace.read(copy / loss_trace.FILE_NAME)[0]
    rewrite(copy, 0, lambda values: values.update(time=(data / "train").stat().st_ctime + 1))
    own = replay._make_replay_config(start, flags.parse(["main.py", f"--data_dir={data}"]))
    feed = TrainSetup(own, with_val=False).train_input
    changed = feed.describe_sample(8 * 2 + 3)  # of the third step; the first epoch ends in it
    assert changed not in [feed.describe_sample(sample) for sample in range(16)]
    others = [path for path in (data / "train").rglob("*.jpg") if str(path) != changed]
    while True:  # past the time that the trace says
        shutil.copyfile(others[0], changed)
        if os.stat(changed).st_mtime > (data / "train").stat().st_ctime + 1.1:
            break
    with pytest.raises(DataError, match=rf"departs at step 3: .*1 image.*step 3.*{changed}"):
        run_replay(copy, f"--data_dir={data}")


@pytest.mark.faults
def test_resumed_runs(tiny_folder, trained, copy):
    """A killed run's trace is cut back and comes out the same; other flags end it."""
    whole = lines(copy)
    shutil.rmtree(copy / "step-00000006")
    shutil.rmtree(copy / "step-00000004")
    train_run(tiny_folder, copy.parent, "--run_name=r")
    assert lines(copy) == whole
    train_run(tiny_folder, copy.parent, "--run_name=r", "--steps=8")
    assert lines(copy)[:-1] == whole
    assert json.loads(lines(copy)[-1]) == {"ended": ["--steps=8, was 6"]}
    facts = run_replay(copy, "--steps=2")
    assert (facts["verdict"], facts["steps"]) == ("bitwise", 2)
    assert facts["trace_ended_by"] == ["--steps=8, was 6"]


@pytest.mark.faults
def test_two_replicas_from_other_weights(tiny_folder, trained, tmp_path, monkeypatch, mirrored):
    monkeypatch.setattr(strategies, "make_strategy", lambda config: mirrored)
    half = [
        "--mixed_precision",
        "--half_dtype=float16",
        "--accumulate=2",
        "--initial_loss_scale=64",
    ]
    words = [f"--init_from={trained}", "--run_name=two", "--steps=3", *half, "--accumulate=2"]
    train_run(tiny_folder, tmp_path, *words, *EVERY)
    start = loss_trace.read(tmp_path / "two" / loss_trace.FILE_NAME)[0]
    assert start.placement == {"workers": 1, "replicas": 2, "dtype": "float16"}
    facts = run_replay(tmp_path / "two")
    assert (facts["verdict"], facts["steps"]) == ("bitwise", 3)


def refused(run, *words):
    with pytest.raises(UsageError) as caught:
        run_replay(run, *words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_out_of_memory(copy, monkeypatch):
    """As where four devices have trained and one replays; what helps changes no bit."""

    def step(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmuch more")

    assert run_replay(copy, "--recompute")["verdict"] == "bitwise"
    monkeypatch.setattr(train_setup, "make_step", lambda *_: step)
    with pytest.raises(
        UsageError,
        match=r"--mode=repro with 8 images per step: out of memory; .*--recompute.*\(OOM when",
    ):
        run_replay(copy)


def test_what_cannot_be_replayed(copy, tmp_path):
    assert "name one run" in refused(f"{copy},{copy}")
    assert "no such folder" in refused(tmp_path / "nowhere")
    assert "--ckpt is missing" in refused("")
    assert "--weight_decay=0.5 conflicts" in refused(copy, "--weight_decay=0.5")
    rewrite(copy, 0, lambda values: values["placement"].update(workers=2))
    assert "2 workers" in refused(copy)
    (copy / loss_trace.FILE_NAME).write_text("{}\n")
    assert "not the trace of a run" in refused(copy)
    (copy / loss_trace.FILE_NAME).unlink()
    assert "missing; only a run that was trained" in refused(copy)
    assert checkpoint.find_newest_intact(copy)


def test_a_step_that_was_skipped_on_one_side(copy, capsys):
    rewrite(copy, 3, lambda line: line.update(applied=False))
    with pytest.raises(DataError, match="departs at step 3"):
        run_replay(copy)
    assert (
        "a step was skipped, or images were replaced, on one side only" in capsys.readouterr().out
    )


def test_shapes_are_not_drawn_into_a_folder_that_is_not_there(copy, tmp_path):
    record = json.loads((copy / "config.json").read_text())
    record["config"]["data"] |= {"dataset": "shapes", "data_dir": ""}
    (copy / "config.json").write_text(json.dumps(record))
    start = json.loads(lines(copy)[0])
    rewrite(
        copy,
        0,
        lambda line: line.update(json.loads(json.dumps(start).replace('"folder"', '"shapes"'))),
    )
    nowhere = tmp_path / "nowhere"
    with pytest.raises(UsageError, match="nowhere: there is no such folder"):
        run_replay(copy, f"--data_dir={nowhere}")
    assert not nowhere.exists()
