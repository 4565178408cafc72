"""Training as a whole, in process: resume bit for bit, the run folder, and bad images."""

import json
import logging
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework_config

import flags
from input_pipeline.augmentation import batch_augment
from input_pipeline.errors import DataError, UsageError
from loops import evaluate, evaluator, train, train_setup
from loops.checkpointing import checkpoint, restore, run_folder
from loops.monitoring import step_intervals
from loops.runtime.stop_signals import StoppedBySignal
from loops.train_failures import TrainingDiverged, WorkerLost

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
    """All tensors of a run's newest checkpoint by name."""
    reader = tf.train.load_checkpoint(str(checkpoint.find_newest_intact(run_dir) / "ckpt"))
    shapes = reader.get_variable_to_shape_map()
    return {n: reader.get_tensor(n) for n in shapes if n != "_CHECKPOINTABLE_OBJECT_GRAPH"}


FLOAT16 = ("--mixed_precision", "--half_dtype=float16")
MORE = ("--ema=0.9", "--accumulate=2", "--optimizer=lamb", "--clip_norm=1", *FLOAT16)


@pytest.mark.parametrize("half", [(), FLOAT16, MORE], ids=["float32", "float16", "more"])
def test_four_steps_equal_two_and_two_resumed(tiny_folder, tmp_path, half):
    # A constant schedule, since the length of the run is what a cosine depends on.
    options = ["--schedule=constant", "--warmup_epochs=0", *half]
    run(tiny_folder, tmp_path, "--run_name=whole", "--steps=4", "--save_every=4", *options)
    run(tiny_folder, tmp_path, "--run_name=parts", "--steps=2", *options)
    run(tiny_folder, tmp_path, "--run_name=parts", "--steps=4")
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert len([n for n in whole if n.startswith("optimizer")]) > 8
    for name, value in whole.items():
        np.testing.assert_array_equal(value, parts[name], name)


def test_float16_is_resumed_where_there_is_none(tiny_folder, tmp_path):
    """As on a CPU after a GPU: its loss is no longer scaled, and so its gradients are not."""
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
    moved = [
        np.abs(after[n] - before[n]).max()
        for n in after
        if n.endswith("kernel/.ATTRIBUTES/VARIABLE_VALUE") and "model" in n
    ]
    assert moved and 0 < max(moved) < 0.1


@pytest.fixture
def determinism():
    """Whether TensorFlow was told to be deterministic; nobody is afterwards."""
    yield framework_config.is_op_determinism_enabled
    framework_config.disable_op_determinism()


def test_deterministic_operations_train_and_are_the_runs(tiny_folder, tmp_path, determinism):
    """All that may be in a step works so; an evaluation does; a resumed run must agree."""
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


def test_out_of_memory_names_what_may_still_be_done(tiny_folder, tmp_path, monkeypatch):
    """A run that has begun, as at a larger size of its images, takes `--recompute` alone."""

    def make_step(*_):
        def step(*_):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmuch more")

        return step

    with monkeypatch.context() as patch:
        patch.setattr(train_setup, "make_step", make_step)
        with pytest.raises(UsageError, match=r"=8: out of memory; .*--accumulate=2 .*\(OOM when"):
            run(tiny_folder, tmp_path, "--run_name=r", "--steps=1")
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=1")
    monkeypatch.setattr(train_setup, "make_step", make_step)
    with pytest.raises(UsageError, match=r"=8: out of memory; resume the run with --recompute \("):
        run(tiny_folder, tmp_path, "--run_name=r", "--steps=2")


def test_run_folder_holds_what_is_promised(tiny_folder, tmp_path):
    results = run(tiny_folder, tmp_path, "--run_name=r", "--steps=5", "--save_every=2", "--keep=1")
    folder = tmp_path / "r"
    assert {"config.json", "metrics.jsonl", "log.txt", "train", "eval"} <= set(os.listdir(folder))
    # The newest one, and the best of those that an evaluation came with.
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


