"""The modes that look at a data set, from the command line to the file that they write."""

import errno
import json
import logging
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import flags
from input_pipeline import datasets, pixel_statistics
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import source
from input_pipeline.system import atomic_files
from loops import train
from loops.config import dataset_flags, resolve
from loops.monitoring import progress_bar
from loops.tools.benchmark import benchmark
from loops.tools.data import prepare, stats, verify
from tests.input_pipeline import encoded_images


def run(mode, module, *words):
    config = flags.parse(["main.py", f"--mode={mode}", *words])
    return module.run(config)


@pytest.fixture
def images(tiny_folder, tmp_path):
    """A copy of the small folder that a test may spoil."""
    folder = tmp_path / "images"
    shutil.copytree(tiny_folder, folder)
    return folder


def pixels_of(folder):
    """float64 [P, 3] of each image of the train split, by PIL."""
    paths = sorted(p for p in (folder / "train").rglob("*") if p.is_file())
    return [np.asarray(Image.open(p).convert("RGB"), np.float64).reshape(-1, 3) for p in paths]


@pytest.mark.parametrize("strip", [2**18, 1000])
def test_statistics_equal_numpys_and_training_takes_them(images, monkeypatch, strip):
    monkeypatch.setattr(pixel_statistics, "_STRIP", strip)  # pixels; the images have about 2,000
    facts = run("stats", stats, "--dataset=folder", f"--data_dir={images}")
    each = pixels_of(images)
    every = np.concatenate(each)
    np.testing.assert_allclose(facts["mean"], every.mean(0), rtol=1e-9)
    np.testing.assert_allclose(facts["std"], every.std(0), rtol=1e-9)
    inside = np.mean([of_image.std(0) for of_image in each], axis=0)
    np.testing.assert_allclose(facts["mean_of_image_std"], inside, rtol=1e-9)
    values = np.linalg.eigvalsh(np.cov(every.T, bias=True))[::-1]
    np.testing.assert_allclose(facts["pca_eigenvalues"], values, rtol=1e-6)
    stored = pixel_statistics.load(str(images))
    config = flags.parse(["main.py", "--dataset=folder", f"--data_dir={images}"])
    data = resolve.resolve(config).data
    assert (data.mean, data.std) == (tuple(stored.mean), tuple(stored.std))
    vectors = np.reshape(data.pca_vectors, (3, 3))  # columns
    covariance = vectors @ np.diag(data.pca_values) @ vectors.T
    np.testing.assert_allclose(covariance, np.cov(every.T, bias=True), rtol=1e-6, atol=1e-6)


def test_verify_finds_what_is_wrong(images):
    train = sorted(p for p in (images / "train").rglob("*") if p.is_file())
    val = sorted(p for p in (images / "val").rglob("*") if p.is_file())
    clean = run("verify", verify, "--dataset=folder", f"--data_dir={images}")
    assert not clean["findings"]
    (images / "SHA256SUMS").unlink()  # else each spoilt file counts as changed, too
    whole = encoded_images.encoded(encoded_images.picture(), "JPEG", quality=90)
    spoilt = {
        "empty": b"",
        "truncated": whole[:-200],
        "foreign": b"not an image at all, but a line of text",
        "bomb": encoded_images.with_jpeg_size(whole, 65500, 65500),
    }
    for path, data in zip(train, spoilt.values(), strict=False):
        path.write_bytes(data)
    shutil.copy(train[len(spoilt)], val[0])
    (images / "train" / "loose.jpg").write_bytes(whole)
    with pytest.raises(DataError, match=r"^4 of "):
        run("verify", verify, "--dataset=folder", f"--data_dir={images}")
    report = json.loads((images / "verify.json").read_text())
    assert report["counts"] == dict.fromkeys([*spoilt, "duplicate", "unlabelled"], 1)
    assert (report["bad"], report["duplicates_across_splits"]) == (4, 1)
    found = {finding["kind"]: finding["file"] for finding in report["findings"]}
    for kind, path in zip(spoilt, train, strict=False):
        assert found[kind].endswith(path.name)


def test_verify_knows_bytes_that_changed(images):
    words = ["--dataset=folder", f"--data_dir={images}"]
    run("verify", verify, *words)
    path = next(p for p in sorted((images / "train").rglob("*")) if p.is_file())
    path.write_bytes(encoded_images.encoded(encoded_images.picture(), "JPEG", quality=90))
    with pytest.raises(DataError, match="changed"):
        run("verify", verify, *words)


def test_verify_refuses_a_mixture_of_numberings(tmp_path):
    """Training labels from 0, evaluation labels of the same classes from 1, with background."""
    wnids = [wnid for wnid, _ in datasets.load_class_table("ilsvrc2012")[:3]]
    data = encoded_images.encoded(encoded_images.picture(), "JPEG", quality=90)
    for wnid in wnids:
        (tmp_path / wnid).mkdir()
        (tmp_path / wnid / "a.jpg").write_bytes(data)
    for split, first in (("train", 0), ("val", 1)):
        lines = [f"{wnid}/a.jpg {first + k}" for k, wnid in enumerate(wnids)]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n")
    lists = [f"--{split}_list={tmp_path / split}.txt" for split in ("train", "val")]
    names = "".join(f"{k} n{k:08} {k}\n" for k in range(4))
    (tmp_path / "names.txt").write_text(names)
    words = ["--dataset=lists", f"--data_dir={tmp_path}", *lists]
    with pytest.raises(DataError, match=r"mixture: train follows .* from 0; val follows .* 1001"):
        run("verify", verify, *words, f"--class_names={tmp_path / 'names.txt'}")


