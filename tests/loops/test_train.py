"""Tests of whole trainings: bit-identical resume, the run folder, signals, unreadable images."""

import json
import logging
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework_config

import flags
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import DataError, UsageError
from loops import evaluate, train
from loops.checkpointing import checkpoint, restore, run_folder
from loops.evaluator import Evaluator
from loops.metrics import classification
from loops.runtime.stop_signals import StoppedBySignal
from loops.train_failures import TrainingDiverged, WorkerLost
from loops.train_setup import TrainSetup
from loops.train_step import TrainStep

pytestmark = pytest.mark.usefixtures("tiny_net")

SMALL = ["--model=resnetv2_18", "--image_size=32", "--batch_size=8", "--crops=1"]


def command(folder, tmp_path, *arguments):
    return [
        "main.py",
        "--dataset=folder",
        f"--data_dir={folder}",
        f"--checkpoint_dir={tmp_path}",
        "--strategy=one",
        *SMALL,
        *arguments,
    ]


def run(folder, tmp_path, *arguments):
    return train.run(flags.parse(command(folder, tmp_path, *arguments)))


def tensors(run_dir):
    """Returns all tensors of the newest checkpoint by name."""
    reader = tf.train.load_checkpoint(str(checkpoint.find_newest_intact(run_dir) / "ckpt"))
    shapes = reader.get_variable_to_shape_map()
    return {n: reader.get_tensor(n) for n in shapes if n != "_CHECKPOINTABLE_OBJECT_GRAPH"}


FLOAT16 = ("--mixed_precision", "--half_dtype=float16")
MORE = ("--ema=0.9", "--accumulate=2", "--optimizer=lamb", "--clip_norm=1", *FLOAT16)


@pytest.mark.parametrize(
    "half",
    [
        pytest.param((), id="float32", marks=pytest.mark.faults),
        pytest.param(FLOAT16, id="float16", marks=pytest.mark.faults),
        pytest.param(MORE, id="more"),
    ],
)
def test_resume_is_bit_identical(tiny_folder, tmp_path, half):
    """Four steps give the weights and optimizer state of two steps and two resumed ones."""
    # A cosine schedule depends on the length of the run.
    options = ["--schedule=constant", "--warmup_epochs=0", *half]
    run(tiny_folder, tmp_path, "--run_name=whole", "--steps=4", "--save_every=4", *options)
    run(tiny_folder, tmp_path, "--run_name=parts", "--steps=2", *options)
    run(tiny_folder, tmp_path, "--run_name=parts", "--steps=4")
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert len([n for n in whole if n.startswith("optimizer")]) > 8
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], name)


def test_resume_of_float16_run_in_float32_resets_loss_scale(tiny_folder, tmp_path):
    """A CPU without float16 may resume the run of a GPU."""
    options = ["--schedule=constant", "--warmup_epochs=0", "--weight_decay=0"]
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=2", *options, *FLOAT16)
    before = tensors(tmp_path / "r")
    record = (tmp_path / "r/config.json").read_text()
    assert '"half_dtype": "float16"' in record
    (tmp_path / "r/config.json").write_text(
        record.replace('"half_dtype": "float16"', '"half_dtype": "auto"')
    )
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=3")
    after = tensors(tmp_path / "r")
    (scale,) = (name for name in after if "loss_scale/scale" in name)
    assert (before[scale], after[scale]) == (2.0**15, 1.0)
    changes = [
        np.abs(after[n] - before[n]).max()
        for n in after
        if n.endswith("kernel/.ATTRIBUTES/VARIABLE_VALUE") and "model" in n
    ]
    assert changes and 0 < max(changes) < 0.1


@pytest.fixture
def determinism():
    """Returns a function that checks for op determinism, which is disabled after the test."""
    yield framework_config.is_op_determinism_enabled
    framework_config.disable_op_determinism()


