"""Tests of all forms of `--mode=eval` on two tiny runs with different image sizes."""

import contextlib
import json
import os
import shutil
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.errors import UsageError
from loops import evaluate, train
from loops.checkpointing import checkpoint, run_folder
from loops.evaluation import eval_results
from loops.evaluator import Evaluator
from loops.metrics import calibration
from loops.monitoring import metric_writer
from loops.train_failures import WorkerLost
from tests.command_line import parse
from tests.loops.tiny_nets import two_convolutions

pytestmark = pytest.mark.usefixtures("tiny_net")


@pytest.fixture(scope="module")
def runs(tiny_folder, tmp_path_factory):
    """A folder with the runs `a` (four checkpoints, 32 px) and `b` (40 px, bicubic)."""
    root = tmp_path_factory.mktemp("runs")
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", f"--checkpoint_dir={root}"]
    words += ["--batch_size=8", "--crops=1", "--save_every=2", "--keep=9", "--learning_rate=1"]
    words += ["--eval_every=2"]
    with two_convolutions():
        train.run(parse(*words, "--image_size=32", "--steps=8", "--run_name=a"))
        words += ["--image_size=40", "--steps=4", "--run_name=b", "--interpolation=bicubic"]
        train.run(parse(*words, "--seed=3"))
    return root


def run(*words):
    return evaluate.run(parse("--mode=eval", *words))


def test_cached_logits_give_the_same_results(runs, tmp_path, capsys):
    """The ensemble, each model and the center crop are scored from logits as from images."""
    both = f"--ckpt={runs / 'a'},{runs / 'b'}"
    direct = run(both, f"--save_logits={tmp_path / 'ab.npz'}", f"--json={tmp_path / 'ab.json'}")
    assert json.loads((tmp_path / "ab.json").read_text()) == direct
    table = capsys.readouterr().out
    assert "ensemble" in table and "McNemar" in table and str(runs / "b") in table

    cached = run(f"--logits={tmp_path / 'ab.npz'}")
    assert cached.pop("logits") == [str(tmp_path / "ab.npz")]
    assert cached == direct
    assert capsys.readouterr().out == table

    alone = run(f"--ckpt={runs / 'b'}", f"--save_logits={tmp_path / 'b.npz'}")
    from_logits = [run(f"--logits={tmp_path / 'ab.npz'}", "--members=2")]
    from_logits.append(run(f"--logits={tmp_path / 'b.npz'}"))
    for results in from_logits:
        results.pop("logits")
        assert results == alone
    keys = set(alone["center_crop"])
    assert {k: direct["members"][1][k] for k in keys} == {k: alone[k] for k in keys}
    center = run(f"--logits={tmp_path / 'b.npz'}", "--crops=1")
    assert {k: center[k] for k in keys} == alone["center_crop"]
    from_images = run(f"--ckpt={runs / 'b'}", "--crops=1")
    assert from_images["nll"] == pytest.approx(center["nll"], abs=1e-5)
    assert from_images["top1"] == center["top1"]


def test_unwritable_run_folder_is_a_warning(runs, tmp_path, capsys, caplog):
    """Folders with the names of the files make the writes fail, for root too."""
    copy = shutil.copytree(runs / "b", tmp_path / "b")
    (copy / "eval-00000004-val-1.json").unlink()
    (copy / "eval-00000004-val-1.json" / "taken").mkdir(parents=True)
    (copy / "metrics.jsonl").unlink()
    (copy / "metrics.jsonl").mkdir()
    results = run(f"--ckpt={copy}", "--crops=1", f"--json={tmp_path / 'o.json'}")
    assert json.loads((tmp_path / "o.json").read_text()) == results
    assert f"{results['top1']:.2%}" in capsys.readouterr().out
    for name, reason in (
        ("eval-00000004-val-1.json", "Is a directory"),
        ("eval", "is not a regular file"),
    ):
        assert f"could not write {copy / name}: {reason}" in caplog.text
    assert not list(copy.glob(".eval*"))