def test_the_input_benchmark_names_the_slowest_stage(tiny_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "_SECONDS_PER_RUN", 0.01)
    out = tmp_path / "out.json"
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", "--image_size=32", "--batch_size=4"]
    run("benchmark", benchmark, "--benchmark=input", *words, "--augment=classic", f"--json={out}")
    facts = json.loads(out.read_text())
    stages = [row["stage"] for row in facts["stages"]]
    assert stages == ["read", "decode", "augment", "batch", "copy", "normalise"]
    assert facts["slowest"] in stages and facts["images_per_second"] > 0


def test_statistics_that_nobody_would_find_are_not_made(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = sorted((images / "train").rglob("*.jpg"))
    (tmp_path / "train.txt").write_text("".join(f"{file} 0\n" for file in files))
    words = ["--dataset=lists", "--train_list=train.txt"]
    with pytest.raises(UsageError, match=r"--data_dir is missing: .* or --out"):
        run("stats", stats, *words)
    run("stats", stats, *words, "--out=here")
    assert (tmp_path / "here/statistics.json").exists()
    run("stats", stats, *words, "--data_dir=.")
    assert (tmp_path / "statistics.json").exists()
    with pytest.raises(UsageError, match="--out=there with --split=val"):
        run(
            "stats", stats, "--dataset=folder", f"--data_dir={images}", "--split=val", "--out=there"
        )


@pytest.mark.parametrize("mode", [verify, stats])
def test_where_results_cannot_be_written_is_said_before_the_work(images, tmp_path, mode):
    (tmp_path / "file").write_text("")
    words = ["--dataset=folder", f"--data_dir={images}"]
    for flag in (f"--out={tmp_path / 'file'}", f"--json={tmp_path / 'no' / 'where.json'}"):
        with pytest.raises(UsageError, match=re.escape(flag)):
            run(mode.__name__.rpartition(".")[2], mode, *words, flag)
    images.chmod(0o555)
    try:
        with pytest.raises(UsageError, match="is read-only: name a folder for the results"):
            run(mode.__name__.rpartition(".")[2], mode, *words)
        run(mode.__name__.rpartition(".")[2], mode, *words, f"--out={tmp_path / 'results'}")
    finally:
        images.chmod(0o755)
    assert list((tmp_path / "results").iterdir())


@pytest.mark.parametrize("mode", [verify, stats])
def test_a_disk_that_is_full_at_the_end_leaves_the_answer(images, monkeypatch, capsys, mode):
    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic_files, "write_bytes", full)
    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    with pytest.raises(UsageError, match=r"^--out=.*\.json: .*No space left on device"):
        run(mode.__name__.rpartition(".")[2], mode, "--dataset=folder", f"--data_dir={images}")
    assert "23" in capsys.readouterr().out


def test_a_channel_that_never_changes(images, caplog):
    """Two dyes under a microscope: nothing is divided by zero."""
    for path in (images / "train").rglob("*.jpg"):
        pixels = np.array(Image.open(path).convert("RGB"))
        pixels[..., 2] = 201
        Image.fromarray(pixels).save(path, "PNG")
    with caplog.at_level(logging.WARNING):
        facts = run("stats", stats, "--dataset=folder", f"--data_dir={images}")
    assert "blue: the same in all pixels" in caplog.text and "red" not in caplog.text
    every = np.concatenate(pixels_of(images))
    np.testing.assert_allclose(facts["std"], [*every.std(0)[:2], 1.0], rtol=1e-9)
    assert pixel_statistics.load(str(images)).mean[2] == 201


def test_names_that_are_not_utf8_are_shown(images, capsys):
    bad = images / "train" / "disc" / os.fsdecode(b"\xff.jpg")
    bad.write_bytes(b"")
    with pytest.raises(DataError, match="1 of 40 images"):
        run("verify", verify, "--dataset=folder", f"--data_dir={images}")
    shown = capsys.readouterr().out
    assert "empty" in shown and "disc/" in shown and shown.encode()


def test_a_cache_here_and_workers_elsewhere(images):
    words = ["--dataset=folder", f"--data_dir={images}", "--cache=ram", "--data_service=a:1"]
    config = flags.parse(["main.py", *words])
    with pytest.raises(UsageError, match="--cache=ram and --data_service"):
        resolve.resolve(config)