def test_eval_of_the_run_gives_the_same_figures(tiny_folder, tmp_path):
    results = run(tiny_folder, tmp_path, "--run_name=r", "--steps=2")
    argv = ["main.py", "--mode=eval", f"--ckpt={tmp_path / 'r'}", "--crops=1"]
    again = evaluate.run(flags.parse(argv))
    assert again["top1"] == results["top1"]
    assert again["nll"] == pytest.approx(results["nll"], rel=1e-6)
    run(tiny_folder, tmp_path, "--run_name=r")  # nothing to train; its file would say less
    kept = json.loads((tmp_path / "r/eval-00000002-val-1.json").read_text())
    assert kept == again and "per_class" in kept
    ten = evaluate.run(flags.parse([*argv[:-1], "--split=test", "--json", str(tmp_path / "j")]))
    assert ten["crops"] == 10
    assert ten["num_examples"] == 5
    assert json.loads((tmp_path / "j").read_text()) == ten
    with pytest.raises(UsageError, match="--model=resnet_18 conflicts"):
        evaluate.run(flags.parse([*argv, "--model=resnet_18"]))


def test_conflicting_flag_on_resume_is_refused(tiny_folder, tmp_path):
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=1")
    with pytest.raises(UsageError, match=r"--weight_decay=0\.5 conflicts.*0\.0001"):
        run(tiny_folder, tmp_path, "--run_name=r", "--steps=2", "--weight_decay=0.5")


@pytest.mark.parametrize("parts", [3, 16])
def test_micro_batches_are_equal_or_refused(tiny_folder, tmp_path, parts):
    with pytest.raises(UsageError, match=f"--accumulate={parts}: does not divide the 8 images"):
        run(tiny_folder, tmp_path, "--run_name=r", f"--accumulate={parts}")
    assert not (tmp_path / "r").exists()


def test_nothing_intact_is_never_a_silent_restart(tiny_folder, tmp_path):
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=1")
    index = checkpoint.find_newest_intact(tmp_path / "r") / "ckpt.index"
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(DataError, match="no step folder is intact"):
        run(tiny_folder, tmp_path, "--run_name=r", "--steps=2")


@pytest.mark.parametrize("steps", [4, 2])
def test_signal_saves_and_stops(tiny_folder, tmp_path, monkeypatch, steps):
    """The handler is the real one: the process sends itself SIGTERM in the first evaluation."""
    original = evaluator.Evaluator.__call__

    def call(self, *arguments, **options):
        if not options.get("max_batches"):
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(evaluator.Evaluator, "__call__", call)
        with pytest.raises(StoppedBySignal) as stopped:
            run(tiny_folder, tmp_path, "--run_name=r", f"--steps={steps}", "--eval_every=2")
    assert stopped.value.exit_code == 143
    newest = checkpoint.find_newest_intact(tmp_path / "r")
    assert (checkpoint.parse_step(newest), checkpoint.read_top1(newest)) == (2, None)
    # That evaluation is made up for: the curve has no gap, and the step may be the best.
    run(tiny_folder, tmp_path, "--run_name=r")
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    figures = [
        line["accuracy/top1"] for line in lines if (line["split"], line["step"]) == ("eval", 2)
    ]
    assert figures[0] == checkpoint.read_top1(newest) and checkpoint.is_intact(newest)
    assert len(figures) == (1 if steps > 2 else 2)  # the last evaluation of all says it again
    assert checkpoint.find_best_intact(tmp_path / "r") is not None


def test_divergence_names_step_and_samples_and_keeps_the_checkpoint(tiny_folder, tmp_path):
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


def test_bad_image_is_replaced_counted_and_too_many(tiny_folder, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(tiny_folder, folder)
    bad = sorted((folder / "train").glob("*/*"))[4]
    bad.write_bytes(bad.read_bytes()[:100])
    with pytest.raises(DataError, match=bad.name):
        run(folder, tmp_path, "--run_name=r", "--epochs=2")


def test_a_train_split_without_any_image(tiny_folder, tmp_path):
    """As where a repository holds pointers to large files in their place."""
    folder = tmp_path / "data"
    shutil.copytree(tiny_folder, folder)
    for file in (folder / "train").glob("*/*"):
        file.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match=r"\.jpg and the .* after it .* do not decode"):
        run(folder, tmp_path, "--run_name=r", "--steps=1")