def test_ensemble_is_mean_over_models_with_their_own_image_sizes(runs, tmp_path):
    path = tmp_path / "ab.npz"
    both = run(f"--ckpt={runs / 'a'},{runs / 'b'}", "--crops=1", f"--save_logits={path}")
    assert both["models"] == [str(runs / "a/step-00000008"), str(runs / "b/step-00000004")]
    with np.load(path) as file:
        softmax = [np.exp(file[n][:, 0]) for n in ("logits_0", "logits_1")]
        mean = sum(s / s.sum(-1, keepdims=True) for s in softmax) / 2
        assert both["top1"] == np.mean(mean.argmax(1) == file["labels"])
        sizes = [m["image_size"] for m in json.loads(file["meta"].tobytes())["models"]]
    assert sizes == [32, 40]
    assert (runs / "a/eval-00000008-val-1-ensemble.json").exists()


def test_image_size_sweep(runs, tmp_path, capsys):
    sweep = run(
        f"--ckpt={runs / 'a'}", "--crops=1", "--test_size=32,40", f"--json={tmp_path / 's.json'}"
    )
    assert [results["image_size"] for results in sweep] == [32, 40]
    assert json.loads((tmp_path / "s.json").read_text()) == {"sweep": sweep}
    for results, suffix in zip(sweep, ("", "-40px"), strict=True):
        path = runs / f"a/eval-00000008-val-1{suffix}.json"
        assert json.loads(path.read_text()) == results
    assert "40 px" in capsys.readouterr().out


def test_tensorboard_images_and_curves(runs, read_events):
    run(f"--ckpt={runs / 'a/step-00000002'}")
    events = read_events(runs / "a" / "eval")
    for tag in ("reliability_10_crops", "confusion_10_crops", "mistakes_10_crops"):
        assert len(events[tag][2]) == 1
    results = json.loads((runs / "a/eval-00000002-val-10.json").read_text())
    assert events["calibration/ece_10_crops"][2] == pytest.approx(results["ece"])
    num_wrong = round(results["top1_error"] * results["num_examples"])
    assert len(results["mistakes"]) == num_wrong > 0
    record = run_folder.read_record(runs / "a")
    assert results["fingerprint"] == record.dataset["val"]["fingerprint"] != ""


def test_tensorboard_images_of_test_split_have_separate_tags(tmp_path, read_events):
    labels, probs = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    split = types.SimpleNamespace(labels=labels, class_names=("a", "b"))
    reliability = calibration.reliability(probs, labels)
    results = {"reliability": reliability, "mistakes": [], "step": 3}
    with metric_writer.MetricWriter(tmp_path) as writer:
        for name in ("val", "test"):
            split_results = results | {"crops": 10, "split": name}
            eval_results.log_images(writer, "eval", split_results, probs, split, None)
        # A confusion matrix of too many classes is not drawn, because it is not readable.
        many = types.SimpleNamespace(labels=labels, class_names=[f"{n}" for n in range(2001)])
        many_probs = np.pad(probs, ((0, 0), (0, 1999)))
        eval_results.log_images(writer, "many", split_results, many_probs, many, None)
    images = read_events(tmp_path / "eval")
    assert {tag: len(by_step[3]) for tag, by_step in images.items()} == {
        **{"reliability_10_crops": 1, "confusion_10_crops": 1},
        **{"reliability_10_crops_test": 1, "confusion_10_crops_test": 1},
    }
    assert list(read_events(tmp_path / "many")) == ["reliability_10_crops_test"]


@contextlib.contextmanager
def pruning_during_evaluation(run_dir):
    """Removes the newest checkpoint of a run when the first evaluation starts."""
    evaluate_split, pruned = Evaluator.__call__, []

    def prune_and_evaluate(self, *arguments, **options):
        if not pruned:
            pruned.append(checkpoint.find_newest_intact(run_dir))
            shutil.rmtree(pruned[0])
        return evaluate_split(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "__call__", prune_and_evaluate)
        yield
    assert pruned


def test_checkpoint_removed_during_evaluation(runs, tmp_path):
    copies = [shutil.copytree(runs / name, tmp_path / name) for name in ("a", "b")]
    removed = r"b/step-00000004: was removed before it was read"
    with pruning_during_evaluation(copies[1]), pytest.raises(UsageError, match=removed):
        run(f"--ckpt={copies[0]},{copies[1]}", "--crops=1")