def test_long_work_says_a_line_now_and_then(images, monkeypatch, caplog, tmp_path):
    """Once a minute where nobody watches; here between any two images."""
    monkeypatch.setattr(progress_bar, "_SECONDS_BETWEEN_LINES", 0.0)
    caplog.set_level(logging.INFO)
    words = ["--dataset=folder", f"--data_dir={images}"]
    for mode, module, total in (("verify", verify, 39), ("stats", stats, 23)):
        run(mode, module, *words)
        assert f"{mode}: {total} of {total} images" in caplog.text
    run("prepare", prepare, *words, f"--out={tmp_path / 'lists'}", "--format=lists")
    assert caplog.text.count("prepare: 39 of 39 images") == 1
    run("prepare", prepare, *words, f"--out={tmp_path / 'shards'}")
    assert caplog.text.count("prepare: 39 of 39 images") == 2  # nothing was there to look at
    caplog.clear()
    run("verify", verify, "--dataset=folder", f"--data_dir={tmp_path / 'shards'}")
    assert caplog.text.count("verify: 39 of 39 images") == 2  # their sha256, and the images


def test_cached_images_are_those_of_the_files(tiny_folder):
    splits = []
    for cache in ("none", "ram"):
        words = ["--dataset=folder", f"--data_dir={tiny_folder}", f"--cache={cache}"]
        config = flags.parse(["main.py", *words])
        data = dataset_flags.resolve_dataset(config).data
        splits.append(source.open_split(data, "train"))
    files, memory = splits
    for index in range(files.num_examples):
        (one, label), (two, other) = files.read(index), memory.read(index)
        assert one.numpy() == two.numpy() and int(label) == int(other)


@pytest.mark.parametrize("mode", ["train", "stats", "benchmark"])
def test_shapes_are_not_drawn_where_something_else_was_meant(images, tmp_path, mode):
    """A mistyped or unmounted folder would train on stars."""
    modules = {"train": train, "stats": stats, "benchmark": benchmark}
    words = ["--benchmark=input"] if mode == "benchmark" else []
    words += [f"--checkpoint_dir={tmp_path / 'runs'}"] if mode == "train" else []
    with pytest.raises(UsageError, match=r"--data_dir=.*nowhere: there is no such folder"):
        run(mode, modules[mode], f"--data_dir={tmp_path / 'nowhere'}", *words)
    with pytest.raises(UsageError, match=r"neither a prepared set .*, as in --dataset=folder"):
        run(mode, modules[mode], f"--data_dir={images}", *words)
    with pytest.raises(
        UsageError, match="something else than the built-in shapes; say by --dataset"
    ):
        run(mode, modules[mode], f"--data_dir={images}", "--dataset=shapes", *words)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("mode", ["train", "stats", "benchmark"])
@pytest.mark.parametrize("flag", ["train_list", "class_names"])
def test_flags_of_lists_are_not_for_other_sets(images, tmp_path, mode, flag):
    """Without --dataset=lists a training would be on the built-in shapes, or by other names."""
    modules = {"train": train, "stats": stats, "benchmark": benchmark}
    words = ["--benchmark=input"] if mode == "benchmark" else []
    words += [f"--checkpoint_dir={tmp_path / 'runs'}"] if mode == "train" else []
    words += [f"--{flag}={tmp_path / 'list.txt'}"]
    with pytest.raises(UsageError, match=rf"--{flag}=.*list.txt: --dataset=shapes does not read"):
        run(mode, modules[mode], *words)
    with pytest.raises(UsageError, match=r"--dataset=folder does not read it; .*--dataset=lists"):
        run(mode, modules[mode], "--dataset=folder", f"--data_dir={images}", *words)
    assert not (tmp_path / "runs").exists()


def test_a_prepared_list_has_its_own_names(images, tmp_path):
    lists = tmp_path / "list.txt"
    names = sorted((images / "train").rglob("*.*"))
    lists.write_text(
        "".join(f"{name.relative_to(images)} {i % 2}\n" for i, name in enumerate(names))
    )
    words = ["--dataset=lists", f"--data_dir={images}", f"--train_list={lists}"]
    run("prepare", prepare, *words, f"--out={tmp_path / 'set'}")
    assert run("stats", stats, f"--data_dir={tmp_path / 'set'}")["num_images"] == len(names)
    with pytest.raises(UsageError, match=r"--train_list=.*: the prepared set in .* has its own"):
        run("stats", stats, f"--data_dir={tmp_path / 'set'}", f"--train_list={lists}")


def test_prepared_shapes_are_known_by_their_manifest(images, tmp_path):
    out = tmp_path / "set"
    run("prepare", prepare, "--dataset=folder", f"--data_dir={images}", f"--out={out}")
    path = out / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": "shapes"}))
    assert run("stats", stats, f"--data_dir={out}")["num_images"] == 23
    assert run("verify", verify, f"--data_dir={out}")["images"]["val"] == 11
    config = flags.parse(["main.py", f"--data_dir={out}"])
    config = dataset_flags.resolve_dataset(config)
    dataset_flags.require_named_dataset(config)
    assert source.open_split(config.data, "val").num_examples == 11


def test_images_that_are_in_two_splits_are_in_the_verdict(images, capsys):
    shutil.copy(next((images / "train/disc").iterdir()), images / "val/disc/again.jpg")
    run("verify", verify, "--dataset=folder", f"--data_dir={images}")
    assert "every image decodes, but 1 are in more than one split" in capsys.readouterr().out