def test_deterministic_flag_trains_and_cannot_change_on_resume(tiny_folder, tmp_path, determinism):
    """All operations of a step and of an evaluation have deterministic implementations."""
    assert not determinism()
    options = ["--dropout=0.2", "--mixup=0.2", "--cutmix=1", "--augment=randaugment", *MORE]
    run(tiny_folder, tmp_path, "--run_name=d", "--steps=2", "--deterministic", *options)
    assert determinism()
    framework_config.disable_op_determinism()
    words = [f"--ckpt={tmp_path / 'd'}", "--crops=1", "--deterministic"]
    evaluate.run(flags.parse(["main.py", "--mode=eval", *words]))
    assert determinism()
    with pytest.raises(UsageError, match="--deterministic=False conflicts with the run"):
        run(tiny_folder, tmp_path, "--run_name=d", "--steps=3", "--nodeterministic")


def test_run_without_checkpoint_may_be_removed_to_change_its_flags(
    tiny_folder, tmp_path, monkeypatch
):
    """A first attempt that failed at once does not leave its user without a remedy."""

    def fail(*_):
        raise DataError("no")

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", fail)
        with pytest.raises(DataError):
            run(tiny_folder, tmp_path, "--run_name=n", "--steps=1")
    other = ("--run_name=n", "--steps=1", "--dropout=0.5")
    with pytest.raises(UsageError, match=rf"; or remove {tmp_path / 'n'}, in which no step was"):
        run(tiny_folder, tmp_path, *other)
    with run_folder.lock(tmp_path / "n"), pytest.raises(UsageError, match=r"new run$"):
        run(tiny_folder, tmp_path, *other)  # another process trains it
    run(tiny_folder, tmp_path, "--run_name=n", "--steps=1")
    with pytest.raises(UsageError, match=r"conflicts .* or start a new run$"):
        run(tiny_folder, tmp_path, "--run_name=n", "--steps=2", "--dropout=0.5")


def test_run_that_another_process_has_made_meanwhile_is_not_overwritten(
    tiny_folder, tmp_path, monkeypatch
):
    """It trained and ended while this process was reading the data set."""
    build = TrainSetup.build

    def build_late(setup):
        with monkeypatch.context() as patch:
            patch.setattr(TrainSetup, "build", build)
            run(tiny_folder, tmp_path, "--run_name=n", "--steps=1")
        build(setup)

    monkeypatch.setattr(TrainSetup, "build", build_late)
    with pytest.raises(UsageError, match="--run_name=n: another process has begun this run"):
        run(tiny_folder, tmp_path, "--run_name=n", "--steps=1", "--dropout=0.5")
    assert run_folder.read_record(tmp_path / "n").config.net.dropout != 0.5


def test_out_of_memory_error_advises_flags(tiny_folder, tmp_path, monkeypatch):
    """A run that has started can only add `--recompute`."""

    def run_out_of_memory(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmuch more")

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "__call__", run_out_of_memory)
        with pytest.raises(UsageError, match=r"=8: out of memory; .*--accumulate=2 .*\(OOM when"):
            run(tiny_folder, tmp_path, "--run_name=r", "--steps=1")
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=1")
    monkeypatch.setattr(TrainStep, "__call__", run_out_of_memory)
    with pytest.raises(UsageError, match=r"=8: out of memory; resume the run with --recompute \("):
        run(tiny_folder, tmp_path, "--run_name=r", "--steps=2")