def test_evaluation_of_run_in_training_writes_separate_curve(runs, tmp_path, read_events):
    """TensorBoard would read only the newer of two event files."""
    copy = shutil.copytree(runs / "b", tmp_path / "b")
    event_files = sorted(os.listdir(copy / "eval"))
    with run_folder.lock(copy):
        run(f"--ckpt={copy}")
    assert sorted(os.listdir(copy / "eval")) == event_files
    assert len(read_events(copy / "watch")["confusion_10_crops"]) == 1
    run(f"--ckpt={copy}")
    assert len(os.listdir(copy / "eval")) == len(event_files) + 1


def test_other_preprocessing_writes_separate_files(runs, tmp_path):
    copy = shutil.copytree(runs / "b", tmp_path / "b")
    default = run(f"--ckpt={copy}", "--crops=1")
    words = ["--crop_fraction=1", "--interpolation=bilinear", "--crops=1"]
    other = run(f"--ckpt={copy}", *words)
    assert json.loads((copy / "eval-00000004-val-1.json").read_text()) == default
    path = copy / "eval-00000004-val-1-crop1-bilinear.json"
    assert json.loads(path.read_text()) == other
    assert [other[k] for k in ("crop_fraction", "interpolation")] == [1.0, "bilinear"]
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["accuracy/top1_crop1_bilinear"] == other["top1"]


def test_lost_worker_during_evaluation(runs, monkeypatch):
    def lose_worker(*_, **__):
        raise tf.errors.UnavailableError(None, None, "peer")

    monkeypatch.setattr(Evaluator, "__call__", lose_worker)
    with pytest.raises(WorkerLost, match=r"gone \(peer\); restart all workers$"):
        run(f"--ckpt={runs / 'a'}")


def test_watch_completed_run(runs, tmp_path, read_events):
    copy = shutil.copytree(runs / "a", tmp_path / "a")
    event_files = sorted(os.listdir(copy / "eval"))
    curve = run(f"--ckpt={copy}", "--watch", "--crops=1", f"--json={tmp_path / 'w.json'}")
    assert [results["step"] for results in curve] == [2, 4, 6, 8]
    assert json.loads((tmp_path / "w.json").read_text()) == {"curve": curve}
    for results in curve:
        path = copy / f"eval-{results['step']:08d}-val-1.json"
        assert json.loads(path.read_text()) == results
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    top1 = {line["step"]: line["accuracy/top1"] for line in lines if line["split"] == "watch"}
    assert top1 == {results["step"]: results["top1"] for results in curve}
    assert read_events(copy / "watch")["accuracy/top1"] == pytest.approx(top1)
    assert sorted(os.listdir(copy / "eval")) == event_files  # TensorBoard reads the newest file
    alone = run(f"--ckpt={copy / 'step-00000004'}", "--crops=1")
    assert curve[1]["nll"] == pytest.approx(alone["nll"], abs=1e-6)


def test_watch_run_with_ema(tiny_folder, tmp_path):
    """Each step has the metrics of averaged and raw weights, as in a separate evaluation."""
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", f"--checkpoint_dir={tmp_path}"]
    words += ["--batch_size=8", "--crops=1", "--steps=4", "--save_every=2", "--image_size=32"]
    words += ["--eval_every=2"]
    train.run(parse(*words, "--ema=0.9", "--learning_rate=3", "--run_name=ema"))
    curve = run(f"--ckpt={tmp_path / 'ema'}", "--watch", "--crops=1")
    assert [results["step"] for results in curve] == [2, 4]
    for results in curve:
        alone = run(f"--ckpt={tmp_path / 'ema' / 'step-{step:08d}'.format(**results)}", "--crops=1")
        assert results["top1_raw"] == alone["top1_raw"]
        assert results["nll"] == pytest.approx(alone["nll"], abs=1e-6)
    copy = shutil.copytree(tmp_path / "ema", tmp_path / "copy")
    # Averaged and raw weights are both read before the first evaluation.
    with pruning_during_evaluation(tmp_path / "ema"):
        assert run(f"--ckpt={tmp_path / 'ema'}", "--crops=1") == alone
    # --watch reads the raw weights later.
    shutil.rmtree(copy / "step-00000002")
    with pruning_during_evaluation(copy):
        (pruned,) = run(f"--ckpt={copy}", "--watch", "--crops=1")
    assert "top1_raw" not in pruned and pruned["nll"] == curve[1]["nll"]