@pytest.mark.parametrize(("branch", "name"), [("net", "model"), ("data", "dataset")])
def test_a_run_of_another_version_is_refused_in_one_line(tmp_path, make_run, branch, name):
    folder = make_run(tmp_path / "r")
    data = json.loads((folder / "config.json").read_text())
    data["config"][branch][name] = "of_tomorrow"
    (folder / "config.json").write_text(json.dumps(data))
    argv = ["main.py", f"--checkpoint_dir={tmp_path}", "--run_name=r"]
    with pytest.raises(UsageError, match=f"--{name}=of_tomorrow: unknown value"):
        train.run(flags.parse(argv))


def test_a_worker_that_is_lost_before_the_first_step(tiny_folder, tmp_path, monkeypatch):
    def lost(*args, **kwargs):
        raise tf.errors.UnavailableError(None, None, "peer")

    monkeypatch.setattr(evaluator.Evaluator, "__call__", lost)
    with pytest.raises(WorkerLost, match=r"another worker is gone \(peer\).*no checkpoint"):
        run(tiny_folder, tmp_path, "--run_name=r", "--steps=1")


def test_undecodable_val_image_is_fatal(tiny_folder, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(tiny_folder, folder)
    bad = sorted((folder / "val").glob("*/*"))[7]
    bad.write_bytes(b"")
    with pytest.raises(DataError, match=bad.name):
        run(folder, tmp_path, "--run_name=r", "--steps=1")


def test_a_failed_evaluation_costs_no_step(tiny_folder, tmp_path):
    """Of an image that the batch before the first step does not reach."""
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
    rows = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "eval"][:2] == [2, 3]


def test_averages_are_what_is_evaluated_and_predicted(tiny_folder, tmp_path):
    """While it trains, in eval and in predict; the weights themselves stand beside."""
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


def test_sizes_change_where_the_schedule_says(tiny_folder, tmp_path, monkeypatch, caplog):
    """An epoch has 23 / 8 steps: 32 px for three of them, then 40."""
    seen = []
    make_prepare = batch_augment.make_preprocess_fn

    def noting(*arguments):
        prepare = make_prepare(*arguments)
        return lambda batch: (seen.append(batch["image"].shape[1]), prepare(batch))[1]

    monkeypatch.setattr(batch_augment, "make_preprocess_fn", noting)
    words = ["--run_name=r", "--steps=5", "--image_size_schedule=0:32,1:40", "--image_size=48"]
    run(tiny_folder, tmp_path, *words, "--profile=1,9", "--log_norms", "--log_every=1")
    assert "--profile=1,9: the run ends at step 5" in caplog.text
    assert seen == [32, 32, 40]  # the first page of images, then one trace each
    assert list((tmp_path / "r/train/plugins/profile").rglob("*.xplane.pb"))
    lines = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["split"] == "train"]
    assert len(trained) == 5
    timed = ["speed/images_per_second" in line for line in trained]
    assert timed == [False, True, True, False, True]  # tracing, at either size, is no measurement
    assert {"norm_gradient/logits/kernel", "norm_weight/conv1/kernel"} <= trained[-1].keys()
    assert trained[-1]["memory/peak_gigabytes"] > 0.1
    seen.clear()
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=6", "--image_size=48")
    assert seen == [40]


def test_wishes_for_a_checkpoint_are_fulfilled_and_training_goes_on(
    tiny_folder, tmp_path, monkeypatch, caplog
):
    """The wish in step 2 is a save of its own; that in step 3 is the one that is due there."""
    monkeypatch.setattr(step_intervals, "_SECONDS_PER_CALL", 1e-9)  # one step a call
    steps_of_call = step_intervals.StepIntervals.steps_until_due

    def kill(self, done):
        if done in (1, 2):
            os.kill(os.getpid(), signal.SIGUSR1)
        return steps_of_call(self, done)

    monkeypatch.setattr(step_intervals.StepIntervals, "steps_until_due", kill)
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=5", "--save_every=3", "--eval_every=3")
    folders = checkpoint.list_step_folders(tmp_path / "r")
    assert [checkpoint.parse_step(f) for f in folders] == [5, 3, 2]
    with_figures = [bool(checkpoint.verify(folder)["metrics"]) for folder in folders]
    assert with_figures == [True, True, False]
    caplog.set_level(logging.INFO, "absl")
    run(tiny_folder, tmp_path, "--run_name=r", "--steps=4")  # fewer than are done
    assert "nothing to train: 5 of 4 steps are done" in caplog.messages
    assert checkpoint.list_step_folders(tmp_path / "r") == folders