def test_run_folder_has_checkpoints_metrics_and_results(tiny_folder, tmp_path):
    results = run(tiny_folder, tmp_path, "--run_name=r", "--steps=5", "--save_every=2", "--keep=1")
    folder = tmp_path / "r"
    assert {"config.json", "metrics.jsonl", "log.txt", "train", "eval"} <= set(os.listdir(folder))
    # The newest checkpoint, and the best one that was evaluated.
    kept = {checkpoint.parse_step(f) for f in checkpoint.list_step_folders(folder)}
    assert 5 in kept
    assert len(kept) <= 2
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["split"] == "train"]
    assert trained[-1]["step"] == 5
    for tag in ("loss/total", "accuracy/top1", "optim/learning_rate", "optim/loss_scale"):
        assert np.isfinite(trained[-1][tag])
    assert trained[-1]["optim/skipped_steps"] == 0
    record = json.loads((folder / "config.json").read_text())
    assert record["config"]["data"]["image_size"] == 32
    assert len(record["class_names"]) == 3
    assert record["versions"]["keras"]
    saved = json.loads((folder / "eval-00000005-val-1.json").read_text())
    assert saved == results
    assert saved["num_examples"] == 11
    assert saved["top1"] + saved["top1_error"] == pytest.approx(1.0)
    assert saved["top1_low"] <= saved["top1"] <= saved["top1_high"]


def test_eval_mode_reproduces_results_of_training(tiny_folder, tmp_path):
    results = run(tiny_folder, tmp_path, "--run_name=r", "--steps=2")
    argv = ["main.py", "--mode=eval", f"--ckpt={tmp_path / 'r'}", "--crops=1"]
    again = evaluate.run(flags.parse(argv))
    assert again["top1"] == results["top1"]
    assert again["nll"] == pytest.approx(results["nll"], rel=1e-6)
    run(tiny_folder, tmp_path, "--run_name=r")  # trains no step, and keeps the more complete file
    kept = json.loads((tmp_path / "r/eval-00000002-val-1.json").read_text())
    assert kept == again and "per_class" in kept
    ten = evaluate.run(flags.parse([*argv[:-1], "--split=test", "--json", str(tmp_path / "j")]))
    assert ten["crops"] == 10
    assert ten["num_examples"] == 5
    assert json.loads((tmp_path / "j").read_text()) == ten
    with pytest.raises(UsageError, match="--model=resnet_18 conflicts"):
        evaluate.run(flags.parse([*argv, "--model=resnet_18"]))


@pytest.mark.parametrize("parts", [3, 16])
def test_accumulate_that_does_not_divide_batch_size_is_refused(tiny_folder, tmp_path, parts):
    with pytest.raises(UsageError, match=f"--accumulate={parts}: does not divide the 8 images"):
        run(tiny_folder, tmp_path, "--run_name=r", f"--accumulate={parts}")
    assert not (tmp_path / "r").exists()


def test_resume_without_intact_checkpoint_is_refused(tiny_folder, tmp_path):
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=1")
    index = checkpoint.find_newest_intact(tmp_path / "r") / "ckpt.index"
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(DataError, match="no step folder is intact"):
        run(tiny_folder, tmp_path, "--run_name=r", "--steps=2")


@pytest.mark.parametrize("steps", [4, 2])
def test_signal_during_evaluation_saves_and_stops(
    tiny_folder, tmp_path, monkeypatch, caplog, steps
):
    """The process sends itself SIGTERM. The resumed run makes up for the evaluation."""
    evaluate_split = Evaluator.__call__

    def send_signal_and_evaluate(self, *arguments, **options):
        if not options.get("max_batches"):
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate_split(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "__call__", send_signal_and_evaluate)
        with pytest.raises(StoppedBySignal) as stopped:
            run(tiny_folder, tmp_path, "--run_name=r", f"--steps={steps}", "--eval_every=2")
    assert stopped.value.exit_code == 143
    newest = checkpoint.find_newest_intact(tmp_path / "r")
    assert (checkpoint.parse_step(newest), checkpoint.read_score(newest)) == (2, None)
    # Table and curve have no gap, and the step can be the best one.
    caplog.clear()
    run(tiny_folder, tmp_path, "--run_name=r")
    rows = [message for message in caplog.messages if re.match(r" +\S+ +2 ", message)]
    assert [row.split()[2:4] + row.split()[-1:] for row in rows] == [["-", "-", "best"]]
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    top1 = [line["accuracy/top1"] for line in lines if (line["split"], line["step"]) == ("eval", 2)]
    assert top1[0] == checkpoint.read_score(newest) and checkpoint.is_intact(newest)
    assert len(top1) == (1 if steps > 2 else 2)  # the evaluation at the end repeats it
    assert checkpoint.find_best_intact(tmp_path / "r") is not None


