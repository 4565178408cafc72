"""End-to-end tests of main.py: train, eval and predict, and one-line errors for mistakes."""

import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import typing
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest

import main
from input_pipeline.decoding import decode
from loops.checkpointing import checkpoint, restore, run_folder
from loops.config import resolve
from loops.config.config import Config, all_flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
TRAIN = "--mode=train --model=resnetv2_50 --mixed_precision"


def start(*words):
    """Runs main.py as a shell does, from the repository root: `shapes` is drawn only once."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "main.py", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def read_metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


class TrainedRun:
    """The process and the run folder of a short training."""

    def __init__(self, checkpoint_dir):
        # A sixteenth of the pixels, because ten crops of 500 images take most of the time.
        words = [*TRAIN.split(), "--steps=6", "--image_size=32"]
        words.append(f"--checkpoint_dir={checkpoint_dir}")
        self.process = start(*words)
        assert self.process.returncode == 0, self.process.stderr
        self.checkpoint_dir = checkpoint_dir
        (self.run,) = checkpoint_dir.iterdir()
        self.results = json.loads((self.run / "eval-00000006-val-10.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return TrainedRun(tmp_path_factory.mktemp("checkpoints"))


def test_every_mode_is_callable():
    for mode in typing.get_args(typing.get_type_hints(Config)["mode"]):
        assert callable(main.mode_function(mode)), mode


def test_train_creates_run_folder(trained):
    assert re.fullmatch(r"resnetv2_50-shapes-\d{8}-\d{6}", trained.run.name)
    names = {path.name for path in trained.run.iterdir()}
    assert names == {
        "config.json",
        "step-00000006",
        "train",
        "eval",
        "loss_trace.jsonl",
        "metrics.jsonl",
        "eval-00000006-val-10.json",
        "log.txt",
    }
    assert checkpoint.verify(trained.run / "step-00000006")["step"] == 6
    record = run_folder.read_record(trained.run)
    assert (record.config.net.model, record.config.length.steps) == ("resnetv2_50", 6)
    assert record.config.precision.mixed_precision is True
    assert record.class_names[:2] == ("arrow", "circle")


def test_train_prints_summary_and_log(trained):
    stdout, stderr = trained.process.stdout, trained.process.stderr
    assert "Traceback" not in stderr and "\r" not in stderr
    assert str(trained.run) in stdout.splitlines()[0]
    assert "top-1 accuracy" in stdout and "top-5 accuracy" in stdout and "500" in stdout
    log = (trained.run / "log.txt").read_text()
    assert "train step 6: " in log and "train step" not in stderr
    (row,) = re.findall(r"^\S+ +[0-9.]+ +6 .* best$", stderr, re.MULTILINE)
    assert row in log
    # TensorFlow's startup notices do not appear.
    assert "oneDNN" not in stderr and "cuda" not in stderr.lower()


def test_train_writes_tensorboard_events(trained, read_events):
    events = read_events(trained.run / "train")
    (grid,) = events.pop("images/augmented")[0]
    image = cv2.imdecode(np.frombuffer(grid, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[1] == 8 * 128 and image.std() > 10
    assert set(events) == {
        "accuracy/top1",
        "accuracy/top5",
        "loss/cross_entropy",
        "loss/total",
        "optim/learning_rate",
        "optim/loss_scale",
        "optim/skipped_steps",
        "progress/epoch",
        "speed/data_wait",
        "speed/images_per_second",
        "system/peak_gigabytes",
        "system/replaced_images",
        "system/skips_in_a_row",
        "system/time/evaluation",
        "system/time/total",
    }
    assert {step for by_step in events.values() for step in by_step} == {6}
    values = {tag: by_step[6] for tag, by_step in events.items()}
    assert 0 < values["loss/cross_entropy"] < values["loss/total"] < 20
    assert 0 <= values["accuracy/top1"] <= values["accuracy/top5"] <= 1
    assert values["speed/images_per_second"] > 0 and 0 <= values["speed/data_wait"] <= 1
    batch_size = run_folder.read_record(trained.run).config.data.batch_size
    assert values["progress/epoch"] == pytest.approx(6 * batch_size / 2000)


def test_eval_curves_share_tags_with_train(trained, read_events):
    events = read_events(trained.run / "eval")
    for tag in ("loss/total", "loss/cross_entropy", "accuracy/top1", "accuracy/top5"):
        assert list(events[tag]) == [6]
    assert events["accuracy/top1_10_crops"][6] == pytest.approx(trained.results["top1"])
    # TensorBoard sorts by tag: the first chart is a curve of an accuracy, not a single dot.
    assert min(events) == "accuracy/top1"
    assert events["loss/cross_entropy_10_crops"][6] == pytest.approx(trained.results["nll"])


def test_metrics_file_equals_tensorboard_events(trained, read_events):
    lines = read_metrics(trained.run)
    assert {(line["split"], line["step"]) for line in lines} == {("train", 6), ("eval", 6)}
    for split in ("train", "eval"):
        events = read_events(trained.run / split)
        values = {k: v for line in lines if line["split"] == split for k, v in line.items()}
        del values["split"], values["step"]
        assert set(values) == set(events) - {"images/augmented", "first_filters"}
        for tag, value in values.items():
            assert events[tag][6] == pytest.approx(value, rel=1e-6)


def test_train_writes_evaluation_results(trained):
    results = trained.results
    assert results["num_examples"] == 500
    assert (results["crops"], results["split"], results["dataset"]) == (10, "val", "shapes")
    assert (results["step"], results["image_size"]) == (6, 32)
    for k in (1, 5):
        top, low, high = (results[f"top{k}{end}"] for end in ("", "_low", "_high"))
        assert low <= top <= high and results[f"top{k}_error"] == pytest.approx(1 - top)
        assert float(top * 500).is_integer()


def test_eval_reproduces_results_of_training(trained, read_events):
    """A new process takes the net, the data and the precision from the run folder."""
    path = trained.run / "eval-00000006-val-10.json"
    path.unlink()
    process = start("--mode=eval", f"--ckpt={trained.run}")
    assert process.returncode == 0, process.stderr
    results = json.loads(path.read_text())
    # --mode=eval adds these to the results.
    extra = {"per_class", "paired", "reliability", "mistakes", "center_crop"}
    assert results.keys() == trained.results.keys() | extra
    for key, value in trained.results.items():
        expected = pytest.approx(value, rel=1e-4) if isinstance(value, float) else value
        assert results[key] == expected, key
    summary = trained.process.stdout.splitlines()[1:]
    shown = process.stdout.splitlines()[1:]
    first = [line.split()[0] for line in shown].index("weakest")
    del shown[first : first + 3]  # from per_class
    assert shown[: len(summary)] == summary
    # The events extend the curves of the training: same tags, same step.
    events = read_events(trained.run / "eval")
    assert list(events["accuracy/top1_10_crops"]) == [6]
    assert len(list((trained.run / "eval").iterdir())) == 2
    assert len(list((trained.run / "train").iterdir())) == 1


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def tensorboard(logdir):
    """Runs TensorBoard on a folder; yields a function that fetches one of its JSON pages."""
    port = free_port()
    program = pathlib.Path(sys.executable).with_name("tensorboard")
    command = [program, "--logdir", logdir, "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        # No proxy: it could not reach the loopback interface.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def fetch(page):
            with opener.open(f"http://127.0.0.1:{port}/data/{page}", timeout=20) as response:
                return json.load(response)

        try:
            yield fetch
        finally:
            process.terminate()
            process.stderr.close()
            process.wait(timeout=30)


@pytest.mark.faults
def test_tensorboard_shows_train_and_eval(trained):
    runs = {f"{trained.run.name}/{split}" for split in ("train", "eval")}
    shown_runs, tags, images = [], {}, {}
    with tensorboard(trained.checkpoint_dir) as fetch:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                shown_runs = fetch("runs")
                tags, images = fetch("plugin/scalars/tags"), fetch("plugin/images/tags")
                if set(shown_runs) == runs == set(tags) and images:
                    break
            time.sleep(0.5)
    assert set(shown_runs) == runs
    shared = set.intersection(*(set(tags[run]) for run in runs))
    assert {"loss/total", "accuracy/top1", "accuracy/top5"} <= shared
    image_tags = {run: set(by_tag) for run, by_tag in images.items() if by_tag}
    assert image_tags.pop(f"{trained.run.name}/train") == {"images/augmented"}
    # Images of --mode=eval, if that test has run before this one.
    expected = {f"{name}_10_crops" for name in ("reliability", "confusion", "mistakes")}
    images_of_training = image_tags.pop(f"{trained.run.name}/eval") - expected
    assert images_of_training == {"first_filters"}
    assert all(names == expected for names in image_tags.values())


def test_batch_size_not_divisible_by_replicas_is_refused(tiny_folder, tmp_path):
    """Runs in a separate process, because a process has only one strategy on several devices."""
    process = start(
        "--mode=train",
        "--model=resnet_18",
        "--dataset=folder",
        f"--data_dir={tiny_folder}",
        f"--checkpoint_dir={tmp_path}",
        "--image_size=32",
        "--batch_size=7",
        "--cpu_devices=2",  # alone, it means two replicas
        "--strategy=mirrored",
    )
    assert process.returncode == 2, process.stderr
    assert_one_line_error(process.stderr, "--batch_size=7", "2 replicas")
    assert process.stdout == ""
    assert list(tmp_path.iterdir()) == []


def assert_one_line_error(stderr, *words):
    """Asserts that the log ends with its only error line, which contains all `words`."""
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, stderr
    assert stderr.rstrip().splitlines()[-1] == errors[0]
    assert "Traceback" not in stderr
    assert [word for word in words if word not in errors[0]] == [], errors[0]


def write_lists(folder):
    """Writes valid and invalid lists of the images `a.jpg`, `b.jpg` and `c d.jpg`."""
    good = "a.jpg 0\nb.jpg 1\nc d.jpg 2\n"
    lists = {
        "good": good,
        "empty": "",
        "blank": "\n\n",
        "label3": "a.jpg 0\nb.jpg 3\n",
        "negative": "a.jpg 0\nb.jpg -1\n",
        "text": f"{good}a.jpg cat\n",
        "no_label": "a.jpg 0\nb.jpg\n",
        "gap": "a.jpg 0\n\nb.jpg 1\n",
        "table": "0 n1 one\n1 n2 two\n2 n3 three\n",
        "bad_table": "0 n1 one\n2 n3 three\n",
    }
    for name, text in lists.items():
        (folder / f"{name}.txt").write_text(text)


def save_run(run, data_dir, weights=None, names=("disc", "grid", "stripes")):
    """Makes a run folder with one checkpoint, like a ResNetV2-18 trained for 4 steps."""
    config = Config().replace(
        model="resnetv2_18", dataset="folder", data_dir=str(data_dir), image_size=32
    )
    config = resolve.resolve(config)
    run.mkdir()
    run_folder.write_record(run, run_folder.Record(config, names, {}))
    if weights is not None:
        checkpoint.save(run, 4, {"model": weights})


@pytest.fixture(scope="module")
def folders(tiny_folder, tmp_path_factory, one_device):
    """Valid and damaged folders by name, for the table below. Tests must not change them."""
    root = tmp_path_factory.mktemp("folders")
    write_lists(root)
    for name in ("no_val", "odd_class", "broken", "no_images"):
        shutil.copytree(tiny_folder, root / name)
    shutil.rmtree(root / "no_val" / "val")
    (root / "odd_class" / "val" / "zebra").mkdir()
    broken = root / "broken" / "val" / "grid" / "02.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    for image in (root / "no_images" / "train").rglob("*.jpg"):
        image.rename(image.with_suffix(".txt"))
    net = Config().replace(**{"model": "resnetv2_18"}).net
    weights = restore.variables_by_path(restore.build_model(one_device, net, 3, "float32"))
    save_run(root / "run", tiny_folder, weights)
    save_run(root / "unsaved", tiny_folder)
    some_weights = dict(list(weights.items())[:5])
    save_run(root / "other_net", tiny_folder, some_weights)
    save_run(root / "other_classes", tiny_folder, some_weights, ("disc", "grid"))
    (root / "notes").mkdir()
    (root / "notes" / "todo.txt").write_text("not a run")
    return {"root": root, "tiny": tiny_folder}


FOLDER = "--mode=train --dataset=folder --image_size=32 --model=resnet_18"
LISTS = "--mode=train --dataset=lists --image_size=32 --model=resnet_18 --data_dir={root}"
REPRO = "--mode=repro --ckpt={root}"
EVAL = "--mode=eval --crops=1 --ckpt={root}/run"
PREDICT = "--mode=predict --crops=1 --ckpt={root}/run"
# A command, its exit code, and words that its error line must contain.
MISTAKES = [
    ("--mode=train --model=resnet50", 2, ["--model=resnet50", "resnet_50"]),
    ("--mode=trian", 2, ["--mode=trian", "train"]),
    ("--modle=resnet_50", 2, ["modle"]),
    ("train", 2, ["'train'"]),
    ("--steps=ten", 2, ["steps", "ten"]),
    ("--epochs=2 --steps=10", 2, ["--epochs", "--steps"]),
    ("--image_size=31 --model=resnet_18", 2, ["--image_size=31", "resnet_18", "32"]),
    ("--run_name=a/b", 2, ["--run_name=a/b"]),
    (FOLDER, 2, ["--data_dir"]),
    ("--mode=train --data_dir={root}/notes", 2, ["{root}/notes", "--dataset=lists"]),
    (f"{FOLDER} --data_dir={{root}}/nowhere", 2, ["{root}/nowhere", "--data_dir"]),
    (f"{FOLDER} --data_dir={{root}}/no_val", 2, ["{root}/no_val/val"]),
    (f"{FOLDER} --data_dir={{root}}/odd_class", 3, ["{root}/odd_class/val", "zebra"]),
    (f"{FOLDER} --data_dir={{root}}/no_images", 3, ["{root}/no_images/train"]),
    (f"{FOLDER} --data_dir={{tiny}} --run_name=notes", 2, ["--run_name=notes", "{root}/notes"]),
    ("--mode=repro", 2, ["--ckpt is missing"]),
    (f"{REPRO}/nowhere", 2, ["{root}/nowhere"]),
    (f"{REPRO}/run", 2, ["{root}/run/loss_trace.jsonl"]),
    (LISTS, 2, ["--train_list"]),
    (f"{LISTS} --train_list={{root}}/nowhere.txt", 2, ["--train_list={root}/nowhere.txt"]),
    (f"{LISTS} --train_list={{root}}/good.txt", 2, ["--val_list"]),
    (f"{LISTS} --train_list={{root}}/empty.txt", 3, ["{root}/empty.txt", "empty"]),
    (f"{LISTS} --train_list={{root}}/text.txt", 3, ["{root}/text.txt", "line 4", "cat"]),
    (f"{LISTS} --train_list={{root}}/no_label.txt", 3, ["{root}/no_label.txt", "line 2"]),
    (f"{LISTS} --train_list={{root}}/negative.txt", 3, ["{root}/negative.txt", "line 2"]),
    (f"{LISTS} --train_list={{root}}/gap.txt", 3, ["{root}/gap.txt", "line 2"]),
    (
        f"{LISTS} --train_list={{root}}/good.txt --val_list={{root}}/blank.txt",
        3,
        ["{root}/blank.txt", "line 1"],
    ),
    (
        f"{LISTS} --train_list={{root}}/good.txt --val_list={{root}}/label3.txt",
        3,
        ["{root}/label3.txt", "line 2", "b.jpg", "label 3", "3 classes"],
    ),
    (
        f"{LISTS} --train_list={{root}}/label3.txt --class_names={{root}}/table.txt",
        3,
        ["{root}/label3.txt", "line 2", "b.jpg", "label 3"],
    ),
    (
        f"{LISTS} --train_list={{root}}/good.txt --class_names={{root}}/bad_table.txt",
        3,
        ["{root}/bad_table.txt", "line 2"],
    ),
    (
        f"{LISTS} --train_list={{root}}/good.txt --class_names={{root}}/nowhere.txt",
        2,
        ["--class_names={root}/nowhere.txt"],
    ),
    (f"{FOLDER} --data_dir={{tiny}} --checkpoint_dir={{root}}/good.txt", 2, ["--checkpoint_dir"]),
    ("--run_name=run --model=resnet_34", 2, ["--model=resnet_34", "resnetv2_18"]),
    ("--run_name=run --batch_size=9", 2, ["--batch_size=9"]),
    ("--mode=eval", 2, ["--ckpt"]),
    ("--mode=eval --ckpt={root}/nowhere", 2, ["--ckpt={root}/nowhere"]),
    ("--mode=eval --ckpt={root}/unsaved", 2, ["--ckpt={root}/unsaved", "saved"]),
    ("--mode=eval --ckpt={root}/notes", 2, ["--ckpt={root}/notes"]),
    ("--mode=eval --ckpt={root}/other_net --crops=1", 2, ["other_net", "resnetv2_18"]),
    (f"{EVAL} --model=resnet_34", 2, ["--model=resnet_34", "resnetv2_18"]),
    (f"{EVAL} --image_size=16", 2, ["--image_size=16"]),
    (f"{EVAL} --top_k=0", 2, ["--top_k=0"]),
    (f"{EVAL} --data_dir={{root}}/nowhere", 2, ["{root}/nowhere"]),
    (f"{EVAL} --data_dir={{root}}/odd_class", 3, ["zebra"]),
    (f"{EVAL} --data_dir={{root}}/broken", 3, ["{root}/broken/val/grid/02.jpg", "decode"]),
    (f"{EVAL} --json={{root}}/nowhere/out.json", 2, ["--json={root}/nowhere/out.json"]),
    ("--mode=train --split=test", 2, ["--split"]),
    ("--mode=train --logits=x.npz", 2, ["--logits"]),
    ("--mode=eval --logits={root}/good.txt", 2, ["--logits={root}/good.txt"]),
    (f"{EVAL} --real_labels={{root}}/good.txt", 2, ["--real_labels", "folder"]),
    ("--mode=average --ckpt={root}/run", 2, ["--ckpt={root}/run", "two or more"]),
    ("--mode=export --ckpt={root}/run", 2, ["--out"]),
    ("--mode=export --ckpt={root}/run --out={root}/run", 2, ["--out={root}/run", "already"]),
    ("--mode=train --ckpt={root}/run", 2, ["--ckpt"]),
    ("--mode=predict --ckpt={root}/run", 2, ["--image"]),
    ("--mode=predict --image={tiny}/val/grid/00.jpg", 2, ["--ckpt"]),
    (f"{PREDICT} --image={{root}}/nowhere.jpg", 2, ["--image", "{root}/nowhere.jpg"]),
    (f"{PREDICT} --image={{root}}/notes", 2, ["--image", "{root}/notes"]),
    (f"{PREDICT} --image={{root}}/broken/val/grid/02.jpg", 3, ["broken/val/grid/02.jpg"]),
    (f"{PREDICT} --image={{root}}/*.jpg", 2, ["{root}/*.jpg", "no image"]),
    (f"{PREDICT} --image=-", 2, ["--image=-", "stdin"]),
    (f"{PREDICT} --image={{tiny}}/val --csv={{root}}/nowhere/o.csv", 2, ["--csv", "nowhere"]),
    (f"{PREDICT},{{root}}/other_classes --image={{tiny}}/val", 2, ["other_classes", "2 classes"]),
    ("--mode=train --report=o.html", 2, ["--report"]),
    (f"{EVAL} --image=a.jpg", 2, ["--image", "--mode=eval", "predict"]),
    (f"{PREDICT} --image={{tiny}}/val --split=test", 2, ["--split", "--mode=predict", "eval"]),
]


def list_files(root):
    return sorted(map(str, root.rglob("*")))


@pytest.mark.parametrize(("command", "code", "words"), MISTAKES)
def test_mistake_is_a_one_line_error(folders, capfd, monkeypatch, command, code, words):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    before = list_files(folders["root"])
    arguments = [word.format(**folders) for word in command.split()]
    mode = next((w[7:] for w in arguments if w.startswith("--mode=")), "train")
    if "--checkpoint_dir" not in command and mode in all_flags()["checkpoint_dir"].modes:
        arguments.append(f"--checkpoint_dir={folders['root']}")
    assert main.main(["main.py", *arguments]) == code
    captured = capfd.readouterr()
    assert_one_line_error(captured.err, *(word.format(**folders) for word in words))
    assert captured.out == ""
    assert list_files(folders["root"]) == before


def test_eval_of_table_run_works_without_mistake(folders, capfd):
    """The commands of the table fail because of their mistakes, not because of the run."""
    copy = shutil.copytree(folders["root"] / "run", folders["root"] / "copy")
    try:
        words = ["--mode=eval", "--crops=1", f"--ckpt={copy}", f"--json={copy}/also.json"]
        assert main.main(["main.py", *words]) == 0
        results = json.loads((copy / "eval-00000004-val-1.json").read_text())
        assert json.loads((copy / "also.json").read_text()) == results
        assert (results["num_examples"], results["step"]) == (11, 4)
        assert "top-1 accuracy" in capfd.readouterr().out
    finally:
        shutil.rmtree(copy)


def test_locked_run_is_refused_and_class_without_val_images_is_a_warning(
    folders, tiny_folder, tmp_path, capfd, caplog
):
    folder = shutil.copytree(tiny_folder, tmp_path / "data")
    shutil.rmtree(folder / "val" / "grid")
    run = pathlib.Path(shutil.copytree(folders["root"] / "run", tmp_path / "run"))
    words = [f"--data_dir={folder}", f"--checkpoint_dir={tmp_path}", "--run_name=run"]
    with run_folder.lock(run):
        assert main.main(["main.py", "--mode=train", *words]) == 2
    assert_one_line_error(capfd.readouterr().err, "--run_name=run", "another process")
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    (warning,) = [w for w in warnings if "grid" in w]
    assert "val" in warning
    assert checkpoint.verify(run / "step-00000004")


def test_truncated_image_of_table_does_not_decode(folders):
    """Its first bytes are still those of a JPEG file."""
    data = (folders["root"] / "broken" / "val" / "grid" / "02.jpg").read_bytes()
    assert data[:3] == b"\xff\xd8\xff"
    with pytest.raises(Exception, match=r"(?i)jpeg|input"):
        decode.decode_image(data)
