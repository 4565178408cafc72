"""Run folders and data folders of strangers: links, types and escape sequences."""

import json
import os
import shutil

import pytest

from input_pipeline.errors import UsageError
from loops import evaluate, train
from loops.checkpointing import checkpoint, run_folder
from loops.monitoring import metric_writer
from loops.runtime import log_format, process
from loops.tools.data import stats, verify
from loops.tools.predict import predict
from tests.command_line import parse, refusal

pytestmark = pytest.mark.usefixtures("tiny_net")


@pytest.fixture
def run(make_run, tiny_folder, tmp_path):
    """A run folder from elsewhere."""
    return make_run(tmp_path / "run", data_dir=str(tiny_folder))


@pytest.fixture
def outside(tmp_path):
    """A folder with a file that must stay as they are."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    yield folder
    assert [path.name for path in folder.iterdir()] == ["precious"]
    assert (folder / "precious").read_text() == "precious"


def test_evaluation_writes_nothing_through_links(run, outside, caplog):
    results_file = run / "eval-00000004-val-1.json"
    results_file.symlink_to(outside / "precious")
    (run / "eval").symlink_to(outside)
    evaluate.run(parse("--mode=eval", f"--ckpt={run}", "--crops=1"))
    assert not results_file.is_symlink() and json.loads(results_file.read_text())["step"] == 4
    assert "is a link, which is not followed" in caplog.text
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(outside / "precious")
    evaluate.run(parse("--mode=eval", f"--ckpt={run}", "--crops=1"))
    assert "could not write" in caplog.text


def test_figures_are_not_written_through_a_link(run, outside, tiny_folder):
    (run / "explain").symlink_to(outside)
    image = tiny_folder / "val/disc/00.jpg"
    config = parse("--mode=predict", f"--ckpt={run}", f"--image={image}", "--explain", "--crops=1")
    assert "is a link" in refusal(predict.run, config)


@pytest.mark.parametrize("name", ["log.txt", ".lock", "metrics.jsonl"])
def test_training_writes_nothing_through_links(tiny_folder, outside, tmp_path, name):
    words = ["--mode=train", "--dataset=folder", f"--data_dir={tiny_folder}", "--batch_size=8"]
    words += ["--image_size=32", "--steps=1", "--crops=1", f"--checkpoint_dir={tmp_path}"]
    (tmp_path / "trained").mkdir()
    (tmp_path / "trained" / name).symlink_to(outside / "precious")
    if name == "metrics.jsonl":
        with pytest.raises(PermissionError, match="is a link"):
            metric_writer.MetricWriter(tmp_path / "trained")
        return
    with pytest.raises((UsageError, PermissionError)):
        train.run(parse(*words, "--run_name=trained"))


def test_metrics_are_not_added_to_a_linked_step_folder(run, tmp_path):
    step = run / "step-00000004"
    moved = step.rename(tmp_path / "step-00000004")
    step.symlink_to(moved)
    manifest = (moved / "manifest.json").read_bytes()
    with pytest.raises(PermissionError, match="is a link"):
        checkpoint.add_metrics(step, {"top1": 1.0})
    assert (moved / "manifest.json").read_bytes() == manifest


def test_best_in_a_run_folder_is_not_followed(run, make_run, tmp_path):
    make_run(tmp_path / "other")
    (run / "best").symlink_to(tmp_path / "other")
    checkpoint.add_metrics(run / "step-00000004", {"top1": 0.5})
    assert run_folder.find_checkpoint(str(run / "best")) == (run, run / "step-00000004")


@pytest.mark.parametrize("module", [verify, stats])
def test_reports_about_data_are_not_written_through_links(tiny_folder, outside, tmp_path, module):
    folder = tmp_path / "set"
    shutil.copytree(tiny_folder, folder)
    mode = module.__name__.rpartition(".")[2]
    report = folder / {"verify": "verify.json", "stats": "statistics.json"}[mode]
    report.symlink_to(outside / "precious")
    words = [f"--mode={mode}", "--dataset=folder", f"--data_dir={folder}"]
    module.run(parse(*words))
    assert not report.is_symlink() and json.loads(report.read_text())


CHANGES = {
    "mean of two": {"data.mean": [1.0, 2.0]},
    "mean of texts": {"data.mean": ["a", "b", "c"]},
    "mean NaN": {"data.mean": [float("nan")] * 3},
    "mean too large": {"data.mean": [1e30] * 3},
    "std zero": {"data.std": [0.0] * 3},
    "negative epsilon": {"net.batch_norm_epsilon": -5.0},
    "infinite momentum": {"net.batch_norm_momentum": float("inf")},
    "huge input size": {"net.input_size": 10**9},
    "huge images": {"data.image_size": 10**6},
    "images beyond int64": {"data.image_size": 10**400},
    "huge threads": {"data.reader_threads": 10**9},
    "data set unknown": {"data.dataset": "x"},
    "net unknown": {"net.model": "x"},
    "text with a null byte": {"data.data_dir": "a\0b"},
    "branch a list": {"data": []},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_values_of_config_json_are_checked(run, changes):
    path = run / "config.json"
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *branches, field = ("config." + name).split(".")
        node = content
        for branch in branches:
            node = node[branch]
        node[field] = value
    path.write_text(json.dumps(content))
    assert refusal(run_folder.read_record, run).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "changes",
    [
        {"config": []},
        {"config": None},
        {"class_names": []},
        {"class_names": [1, 2, 3]},
        {"class_names": [["a"]] * 3},
        {"class_names": "disc"},
        {"class_names": ["a" * 10**6, "b", "c"]},
        {"class_names": ["\ud800", "b", "c"]},
        {"dataset": {"train": {"images": "8", "fingerprint": ""}}},
        {"dataset": []},
        {"weights": [1]},
    ],
)
def test_parts_of_config_json_are_checked(run, changes):
    path = run / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert "is not the record of a run" in refusal(run_folder.read_record, run)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "5", "\udc80"])
def test_config_json_that_is_no_record_is_refused(run, text):
    (run / "config.json").write_bytes(os.fsencode(text))
    assert "is not the record of a run" in refusal(run_folder.read_record, run)


def test_missing_image_size_is_named_at_evaluation(run):
    path = run / "config.json"
    content = json.loads(path.read_text())
    content["config"]["data"]["image_size"] = None
    path.write_text(json.dumps(content))
    config = parse("--mode=eval", f"--ckpt={run}")
    assert refusal(evaluate.run, config).startswith("--image_size is missing")


@pytest.mark.parametrize("name", ["/dev/zero", "../config.json", "pipe"])
def test_checkpoint_manifest_names_only_files_in_its_folder(run, name):
    step = run / "step-00000004"
    if name == "pipe":
        os.mkfifo(step / name)
    manifest = json.loads((step / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": 0, "sha256": "0"}
    (step / "manifest.json").write_text(json.dumps(manifest))
    assert "contains no intact checkpoint" in refusal(run_folder.find_checkpoint, str(run))


def test_checkpoint_files_that_the_manifest_leaves_out_are_refused(run):
    step = run / "step-00000004"
    name = "ckpt.data-00000-of-00001"
    (step / name).unlink()
    os.mkfifo(step / name)
    manifest = json.loads((step / "manifest.json").read_text())
    del manifest["files"][name]
    (step / "manifest.json").write_text(json.dumps(manifest))
    assert "contains no intact checkpoint" in refusal(run_folder.find_checkpoint, str(run))


def test_consistent_files_that_are_no_checkpoint_are_refused(run, tiny_folder):
    step = run / "step-00000004"
    (step / "ckpt.index").write_bytes(b"no index" * 20)
    manifest = json.loads((step / "manifest.json").read_text())
    digest = checkpoint.atomic_files.sha256(step / "ckpt.index")
    manifest["files"]["ckpt.index"] = {"bytes": 160, "sha256": digest}
    (step / "manifest.json").write_text(json.dumps(manifest))
    image = tiny_folder / "val/disc/00.jpg"
    config = parse("--mode=predict", f"--ckpt={run}", f"--image={image}", "--crops=1")
    assert "is not a checkpoint of" in refusal(predict.run, config)


def test_escape_sequences_of_names_are_escaped(make_run, tiny_folder, tmp_path, capsys):
    names = ("\x1b]0;title\x07disc", "grid\nerror: no", "\x9b31mstripes\u202e")
    run = make_run(tmp_path / "run", class_names=names)
    folder = tmp_path / "a\x1b[2J"
    folder.mkdir()
    shutil.copy(tiny_folder / "val/disc/00.jpg", folder / "line\nbreak.jpg")
    (folder / "IMG\x1b[1.HEIC").touch()
    log_format.set_up()
    predict.run(parse("--mode=predict", f"--ckpt={run}", f"--image={folder}", "--crops=1"))
    output = capsys.readouterr()
    assert "\\x1b]0;title\\x07disc" in output.out and "line\\nbreak.jpg" in output.out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*output.out, *output.err}
    assert len(output.out.splitlines()) == 4  # the picture and its three classes

    def fail():
        raise UsageError(f"{folder}/a\nb: does not exist")

    assert process.run(fail) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/a\\x1b[2J/a\\nb: does not exist\n"