def test_run_is_not_shortened_to_what_it_is_beyond(tiny_folder, tmp_path):
    words = ["--run_name=r", "--eval_every=9"]
    run(tiny_folder, tmp_path, *words, "--steps=3")
    config = (tmp_path / "r/config.json").read_bytes()
    (tmp_path / "r/eval-00000003-val-1.json").unlink()  # so that it is not finished
    message = r"--steps=2: would end the run at step 2, and it is already at step 3; give more, or"
    with pytest.raises(UsageError, match=message):
        run(tiny_folder, tmp_path, *words, "--steps=2")
    assert (tmp_path / "r/config.json").read_bytes() == config


def test_an_evaluation_that_is_the_best_so_far_is_saved(tiny_folder, tmp_path, monkeypatch):
    """Evaluations after steps 2, 4, 6 and 7, saves after 5 and 7: the intervals never meet."""
    accuracies = iter([0.25, 0.5, 0.25, 0.25, 0.5, 0.75, 0.25])

    def score(*_):
        return {"top1": next(accuracies), "nll": 1.0}

    monkeypatch.setattr(classification, "score", score)
    words = ["--run_name=r", "--eval_every=2", "--save_every=5", "--keep=9", "--top_k=1"]
    run(tiny_folder, tmp_path, "--steps=7", *words)
    steps = [checkpoint.parse_step(f) for f in checkpoint.list_step_folders(tmp_path / "r")]
    assert steps == [7, 5, 4, 2]
    assert checkpoint.find_best_intact(tmp_path / "r").name == "step-00000004"
    # A resumed run knows the best so far: 0.5 is not better.
    run(tiny_folder, tmp_path, "--steps=11", *words)
    steps = [checkpoint.parse_step(f) for f in checkpoint.list_step_folders(tmp_path / "r")]
    assert steps == [11, 10, 7, 5, 4, 2]


def test_divergence_names_step_samples_and_last_checkpoint(tiny_folder, tmp_path):
    with pytest.raises(TrainingDiverged, match=r"step \d+: .*samples \d+ to \d+.*step-00000001"):
        run(
            tiny_folder,
            tmp_path,
            "--run_name=r",
            "--steps=40",
            "--save_every=1",
            "--learning_rate=1e30",
            "--nolinear_scaling",
            "--warmup_epochs=10",
        )


def test_too_many_unreadable_images_stop_training(tiny_folder, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(tiny_folder, folder)
    bad = sorted((folder / "train").glob("*/*"))[4]
    bad.write_bytes(bad.read_bytes()[:100])
    with pytest.raises(DataError, match=bad.name):
        run(folder, tmp_path, "--run_name=r", "--epochs=2")


def test_train_split_of_unreadable_files_is_refused(tiny_folder, tmp_path):
    """Git LFS pointers, for example, have the names of images."""
    folder = tmp_path / "data"
    shutil.copytree(tiny_folder, folder)
    for file in (folder / "train").glob("*/*"):
        file.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match=r"\.jpg does not decode: .*8 images in a row"):
        run(folder, tmp_path, "--run_name=r", "--steps=1")


@pytest.mark.parametrize(("branch", "name"), [("net", "model"), ("data", "dataset")])
def test_resume_of_run_with_unknown_value_is_refused(tmp_path, make_run, branch, name):
    folder = make_run(tmp_path / "r")
    data = json.loads((folder / "config.json").read_text())
    data["config"][branch][name] = "unknown_name"
    (folder / "config.json").write_text(json.dumps(data))
    argv = ["main.py", f"--checkpoint_dir={tmp_path}", "--run_name=r"]
    with pytest.raises(UsageError, match=f"--{name}=unknown_name: unknown value"):
        train.run(flags.parse(argv))