def test_watch_run_in_training(runs, tmp_path, monkeypatch):
    """Step 4 is damaged, step 6 is pruned before it is read, and step 8 completes the run."""
    source, target = runs / "a", tmp_path / "a"
    arrivals = iter(["config.json", "step-00000002", "step-00000004", "step-00000006", None])

    def arrive(_):
        name = next(arrivals)
        if name == "config.json":
            target.mkdir()
            shutil.copy(source / name, target / name)
        elif name:
            shutil.copytree(source / name, target / name)
        else:
            shutil.copytree(source / "step-00000008", target / "step-00000008")
        if name == "step-00000004":
            (target / name / "manifest.json").write_text("{}")

    monkeypatch.setattr(time, "sleep", arrive)
    verify = checkpoint.verify

    def verify_and_prune(folder):
        manifest = verify(folder)
        if checkpoint.parse_step(folder) == 6:
            shutil.rmtree(folder)
        return manifest

    monkeypatch.setattr(checkpoint, "verify", verify_and_prune)
    curve = run(f"--ckpt={target}", "--watch", "--crops=1")
    assert [results["step"] for results in curve] == [2, 8]
    assert next(arrivals, "no more") == "no more"


def test_watch_waits_until_damaged_last_checkpoint_is_rewritten(runs, tmp_path, monkeypatch):
    copy = shutil.copytree(runs / "a", tmp_path / "a")
    (copy / "step-00000008/manifest.json").write_text("{}")

    def rewrite(_):
        shutil.rmtree(copy / "step-00000008")
        shutil.copytree(runs / "a/step-00000008", copy / "step-00000008")

    monkeypatch.setattr(time, "sleep", rewrite)
    curve = run(f"--ckpt={copy}", "--watch", "--crops=1")
    assert [results["step"] for results in curve] == [2, 4, 6, 8]


def test_watch_refuses_run_that_is_started_over(runs, tmp_path, monkeypatch):
    """The new run reaches the same step numbers, which would count as evaluated."""
    copy = shutil.copytree(runs / "a", tmp_path / "a")
    shutil.rmtree(copy / "step-00000008")

    def start_over(_):
        for step in ("step-00000004", "step-00000006"):
            shutil.rmtree(copy / step, ignore_errors=True)

    monkeypatch.setattr(time, "sleep", start_over)
    with pytest.raises(UsageError, match="the run was started over; run --watch again"):
        run(f"--ckpt={copy}", "--watch", "--crops=1")


def test_watch_ends_after_watch_patience(runs, tmp_path, monkeypatch):
    copy = shutil.copytree(runs / "a", tmp_path / "a")
    shutil.rmtree(copy / "step-00000008")
    sleeps = []
    monkeypatch.setattr(time, "sleep", sleeps.append)
    curve = run(f"--ckpt={copy}", "--watch", "--crops=1", "--watch_patience=0.001")
    assert [results["step"] for results in curve] == [2, 4, 6] and sleeps
    with pytest.raises(UsageError, match="--watch_patience"):
        run(f"--ckpt={tmp_path / 'nowhere'}", "--watch", "--watch_patience=0.001")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--ckpt=A --logits=x.npz", "--ckpt with --logits"),
        ("--logits=x.npz --save_logits=y.npz", "--save_logits with --logits"),
        ("--logits=x.npz", "--logits=x.npz: there is no such file"),
        ("--ckpt=A,B --members=3", "--members=3: .* 1 to 2"),
        ("--ckpt=A,B --members=1,1", "--members=1,1"),
        ("--ckpt=A,B --members=one", "--members=one"),
        ("--logits=x.npz --data_dir=x", "--data_dir with --logits"),
        ("--ckpt=A --watch --real_labels=x.json", "val split of folder"),
        ("--ckpt=A,B --watch", "--watch needs the folder of one run"),
        ("--ckpt=A/step-00000002 --watch", "--watch needs the folder of one run"),
        ("--ckpt=A/best --watch", "--watch needs the folder of one run"),
        ("--ckpt=A --watch --test_size=32", "--test_size with --watch"),
        ("--ckpt=A --test_size=32,40 --save_logits=y.npz", "--save_logits with --test_size"),
        ("--ckpt=A --test_size=16", "--image_size=16"),
        ("--ckpt=A --real_labels=x.json", "val split of folder"),
        ("--ckpt=A,OTHER", "class 2 is zebra, but stripes in"),
        ("--ckpt=A,FEWER", "has 2 classes, but .* has 3: only one of them has 'stripes'"),
    ],
)
def test_conflicting_flags_and_models_are_refused(runs, tmp_path, words, message):
    for name, classes in (("OTHER", ["disc", "grid", "zebra"]), ("FEWER", ["disc", "grid"])):
        if name in words:
            shutil.copytree(runs / "b", tmp_path / name)
            record = json.loads((tmp_path / name / "config.json").read_text())
            (tmp_path / name / "config.json").write_text(
                json.dumps({**record, "class_names": classes})
            )
    words = words.replace("OTHER", str(tmp_path / "OTHER"))
    words = words.replace("FEWER", str(tmp_path / "FEWER"))
    words = words.replace("=A", f"={runs / 'a'}").replace(",B", f",{runs / 'b'}")
    with pytest.raises(UsageError, match=message):
        run(*words.split())


