"""`--mode=eval` in all its forms on two tiny runs, of different nets and sizes."""

import json
import os
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf

from input_pipeline.errors import UsageError
from loops import evaluate, evaluator, train
from loops.checkpointing import checkpoint, run_folder
from loops.evaluation import continuous, eval_results
from loops.metrics import calibration
from loops.train_failures import WorkerLost
from tests.command_line import parse
from tests.loops.tiny_nets import two_convolutions

pytestmark = pytest.mark.usefixtures("tiny_net")


@pytest.fixture(scope="module")
def runs(tiny_folder, tmp_path_factory):
    """The folder of runs `a` (four checkpoints, 32 px) and `b` (40 px, bicubic)."""
    root = tmp_path_factory.mktemp("runs")
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", f"--checkpoint_dir={root}"]
    words += ["--batch_size=8", "--crops=1", "--save_every=2", "--keep=9", "--learning_rate=1"]
    with two_convolutions():
        train.run(*parse(*words, "--image_size=32", "--steps=8", "--run_name=a"))
        own = ["--image_size=40", "--steps=4", "--run_name=b", "--interpolation=bicubic"]
        train.run(*parse(*words, *own, "--seed=3"))
    return root


def run(*words):
    return evaluate.run(*parse("--mode=eval", *words))


def test_one_pass_and_its_logits_say_the_same(runs, tmp_path, capsys):
    """Of the ensemble, of its parts, and of the centre crop among the ten."""
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
    parts = [run(f"--logits={tmp_path / 'ab.npz'}", "--members=2")]
    parts.append(run(f"--logits={tmp_path / 'b.npz'}"))
    for part in parts:
        part.pop("logits")
        assert part == alone
    keys = set(alone["center_crop"])
    assert {k: direct["members"][1][k] for k in keys} == {k: alone[k] for k in keys}
    center = run(f"--logits={tmp_path / 'b.npz'}", "--crops=1")
    assert {k: center[k] for k in keys} == alone["center_crop"]
    directly = run(f"--ckpt={runs / 'b'}", "--crops=1")
    assert directly["nll"] == pytest.approx(center["nll"], abs=1e-5)
    assert directly["top1"] == center["top1"]


def test_a_run_folder_that_takes_no_file_costs_a_warning(runs, tmp_path, capsys, caplog):
    """As on a full disk or a read-only share; folders in the place of files fail for root, too."""
    copy = shutil.copytree(runs / "b", tmp_path / "b")
    (copy / "eval-00000004-val-1.json").unlink()
    (copy / "eval-00000004-val-1.json" / "taken").mkdir(parents=True)
    (copy / "metrics.jsonl").unlink()
    (copy / "metrics.jsonl").mkdir()
    results = run(f"--ckpt={copy}", "--crops=1", f"--json={tmp_path / 'o.json'}")
    assert json.loads((tmp_path / "o.json").read_text()) == results
    assert f"{results['top1']:.2%}" in capsys.readouterr().out
    for name in ("eval-00000004-val-1.json", "eval"):
        assert f"{copy / name} is not written: Is a directory" in caplog.text
    assert not list(copy.glob(".eval*"))


def test_ensemble_is_the_mean_of_what_each_model_says_of_its_own_crops(runs, tmp_path):
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


def test_sweep_of_sizes(runs, tmp_path, capsys):
    every = run(
        f"--ckpt={runs / 'a'}", "--crops=1", "--test_size=32,40", f"--json={tmp_path / 's.json'}"
    )
    assert [results["image_size"] for results in every] == [32, 40]
    assert json.loads((tmp_path / "s.json").read_text()) == {"sweep": every}
    for results, name in zip(every, ("", "-40px"), strict=True):
        path = runs / f"a/eval-00000008-val-1{name}.json"
        assert json.loads(path.read_text()) == results
    assert "40 px" in capsys.readouterr().out


def test_pictures_and_curves(runs, read_events):
    run(f"--ckpt={runs / 'a/step-00000002'}")
    events = read_events(runs / "a" / "eval")
    for tag in ("reliability_10_crops", "confusion_10_crops", "mistakes_10_crops"):
        assert len(events[tag][2]) == 1
    results = json.loads((runs / "a/eval-00000002-val-10.json").read_text())
    assert events["calibration_10_crops/ece"][2] == pytest.approx(results["ece"])
    wrong = round(results["top1_error"] * results["num_examples"])
    assert len(results["mistakes"]) == wrong > 0
    record = run_folder.read_record(runs / "a")
    assert results["fingerprint"] == record.dataset["val"]["fingerprint"] != ""