def test_lost_worker_before_first_step(tiny_folder, tmp_path, monkeypatch):
    def lose_worker(*_, **__):
        raise tf.errors.UnavailableError(None, None, "peer")

    monkeypatch.setattr(Evaluator, "__call__", lose_worker)
    with pytest.raises(WorkerLost, match=r"another worker is gone \(peer\).*no checkpoint"):
        run(tiny_folder, tmp_path, "--run_name=r", "--steps=1")


def test_unreadable_val_image_is_fatal(tiny_folder, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(tiny_folder, folder)
    bad = sorted((folder / "val").glob("*/*"))[7]
    bad.write_bytes(b"")
    with pytest.raises(DataError, match=bad.name):
        run(folder, tmp_path, "--run_name=r", "--steps=1")


def test_failed_evaluation_saves_a_checkpoint_first(tiny_folder, tmp_path):
    """The unreadable image is not in the batch that is evaluated before the first step."""
    folder = tmp_path / "data"
    shutil.copytree(tiny_folder, folder)
    bad = sorted((folder / "val").glob("*/*"))[7]
    good = bad.read_bytes()
    bad.write_bytes(b"")
    words = ["--run_name=r", "--steps=3", "--eval_every=2", "--eval_batch_size=4"]
    with pytest.raises(DataError, match=bad.name):
        run(folder, tmp_path, *words)
    assert [f.name for f in checkpoint.list_step_folders(tmp_path / "r")] == ["step-00000002"]
    bad.write_bytes(good)
    run(folder, tmp_path, *words)
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "eval"][:2] == [2, 3]


def test_ema_weights_are_evaluated_and_restored(tiny_folder, tmp_path):
    """During training and in eval mode. The checkpoint also contains the raw weights."""
    words = ["--run_name=r", "--steps=3", "--ema=0.9", "--learning_rate=3", "--image_size=32"]
    results = run(tiny_folder, tmp_path, *words)
    argv = ["main.py", "--mode=eval", f"--ckpt={tmp_path / 'r'}", "--crops=1"]
    again = evaluate.run(flags.parse(argv))
    assert again["nll"] == pytest.approx(results["nll"], rel=1e-6)
    assert again["top1_raw"] == results["top1_raw"]
    record = run_folder.read_record(tmp_path / "r")
    newest = checkpoint.find_newest_intact(tmp_path / "r")
    strategy = tf.distribute.get_strategy()
    nets = [
        restore.restore_model(strategy, record, newest, "float32", averaged) for averaged in (1, 0)
    ]
    stored = tensors(tmp_path / "r")
    for group, net in zip(("ema", "model"), nets, strict=True):
        for variable in net.variables:
            key = f"{group}/{variable.path.replace('/', '.S')}/.ATTRIBUTES/VARIABLE_VALUE"
            np.testing.assert_array_equal(variable.numpy(), stored[key], key)


def test_image_size_schedule(tiny_folder, tmp_path, monkeypatch, caplog):
    """An epoch has 23 / 8 steps: three steps with 32 px, then 40 px."""
    traced_sizes = []
    make_preprocess_fn = batch_augment.make_preprocess_fn

    def make_recording_fn(*arguments):
        preprocess = make_preprocess_fn(*arguments)

        def record_and_preprocess(batch):
            traced_sizes.append(batch["image"].shape[1])
            return preprocess(batch)

        return record_and_preprocess

    monkeypatch.setattr(batch_augment, "make_preprocess_fn", make_recording_fn)
    words = ["--run_name=r", "--steps=5", "--image_size_schedule=0:32,1:40", "--image_size=48"]
    run(tiny_folder, tmp_path, *words, "--profile=1,9", "--log_norms", "--log_every=1")
    assert "--profile=1,9: the run ends at step 5" in caplog.text
    # The image grid, then a trace of the step for each size.
    assert traced_sizes == [32, 32, 40]
    assert list((tmp_path / "r/train/plugins/profile").rglob("*.xplane.pb"))
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["split"] == "train"]
    assert len(trained) == 5
    has_speed = ["speed/images_per_second" in line for line in trained]
    assert has_speed == [False, True, True, False, True]  # not measured in steps that trace
    assert {"norm_gradient/logits/kernel", "norm_weight/conv1/kernel"} <= trained[-1].keys()
    assert trained[-1]["system/peak_gigabytes"] > 0.1
    traced_sizes.clear()
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=6", "--image_size=48")
    assert traced_sizes == [40]


