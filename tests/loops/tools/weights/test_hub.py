"""Tests published weights by name, against a server on loopback that answers like the hub."""

import hashlib
import importlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest
import tensorflow as tf
from safetensors import numpy as safetensors

import flags
import main
from input_pipeline.errors import DataError, UsageError
from loops.checkpointing import checkpoint, run_folder
from loops.config import hub_names
from loops.tools.weights import first_use, hub, import_weights
from tests.loops.tools.weights import hub_server
from tests.loops.tools.weights.small_imports import tensors

NAME = "timm/resnet18.tiny"
CARD = {
    "architecture": "resnet18",
    "num_classes": 7,
    "label_names": ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"],
    "pretrained_cfg": {
        "num_classes": 1000,
        "input_size": [3, 160, 160],
        "test_input_size": [3, 288, 288],
        "crop_pct": 0.9,
        "test_crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": [0.5, 0.485, 0.25],
        "std": [0.5, 0.25, 0.225],
        "license": "cc-by-nc-4.0",
    },
}


@pytest.fixture(scope="module")
def weights():
    """A file like timm's resnet18 with 7 classes."""
    return safetensors.save(tensors("resnet_18", 7))


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A hub with one repository whose file of weights is not valid; the cache is empty."""
    constants = importlib.import_module("huggingface_hub.constants")
    http = importlib.import_module("huggingface_hub.utils._http")
    with hub_server.serve() as served:
        cache = str(tmp_path / "cache")
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
        monkeypatch.setattr(http.time, "sleep", lambda seconds: None)
        served.add(NAME, CARD, os.urandom(100_000))
        yield served


def fetch(name=NAME, file=hub.WEIGHTS):
    return hub.download("--weights=W", hub_names.parse("weights", name), file)


def get_error(tmp_path, weights, *words):
    words = ["main.py", "--mode=import", f"--weights={weights}", *words]
    with pytest.raises((UsageError, DataError)) as caught:
        import_weights.run(flags.parse([*words, f"--checkpoint_dir={tmp_path / 'runs'}"]))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timm/resnet50.a1_in1k", ("timm/resnet50.a1_in1k", None)),
        ("hf_hub:timm/resnet50.a1_in1k", ("timm/resnet50.a1_in1k", None)),
        ("hf-hub:some-one/x_1@v2", ("some-one/x_1", "v2")),
        ("checkpoints/run", None),
        ("timm", None),
        ("a/b.safetensors", None),
    ],
)
def test_names_and_paths(text, expected):
    assert hub_names.parse("ckpt", text) == (expected and hub_names.HubName(*expected))


def test_an_existing_path_is_not_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm" / "run").mkdir(parents=True)
    assert hub_names.parse("ckpt", "timm/run") is None
    for text in ("hf_hub:x", "hf_hub:a/b/c", "timm/a/b", "timm/a b"):
        with pytest.raises(UsageError, match="hf_hub:OWNER/NAME"):
            hub_names.parse("ckpt", text)


def test_download_follows_the_redirect_and_is_cached(server):
    path = fetch()
    assert path.read_bytes() == server.files[NAME][hub.WEIGHTS]
    assert path.parent.name == hub_server.COMMIT
    methods = [(method, path.split("/")[1]) for method, path, _ in server.requests]
    assert methods == [("HEAD", "timm"), ("GET", "storage")]
    assert fetch() == path
    assert len(server.requests) == 3  # the hub is asked whether it is still the newest


def test_a_broken_download_continues_where_it_stopped(server):
    server.cut_after = 70_000
    assert fetch().read_bytes() == server.files[NAME][hub.WEIGHTS]
    ranges = [span for method, _, span in server.requests if method == "GET"]
    assert len(ranges) == 2 and ranges[0] is None
    assert 0 < int(ranges[1].removeprefix("bytes=").rstrip("-")) <= 70_000


def test_cached_files_need_no_network(server, monkeypatch):
    path = fetch()
    monkeypatch.setattr(
        importlib.import_module("huggingface_hub.constants"), "HF_HUB_OFFLINE", True
    )
    assert fetch() == path
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE forbids a download"):
        fetch(file=hub.CARD)


def test_a_file_with_another_hash_is_removed(server):
    server.wrong_hash = True
    path = fetch()
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=f"has sha256 {sha256}, but the hub announced"):
        hub.verify_hash("--weights=W", path, sha256)
    server.wrong_hash = False
    path = fetch()
    assert hub.verify_hash("--weights=W", path, sha256) and path.exists()
    card = fetch(file=hub.CARD)  # a small file has no such hash
    assert not hub.verify_hash("--weights=W", card, sha256) and card.exists()


def test_each_fault_of_the_hub_is_one_line(server, tmp_path, monkeypatch, capfd):
    server.add("timm/vit_tiny.x", {**CARD, "architecture": "vit_tiny"}, b"")
    assert "are weights of vit_tiny, which is not one of the nets here" in get_error(
        tmp_path, "timm/vit_tiny.x"
    )
    assert all(method == "HEAD" or "config" in path for method, path, _ in server.requests)
    assert f"{server.url} has no such repository, or it is private" in get_error(
        tmp_path, "timm/resnet18.typo"
    )
    server.gated.add(NAME)
    assert f"accept its terms at {server.url}/{NAME}, then" in get_error(tmp_path, NAME)
    server.gated.clear()
    assert "has no revision v9" in get_error(tmp_path, f"{NAME}@v9")
    assert "not a valid safetensors file" in get_error(tmp_path, NAME)
    server.html = True
    assert "does not answer like the hub; check HF_ENDPOINT" in get_error(tmp_path, "timm/other")
    server.html = False
    server.add("timm/resnet18.pickle", CARD, b"")
    del server.files["timm/resnet18.pickle"][hub.WEIGHTS]
    assert "has no model.safetensors" in get_error(tmp_path, "timm/resnet18.pickle")
    dead = "http://127.0.0.1:9"
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", dead)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(server.url, dead)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    capfd.readouterr()
    assert f"{dead} cannot be reached" in get_error(tmp_path, "timm/another")
    assert "Retrying" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (b"<html>", "is not a card of timm's form"),
        ({"model_type": "resnet"}, "it has no architecture"),
        ({**CARD, "mean": ["a", 0, 0]}, "mean"),
        ({**CARD, "std": [0, 1, 1]}, "is not above 0"),
        ({**CARD, "mean": [9, 9, 9]}, "--mean=(2295.0, 2295.0, 2295.0): must be 3 numbers"),
        ({**CARD, "input_size": [3, 224, 192]}, "images are square"),
        ({**CARD, "interpolation": "lanczos"}, "--interpolation=lanczos"),
        ({**CARD, "crop_mode": "squash"}, "crop_mode is 'squash'"),
        ({**CARD, "crop_pct": 1.2}, "--crop_fraction=1.2: must be"),
        ({**CARD, "num_classes": 10}, "its card says 10 classes, but the head has 7"),
        ({**CARD, "label_names": ["a", "b"]}, "its card says 2 classes, but the head has 7"),
    ],
)
def test_a_wrong_card_is_one_line(tmp_path, weights, card, message, quick_net):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    text = json.dumps(card).encode() if isinstance(card, dict) else card
    (folder / "config.json").write_bytes(text)
    assert message in get_error(tmp_path, folder)


def test_missing_values_of_a_card_are_assumed_with_a_warning(tmp_path, weights, caplog, quick_net):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18", "crop_pct": 0.8}))
    words = ["main.py", "--mode=import", f"--weights={folder}", f"--checkpoint_dir={tmp_path}"]
    results = import_weights.run(flags.parse([*words, "--run_name=r", "--image_size=96"]))
    assert results["preprocessing"] == {
        "image_size": 96,
        "mean": (123.675, 116.28, 103.53),
        "std": (58.395, 57.12, 57.375),
        "crop_fraction": 0.8,
        "interpolation": "bicubic",
        "torchvision_rounding": True,
    }
    assert "the card lacks some values; assumed: interpolation=bicubic, mean=(123" in caplog.text


def test_ckpt_names_weights_that_the_first_use_imports(server, tmp_path, weights, monkeypatch):
    """Net, name, preprocessing, classes and license come from the card."""
    monkeypatch.chdir(tmp_path)
    server.add(NAME, CARD, weights)
    image = tmp_path / "image.png"
    tf.io.write_file(str(image), tf.io.encode_png(tf.fill([40, 50, 3], tf.constant(99, tf.uint8))))
    words = [f"--ckpt={NAME}", f"--image={image}", "--crops=1", "--top_k=7", "--json=out.json"]
    assert main.main(["main.py", "--mode=predict", *words]) == 0
    first = json.loads(pathlib.Path("out.json").read_text())
    assert {p["class"] for p in first["images"][0]["predictions"]} == set(CARD["label_names"])
    record = run_folder.read_record("checkpoints/resnet18.tiny")
    data = record.config.data
    assert (data.image_size, data.crop_fraction, data.interpolation) == (160, 0.9, "bilinear")
    assert data.mean == (127.5, 123.675, 63.75) and data.std == (127.5, 63.75, 57.375)
    assert data.torchvision_rounding and record.config.net.model == "resnet_18"
    assert record.weights["commit"] == hub_server.COMMIT
    assert record.weights["sha256"] == hashlib.sha256(weights).hexdigest()
    assert record.weights["license"] == "cc-by-nc-4.0"
    assert record.weights["hashes"] == "verified"
    # The second use needs no network.
    requests = len(server.requests)
    assert main.main(["main.py", "--mode=predict", *words]) == 0
    assert json.loads(pathlib.Path("out.json").read_text()) == first
    assert len(server.requests) == requests
    # A killed import is repeated. Other contents are not replaced.
    (step,) = pathlib.Path("checkpoints/resnet18.tiny").glob("step-*")
    step.rename("moved")
    assert main.main(["main.py", "--mode=predict", *words]) == 0
    assert json.loads(pathlib.Path("out.json").read_text()) == first
    server.add("other/resnet18.tiny", CARD, weights)
    words[0] = "--ckpt=hf_hub:other/resnet18.tiny"
    assert main.main(["main.py", "--mode=predict", *words]) == 2


def test_first_use_waits_for_another_process_that_imports(server, tmp_path, weights, monkeypatch):
    """Its record is written before the checkpoint. Until then it looks like a killed import."""
    server.add(NAME, CARD, weights)
    words = ["main.py", f"--ckpt={NAME}", f"--checkpoint_dir={tmp_path}", "--strategy=one"]
    config = flags.parse([*words, "--mode=predict"])
    began, records = threading.Event(), []
    save = checkpoint.save

    def save_slowly(*args):
        began.set()
        time.sleep(1)
        return save(*args)

    monkeypatch.setattr(checkpoint, "save", save_slowly)

    def use():
        records.append(run_folder.read_record(first_use.replace_names(config).evaluation.ckpt))

    threads = [threading.Thread(target=use) for _ in range(2)]
    threads[0].start()
    assert began.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert [record.weights["repository"] for record in records] == [NAME] * 2
    assert checkpoint.verify(tmp_path / "resnet18.tiny" / "step-00000000")["step"] == 0


def test_first_use_does_not_wait_for_a_training(server, tmp_path, weights):
    """A training locks its folder for days. It may have the name of published weights."""
    run_dir = tmp_path / "resnet18.tiny"
    run_dir.mkdir()
    words = ["main.py", "--mode=predict", f"--ckpt={NAME}", f"--checkpoint_dir={tmp_path}"]
    run_folder.write_record(run_dir, run_folder.Record(flags.parse(words), ("a",), {}))
    with run_folder.lock(run_dir), pytest.raises(UsageError, match="already has other contents"):
        first_use.replace_names(flags.parse(words))


def test_help_does_not_load_the_library():
    """Keras loads it if it is installed, and with it all modes."""
    code = (
        "import sys, main\n"
        "main.run(['main.py', '--help']); assert 'huggingface_hub' not in sys.modules"
    )
    root = pathlib.Path(main.__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, stdout=subprocess.DEVNULL)