def test_test_sets_in_one_table(runs, tiny_folder, tmp_path, capsys):
    """The folder val is a test set like ImageNet-R; links make ImageNet-C of it."""
    val = tiny_folder / "val"
    names = sorted(path.name for path in val.iterdir())
    for severity in "12345":
        (tmp_path / "c/noise/fog").mkdir(parents=True, exist_ok=True)
        (tmp_path / "c/noise/fog" / severity).symlink_to(val)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / names[1]).symlink_to(val / names[1])
    sets = f"--test_sets={val},{tmp_path / 'c'},{tmp_path / 'part'}"
    rows = run(f"--ckpt={runs / 'a'}", sets, "--crops=1", f"--json={tmp_path / 'o.json'}")
    plain = run(f"--ckpt={runs / 'a'}", "--crops=1")
    assert json.loads((tmp_path / "o.json").read_text()) == {"test_sets": rows}
    fog = [f"fog {severity}" for severity in "12345"]
    assert [row["name"] for row in rows] == ["val", *fog, "fog, mean of 5", "part"]
    for row in rows[:7]:
        assert row["top1"] == pytest.approx(plain["top1"])
        assert row["top1_low"] == pytest.approx(plain["top1_low"])
    assert [row["num_examples"] for row in rows[:2]] == [plain["num_examples"]] * 2
    assert [row["is_subset"] for row in (rows[0], rows[-1])] == [False, True]
    assert (rows[-1]["num_present_classes"], rows[-1]["present_top1"]) == (1, 1.0)
    table = capsys.readouterr().out
    assert "fog, mean of 5" in table and "among only the classes of the test set" in table
    with pytest.raises(UsageError, match="--data_dir with --test_sets"):
        run(f"--ckpt={runs / 'a'}", sets, f"--data_dir={val}")
    with pytest.raises(UsageError, match=r"--test_sets=.*nowhere: there is no such folder"):
        run(f"--ckpt={runs / 'a'}", f"--test_sets={tmp_path / 'nowhere'}")


def test_test_sets_are_read_instead_of_the_lists_of_a_run(runs, tiny_folder, tmp_path):
    """The lists name files by absolute paths. Severities of two folders are two means."""
    shutil.copytree(runs / "a", tmp_path / "a")
    path = tmp_path / "a/config.json"
    record = json.loads(path.read_text())
    (tmp_path / "val.txt").write_text(f"{tiny_folder}/val/disc/00.jpg 0\n")
    lists = {f"{split}_list": str(tmp_path / "val.txt") for split in ("train", "val")}
    record["config"]["data"] |= {"dataset": "lists", "data_dir": "", **lists}
    path.write_text(json.dumps(record))
    for name in ("c", "c64"):
        for severity in "12":
            (tmp_path / name / "fog").mkdir(parents=True, exist_ok=True)
            (tmp_path / name / "fog" / severity).symlink_to(tiny_folder / "val")
    sets = f"--test_sets={tmp_path / 'c'},{tmp_path / 'c64'}"
    rows = run(f"--ckpt={tmp_path / 'a'}", sets, "--crops=1", "--top_k=2")
    assert [row.get("num_examples", 11) for row in rows[:-1]] == [11] * 6
    means = [row for row in rows if "num_severities" in row]
    assert [row["num_severities"] for row in means] == [2, 2]
    assert rows[0]["top2"] >= rows[0]["top1"]