def test_signal_sigusr1_saves_checkpoint_and_training_continues(
    tiny_folder, tmp_path, monkeypatch, caplog
):
    """The request in step 2 saves that step. The one in step 3 waits for the save that is due."""
    call_step, calls = TrainStep.__call__, []

    def send_signal_and_train(self, *arguments):
        calls.append(arguments)  # of one step each, while the losses are traced
        if len(calls) in (2, 3):
            os.kill(os.getpid(), signal.SIGUSR1)
        return call_step(self, *arguments)

    monkeypatch.setattr(TrainStep, "__call__", send_signal_and_train)
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=5", "--save_every=3", "--eval_every=3")
    folders = checkpoint.list_step_folders(tmp_path / "r")
    assert [checkpoint.parse_step(f) for f in folders] == [5, 3, 2]
    assert len(calls) == 5
    has_metrics = [bool(checkpoint.verify(folder)["metrics"]) for folder in folders]
    assert has_metrics == [True, True, False]
    caplog.set_level(logging.INFO, "absl")
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=4")  # fewer than were done
    assert "nothing to train: step 5, the last, was evaluated" in caplog.messages
    assert checkpoint.list_step_folders(tmp_path / "r") == folders


def read_files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_finished_run_that_is_named_again_writes_nothing(tiny_folder, tmp_path, caplog, capsys):
    """As a job that was put back into the queue. What is missing is evaluated."""
    words = ["--run_name=r", "--steps=2", "--top_k=1,2"]
    first = run(tiny_folder, tmp_path / "runs", *words)
    files = read_files(tmp_path)
    assert len(read_metric_lines(tmp_path / "runs/r", "eval")) == 2
    printed = capsys.readouterr().out
    caplog.set_level(logging.INFO, "absl")
    again = run(tiny_folder, tmp_path / "runs", *words, "--batch_size=8", "--log_every=1")
    assert "nothing to train: step 2, the last, was evaluated" in caplog.messages
    assert capsys.readouterr().out == printed
    assert again == json.loads(json.dumps(first))
    assert read_files(tmp_path) == files
    run(tiny_folder, tmp_path / "runs", *words, f"--json={tmp_path / 'also.json'}")
    assert json.loads((tmp_path / "also.json").read_text()) == again
    assert "top3" in run(tiny_folder, tmp_path / "runs", "--run_name=r", "--top_k=1,3")
    results = tmp_path / "runs/r/eval-00000002-val-1.json"
    foreign = json.dumps({k: v for k, v in again.items() if k != "top1_low"})
    for text in (json.dumps(again).replace(again["fingerprint"], "of other images"), foreign):
        results.write_text(text)
        run(tiny_folder, tmp_path / "runs", *words)
        assert json.loads(results.read_text()) == again
    run(tiny_folder, tmp_path / "runs", "--run_name=r", "--steps=3")
    assert checkpoint.parse_step(checkpoint.find_newest_intact(tmp_path / "runs/r")) == 3


def read_metric_lines(run_dir, split):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def test_two_unnamed_runs_in_one_second_get_two_folders(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101-000000")
    for rate in ("0.1", "0.2"):
        run(tiny_folder, tmp_path, "--steps=1", f"--learning_rate={rate}")
    name = "resnetv2_18-folder-20260101-000000"
    rates = {
        f: run_folder.read_record(f).config.optimization.learning_rate for f in tmp_path.iterdir()
    }
    assert rates == {tmp_path / name: 0.1, tmp_path / f"{name}-2": 0.2}