def test_pictures_of_another_split_have_tags_of_their_own(monkeypatch):
    tags = []
    sink = types.SimpleNamespace(image=lambda curve, step, tag, picture: tags.append(tag))
    labels, probs = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    split = types.SimpleNamespace(labels=labels, class_names=("a", "b"))
    reliability = calibration.reliability(probs, labels)
    results = {"reliability": reliability, "mistakes": [], "step": 3}
    for name in ("val", "test"):
        of_split = results | {"crops": 10, "split": name}
        eval_results.log_images(sink, "eval", of_split, probs, split, None)
    assert tags == [
        *("reliability_10_crops", "confusion_10_crops"),
        *("reliability_10_crops_test", "confusion_10_crops_test"),
    ]
    tags.clear()  # a confusion matrix that nobody could see is not drawn
    monkeypatch.setattr(eval_results, "_MAX_CLASSES_DRAWN", 1)
    eval_results.log_images(sink, "eval", of_split, probs, split, None)
    assert tags == ["reliability_10_crops_test"]


def prune_as_it_is_evaluated(monkeypatch, run_dir, module=evaluate):
    """The newest checkpoint of a run goes while the images are looked at."""
    predict = module.predictions

    def pruned(*arguments):
        shutil.rmtree(checkpoint.find_newest_intact(run_dir))
        return predict(*arguments)

    monkeypatch.setattr(module, "predict_probabilities", pruned)


def test_a_checkpoint_that_training_removes_meanwhile(runs, tmp_path, monkeypatch):
    copies = [shutil.copytree(runs / name, tmp_path / name) for name in ("a", "b")]
    prune_as_it_is_evaluated(monkeypatch, copies[1])
    with pytest.raises(UsageError, match=r"b/step-00000004: was removed before it was read"):
        run(f"--ckpt={copies[0]},{copies[1]}", "--crops=1")


def test_an_evaluation_beside_the_training(runs, tmp_path, read_events):
    """Its curve is one of its own: of two files TensorBoard would read the newer one alone."""
    copy = shutil.copytree(runs / "b", tmp_path / "b")
    of_training = sorted(os.listdir(copy / "eval"))
    with run_folder.lock(copy):
        run(f"--ckpt={copy}")
    assert sorted(os.listdir(copy / "eval")) == of_training
    assert len(read_events(copy / "watch")["confusion_10_crops"]) == 1
    run(f"--ckpt={copy}")
    assert len(os.listdir(copy / "eval")) == len(of_training) + 1


def test_other_crops_have_files_of_their_own(runs, tmp_path):
    copy = shutil.copytree(runs / "b", tmp_path / "b")
    own = run(f"--ckpt={copy}", "--crops=1")
    words = ["--crop_fraction=1", "--interpolation=bilinear", "--crops=1"]
    other = run(f"--ckpt={copy}", *words)
    assert json.loads((copy / "eval-00000004-val-1.json").read_text()) == own
    path = copy / "eval-00000004-val-1-crop1-bilinear.json"
    assert json.loads(path.read_text()) == other
    assert [other[k] for k in ("crop_fraction", "interpolation")] == [1.0, "bilinear"]
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["accuracy_crop1_bilinear/top1"] == other["top1"]


def test_a_worker_that_is_lost_meanwhile(runs, monkeypatch):
    def lost(*_):
        raise tf.errors.UnavailableError(None, None, "peer")

    monkeypatch.setattr(evaluator.Evaluator, "__call__", lost)
    monkeypatch.setattr(evaluate, "predict_probabilities", lost)
    with pytest.raises(WorkerLost, match=r"gone \(peer\); start all of them again$"):
        run(f"--ckpt={runs / 'a'}")


def test_watching_a_run_that_is_done(runs, tmp_path, read_events):
    copy = shutil.copytree(runs / "a", tmp_path / "a")
    of_training = sorted(os.listdir(copy / "eval"))
    every = run(f"--ckpt={copy}", "--watch", "--crops=1", f"--json={tmp_path / 'w.json'}")
    assert [results["step"] for results in every] == [2, 4, 6, 8]
    assert json.loads((tmp_path / "w.json").read_text()) == {"curve": every}
    for results in every:
        path = copy / f"eval-{results['step']:08d}-val-1.json"
        assert json.loads(path.read_text()) == results
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    curve = {x["step"]: x["accuracy/top1"] for x in lines if x["split"] == "watch"}
    assert curve == {results["step"]: results["top1"] for results in every}
    assert read_events(copy / "watch")["accuracy/top1"] == pytest.approx(curve)
    assert sorted(os.listdir(copy / "eval")) == of_training  # TensorBoard reads the newest file
    alone = run(f"--ckpt={copy / 'step-00000004'}", "--crops=1")
    assert every[1]["nll"] == pytest.approx(alone["nll"], abs=1e-6)


def test_watching_a_run_that_keeps_an_average(tiny_folder, tmp_path, monkeypatch):
    """Both figures at every step, as of an evaluation of that step alone."""
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", f"--checkpoint_dir={tmp_path}"]
    words += ["--batch_size=8", "--crops=1", "--steps=4", "--save_every=2", "--image_size=32"]
    train.run(*parse(*words, "--ema=0.9", "--learning_rate=3", "--run_name=ema"))
    every = run(f"--ckpt={tmp_path / 'ema'}", "--watch", "--crops=1")
    assert [results["step"] for results in every] == [2, 4]
    for results in every:
        alone = run(f"--ckpt={tmp_path / 'ema' / 'step-{step:08d}'.format(**results)}", "--crops=1")
        assert results["top1_raw"] == alone["top1_raw"]
        assert results["nll"] == pytest.approx(alone["nll"], abs=1e-6)
    copy = shutil.copytree(tmp_path / "ema", tmp_path / "copy")
    prune_as_it_is_evaluated(monkeypatch, tmp_path / "ema")  # both kinds of weights are read then
    assert run(f"--ckpt={tmp_path / 'ema'}", "--crops=1") == alone
    shutil.rmtree(copy / "step-00000002")
    prune_as_it_is_evaluated(monkeypatch, copy, continuous)
    (pruned,) = run(f"--ckpt={copy}", "--watch", "--crops=1")
    assert "top1_raw" not in pruned and pruned["nll"] == every[1]["nll"]


def test_watching_a_run_in_training(runs, tmp_path, monkeypatch):
    """Checkpoints come, one is damaged, one is pruned meanwhile, the last ends it."""
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

    monkeypatch.setattr(continuous.time, "sleep", arrive)
    verify = checkpoint.verify

    def verify_and_prune(folder):
        manifest = verify(folder)
        if checkpoint.parse_step(folder) == 6:
            shutil.rmtree(folder)
        return manifest

    monkeypatch.setattr(checkpoint, "verify", verify_and_prune)
    every = run(f"--ckpt={target}", "--watch", "--crops=1")
    assert [results["step"] for results in every] == [2, 8]
    assert next(arrivals, "nothing left") == "nothing left"


def test_a_damaged_last_step_that_training_writes_again(runs, tmp_path, monkeypatch):
    copy = shutil.copytree(runs / "a", tmp_path / "a")
    (copy / "step-00000008/manifest.json").write_text("{}")

    def trained_again(_):
        shutil.rmtree(copy / "step-00000008")
        shutil.copytree(runs / "a/step-00000008", copy / "step-00000008")

    monkeypatch.setattr(continuous.time, "sleep", trained_again)
    every = run(f"--ckpt={copy}", "--watch", "--crops=1")
    assert [results["step"] for results in every] == [2, 4, 6, 8]


def test_a_run_that_is_begun_anew_while_it_is_watched(runs, tmp_path, monkeypatch):
    """Else its steps would pass for those that have been seen, and its end for the old one's."""
    copy = shutil.copytree(runs / "a", tmp_path / "a")
    shutil.rmtree(copy / "step-00000008")

    def begun_anew(_):
        for step in ("step-00000004", "step-00000006"):
            shutil.rmtree(copy / step, ignore_errors=True)

    monkeypatch.setattr(continuous.time, "sleep", begun_anew)
    with pytest.raises(UsageError, match="the run was begun anew; watch it again"):
        run(f"--ckpt={copy}", "--watch", "--crops=1")


def test_a_watcher_gives_up(runs, tmp_path, monkeypatch):
    copy = shutil.copytree(runs / "a", tmp_path / "a")
    shutil.rmtree(copy / "step-00000008")
    slept = []
    monkeypatch.setattr(continuous.time, "sleep", slept.append)
    every = run(f"--ckpt={copy}", "--watch", "--crops=1", "--watch_patience=0.001")
    assert [results["step"] for results in every] == [2, 4, 6] and slept
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
        ("--ckpt=A,OTHER", "class 2 is zebra, and stripes in"),
        ("--ckpt=A,FEWER", "has 2 classes, and .* has 3: 'stripes' is of one alone"),
    ],
)
def test_mistakes(runs, tmp_path, words, message):
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
