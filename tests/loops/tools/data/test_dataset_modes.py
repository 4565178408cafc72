"""The data set modes, from the command line to the files that they write."""

import contextlib
import errno
import io
import itertools
import json
import logging
import os
import pathlib
import re
import shutil
import time

import numpy as np
import PIL.Image
import pytest
from PIL import Image

import flags
from input_pipeline import datasets, pixel_statistics
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import source
from input_pipeline.system import atomic_files
from loops import train
from loops.config import dataset_flags, resolve
from loops.tools.benchmark import benchmark
from loops.tools.data import prepare, stats, verify
from tests.command_line import refusal
from tests.input_pipeline import encoded_images


def run(mode, module, *words):
    config = flags.parse(["main.py", f"--mode={mode}", *words])
    return module.run(config)


@pytest.fixture
def images(tiny_folder, tmp_path):
    """A copy of the tiny data set that a test may change."""
    folder = tmp_path / "images"
    shutil.copytree(tiny_folder, folder)
    return folder


def train_pixels(folder):
    """Returns the pixels float64 [P, 3] of each image of the train split, decoded by PIL."""
    paths = sorted(p for p in (folder / "train").rglob("*") if p.is_file())
    return [np.asarray(Image.open(p).convert("RGB"), np.float64).reshape(-1, 3) for p in paths]


@pytest.mark.parametrize("with_large_image", [False, True])
def test_pixel_statistics_match_numpy_and_training_uses_them(images, with_large_image):
    if with_large_image:  # it is summed in two strips, as 2**18 pixels are converted at a time
        noise = np.random.default_rng(0).integers(0, 256, (600, 640, 3), np.uint8)
        Image.fromarray(noise).save(images / "train" / "disc" / "large.png")
    results = run("stats", stats, "--dataset=folder", f"--data_dir={images}")
    pixels_per_image = train_pixels(images)
    pixels = np.concatenate(pixels_per_image)
    np.testing.assert_allclose(results["mean"], pixels.mean(0), rtol=1e-9)
    np.testing.assert_allclose(results["std"], pixels.std(0), rtol=1e-9)
    mean_std = np.mean([image_pixels.std(0) for image_pixels in pixels_per_image], axis=0)
    np.testing.assert_allclose(results["mean_of_image_std"], mean_std, rtol=1e-9)
    values = np.linalg.eigvalsh(np.cov(pixels.T, bias=True))[::-1]
    np.testing.assert_allclose(results["pca_eigenvalues"], values, rtol=1e-6)
    stored = pixel_statistics.load(str(images))
    config = flags.parse(["main.py", "--dataset=folder", f"--data_dir={images}"])
    data = resolve.resolve(config).data
    assert (data.mean, data.std) == (tuple(stored.mean), tuple(stored.std))
    vectors = np.reshape(data.pca_vectors, (3, 3))  # columns
    covariance = vectors @ np.diag(data.pca_values) @ vectors.T
    np.testing.assert_allclose(covariance, np.cov(pixels.T, bias=True), rtol=1e-6, atol=1e-6)


def test_verify_finds_bad_images(images):
    train = sorted(p for p in (images / "train").rglob("*") if p.is_file())
    val = sorted(p for p in (images / "val").rglob("*") if p.is_file())
    clean = run("verify", verify, "--dataset=folder", f"--data_dir={images}")
    assert not clean["findings"]
    (images / "SHA256SUMS").unlink()  # otherwise each file below would also count as changed
    valid = encoded_images.encoded(encoded_images.picture(), "JPEG", quality=90)
    bad = {
        "empty": b"",
        "truncated": valid[:-200],
        "foreign": b"not an image at all, but a line of text",
        "bomb": encoded_images.with_jpeg_size(valid, 65500, 65500),
    }
    for path, data in zip(train, bad.values(), strict=False):
        path.write_bytes(data)
    shutil.copy(train[len(bad)], val[0])
    (images / "train" / "loose.jpg").write_bytes(valid)
    with pytest.raises(DataError, match=r"^4 of "):
        run("verify", verify, "--dataset=folder", f"--data_dir={images}")
    report = json.loads((images / "verify.json").read_text())
    assert report["counts"] == dict.fromkeys([*bad, "duplicate", "unlabeled"], 1)
    assert (report["bad"], report["duplicates_across_splits"]) == (4, 1)
    files = {finding["kind"]: finding["file"] for finding in report["findings"]}
    for kind, path in zip(bad, train, strict=False):
        assert files[kind].endswith(path.name)


def test_verify_detects_changed_files(images):
    words = ["--dataset=folder", f"--data_dir={images}"]
    run("verify", verify, *words)
    path = next(p for p in sorted((images / "train").rglob("*")) if p.is_file())
    path.write_bytes(encoded_images.encoded(encoded_images.picture(), "JPEG", quality=90))
    with pytest.raises(DataError, match="changed"):
        run("verify", verify, *words)


def test_verify_detects_inconsistent_label_numbering(tmp_path):
    """Training labels start at 0. Validation labels of the same classes start at 1."""
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
    with pytest.raises(DataError, match=r"labels: train follows .* from 0; val follows .* 1001"):
        run("verify", verify, *words, f"--class_names={tmp_path / 'names.txt'}")


def test_input_benchmark_names_the_slowest_stage(tiny_folder, monkeypatch, tmp_path):
    clock = itertools.count()  # a second per reading, so that each measurement is one batch
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    out = tmp_path / "out.json"
    words = ["--dataset=folder", f"--data_dir={tiny_folder}", "--image_size=32", "--batch_size=4"]
    run("benchmark", benchmark, "--benchmark=input", *words, "--augment=classic", f"--json={out}")
    results = json.loads(out.read_text())
    stages = [stage["stage"] for stage in results["stages"]]
    assert stages == ["read", "decode", "augment", "batch", "copy", "normalize"]
    assert results["slowest"] in stages and results["images_per_second"] > 0


def test_stats_need_a_folder_for_the_results(images, tmp_path, monkeypatch):
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


def test_results_may_be_in_the_folder_of_other_than_class_folders(images, tmp_path):
    words = ["--dataset=folder", f"--data_dir={images}", "--format=tfrecord"]
    run("prepare", prepare, *words, f"--out={tmp_path / 'shards'}")
    run(
        "verify", verify, f"--data_dir={tmp_path / 'shards'}", f"--out={tmp_path / 'shards/report'}"
    )
    assert [*(tmp_path / "shards/report").iterdir()]


@pytest.mark.parametrize("mode", [verify, stats])
def test_unwritable_results_are_an_error_before_the_work(images, tmp_path, mode):
    (tmp_path / "file").write_text("")
    words = ["--dataset=folder", f"--data_dir={images}"]
    for flag in (f"--out={tmp_path / 'file'}", f"--json={tmp_path / 'no' / 'where.json'}"):
        with pytest.raises(UsageError, match=re.escape(flag)):
            run(mode.__name__.rpartition(".")[2], mode, *words, flag)
    (tmp_path / "read_only").mkdir(mode=0o555)
    with pytest.raises(UsageError, match=r"--out=.*would be read as a class folder"):
        run(mode.__name__.rpartition(".")[2], mode, *words, f"--out={images}/train/report")
    assert not (images / "train/report").exists()
    with pytest.raises(UsageError, match=r"--out=.*read_only: is read-only"):
        run(mode.__name__.rpartition(".")[2], mode, *words, f"--out={tmp_path / 'read_only'}")


@pytest.mark.parametrize("mode", [verify, stats])
def test_read_only_images(images, tmp_path, mode, caplog, capsys):
    """The results are printed. Files that an earlier run wrote are compared with."""
    name, words = mode.__name__.rpartition(".")[2], ["--dataset=folder", f"--data_dir={images}"]
    run(name, mode, *words)
    damaged = next((images / "val").rglob("*.jpg"))
    damaged.write_bytes(next((images / "train").rglob("*.jpg")).read_bytes())
    files = {p: p.read_bytes() for p in images.rglob("*") if p.is_file()}
    images.chmod(0o555)
    capsys.readouterr()
    try:
        error = DataError if mode is verify else None
        with pytest.raises(error, match=damaged.name) if error else contextlib.nullcontext():
            run(name, mode, *words)
        assert f"{images} is read-only" in caplog.text and "--out" in caplog.text
        assert ("1 bad" if mode is verify else "mean") in capsys.readouterr().out
        assert {p: p.read_bytes() for p in images.rglob("*") if p.is_file()} == files
    finally:
        images.chmod(0o755)


@pytest.mark.parametrize("mode", [verify, stats])
def test_results_are_printed_if_the_disk_is_full(images, monkeypatch, capsys, mode):
    def raise_disk_full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic_files, "write_bytes", raise_disk_full)
    monkeypatch.setattr(pathlib.Path, "write_bytes", raise_disk_full)
    with pytest.raises(UsageError, match=r"^--out=.*\.json: .*No space left on device"):
        run(mode.__name__.rpartition(".")[2], mode, "--dataset=folder", f"--data_dir={images}")
    assert "23" in capsys.readouterr().out


def test_constant_channel_has_std_1(images, caplog):
    """As in microscope images of two dyes. Normalization must not divide by zero."""
    for path in (images / "train").rglob("*.jpg"):
        pixels = np.array(Image.open(path).convert("RGB"))
        pixels[..., 2] = 201
        Image.fromarray(pixels).save(path, "PNG")
    with caplog.at_level(logging.WARNING):
        results = run("stats", stats, "--dataset=folder", f"--data_dir={images}")
    assert "blue: the same in all pixels" in caplog.text and "red" not in caplog.text
    std = np.concatenate(train_pixels(images)).std(0)
    np.testing.assert_allclose(results["std"], [*std[:2], 1.0], rtol=1e-9)
    assert pixel_statistics.load(str(images)).mean[2] == 201


def test_non_utf8_file_names_are_printed(images, capsys):
    bad = images / "train" / "disc" / os.fsdecode(b"\xff.jpg")
    bad.write_bytes(b"")
    with pytest.raises(DataError, match="1 of 40 images"):
        run("verify", verify, "--dataset=folder", f"--data_dir={images}")
    shown = capsys.readouterr().out
    assert "empty" in shown and "disc/" in shown and shown.encode()


def test_ram_cache_conflicts_with_data_service(images):
    words = ["--dataset=folder", f"--data_dir={images}", "--cache=ram", "--data_service=a:1"]
    config = flags.parse(["main.py", *words])
    with pytest.raises(UsageError, match="--cache=ram with --data_service"):
        resolve.resolve(config)


def test_progress_is_logged_every_minute(images, monkeypatch, caplog, tmp_path):
    """Without a terminal. The clock advances by a minute per reading."""
    clock = itertools.count(step=60)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    caplog.set_level(logging.INFO)
    words = ["--dataset=folder", f"--data_dir={images}"]
    for mode, module, total in (("verify", verify, 39), ("stats", stats, 23)):
        run(mode, module, *words)
        assert f"{mode}: {total} of {total} images" in caplog.text
    run("prepare", prepare, *words, f"--out={tmp_path / 'lists'}", "--format=lists")
    assert caplog.text.count("prepare: 39 of 39 images") == 1
    run("prepare", prepare, *words, f"--out={tmp_path / 'shards'}")
    assert caplog.text.count("prepare: 39 of 39 images") == 2  # no finished shards to check
    caplog.clear()
    run("verify", verify, "--dataset=folder", f"--data_dir={tmp_path / 'shards'}")
    assert caplog.text.count("verify: 39 of 39 images") == 2  # shard checksums, then images


def test_ram_cache_returns_the_same_images(tiny_folder):
    splits = []
    for cache in ("none", "ram"):
        words = ["--dataset=folder", f"--data_dir={tiny_folder}", f"--cache={cache}"]
        config = flags.parse(["main.py", *words])
        data = dataset_flags.resolve_dataset(config).data
        splits.append(source.open_split(data, "train"))
    uncached, cached = splits
    for index in range(uncached.num_examples):
        (data, label), (cached_data, cached_label) = uncached.read(index), cached.read(index)
        assert data.numpy() == cached_data.numpy() and int(label) == int(cached_label)


@pytest.mark.parametrize("mode", ["train", "stats", "benchmark"])
def test_wrong_data_dir_is_not_replaced_by_shapes(images, tmp_path, mode):
    """A mistyped or unmounted folder must not start training on the built-in data set."""
    modules = {"train": train, "stats": stats, "benchmark": benchmark}
    words = ["--benchmark=input"] if mode == "benchmark" else []
    words += [f"--checkpoint_dir={tmp_path / 'runs'}"] if mode == "train" else []
    with pytest.raises(UsageError, match=r"--data_dir=.*nowhere: there is no such folder"):
        run(mode, modules[mode], f"--data_dir={tmp_path / 'nowhere'}", *words)
    with pytest.raises(
        UsageError, match=r"has no class folders and nothing else .*--dataset=lists"
    ):
        run(mode, modules[mode], f"--data_dir={tmp_path}", *words)
    with pytest.raises(
        UsageError, match="does not contain the built-in data set shapes; set --dataset"
    ):
        run(mode, modules[mode], f"--data_dir={images}", "--dataset=shapes", *words)
    answer = rf"has images, but no class folders; .*give --data_dir={images}/train$"
    for word in ([], ["--dataset=folder"]):
        with pytest.raises(UsageError, match=answer):
            run(mode, modules[mode], f"--data_dir={images}/train/disc", *word, *words)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("words", [[], ["--dataset=ilsvrc2012"]])
def test_one_split_is_answered_with_the_whole_data_set(images, words):
    answer = f"--data_dir={images}/train: is the train split of {images}; give --data_dir={images}"
    assert refusal(run, "stats", stats, f"--data_dir={images}/train", *words) == answer
    (images / "train" / "val").mkdir()  # then the folder has splits itself
    shutil.copytree(images / "val" / "disc", images / "train" / "val" / "disc")
    assert run("stats", stats, f"--data_dir={images}", "--dataset=folder")["num_images"] == 23


def test_class_folders_need_no_name_of_a_data_set(images):
    (images / "train").rename(images / "classes")
    words = [f"--data_dir={images}/classes"]
    report = run("verify", verify, *words)
    assert report["dataset"] == "folder" and sum(report["images"].values()) == 23
    assert report["label_map_says"] == "the names of the folders, sorted, from 0"
    message = refusal(run, "stats", stats, "--dataset=folder", f"--data_dir={images}/classes/disc")
    assert message == (
        f"--data_dir={images}/classes/disc: has images, but no class folders; if it is one of"
        f" several classes, give --data_dir={images}/classes"
    )


def test_one_split_that_is_split_again_is_a_warning(images, tmp_path, caplog):
    words = ["--dataset=folder", f"--data_dir={images}/train", f"--out={tmp_path / 'set'}"]
    run("prepare", prepare, *words, "--format=lists")
    assert f"is the train split of {images}, which has the other splits, too" in caplog.text


@pytest.mark.parametrize("mode", ["train", "stats", "benchmark"])
@pytest.mark.parametrize("flag", ["train_list", "class_names"])
def test_list_flags_conflict_with_other_data_sets(images, tmp_path, mode, flag):
    """Without --dataset=lists the run would use the built-in shapes or other class names."""
    modules = {"train": train, "stats": stats, "benchmark": benchmark}
    words = ["--benchmark=input"] if mode == "benchmark" else []
    words += [f"--checkpoint_dir={tmp_path / 'runs'}"] if mode == "train" else []
    words += [f"--{flag}={tmp_path / 'list.txt'}"]
    with pytest.raises(UsageError, match=rf"--{flag}=.*list.txt: --dataset=shapes does not use"):
        run(mode, modules[mode], *words)
    with pytest.raises(UsageError, match=r"folder does not use this flag; .*--dataset=lists"):
        run(mode, modules[mode], "--dataset=folder", f"--data_dir={images}", *words)
    assert not (tmp_path / "runs").exists()


def test_prepared_lists_contain_their_class_names(images, tmp_path):
    lists = tmp_path / "list.txt"
    names = sorted((images / "train").rglob("*.*"))
    lists.write_text(
        "".join(f"{name.relative_to(images)} {i % 2}\n" for i, name in enumerate(names))
    )
    words = ["--dataset=lists", f"--data_dir={images}", f"--train_list={lists}"]
    run("prepare", prepare, *words, f"--out={tmp_path / 'set'}")
    assert run("stats", stats, f"--data_dir={tmp_path / 'set'}")["num_images"] == len(names)
    with pytest.raises(
        UsageError, match=r"--train_list=.*: the prepared data set in .* has its lists"
    ):
        run("stats", stats, f"--data_dir={tmp_path / 'set'}", f"--train_list={lists}")


def test_prepared_data_set_is_identified_by_its_manifest(images, tmp_path):
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


@pytest.mark.parametrize(
    ("names", "verdict"),
    [
        ([], "every image is good"),
        (["notes.txt", "Thumbs.db", ".DS_Store"], "every image is good"),
        (
            ["a.heic", "b.HEIC", "notes.txt"],
            "{n} images are good; 2 files are not read (2 .heic): convert them to JPEG",
        ),
        (["c.tif"], "{n} images are good; 1 file is not read (1 .tif): convert it to JPEG"),
    ],
)
def test_pictures_of_other_formats_are_in_the_verdict(images, capsys, names, verdict):
    """The exit code stays 0: every image that is read is good."""
    for name in names:
        (images / "train" / "disc" / name).write_bytes(b"x")
    report = run("verify", verify, "--dataset=folder", f"--data_dir={images}")
    expected = verdict.format(n=sum(report["images"].values()))
    out = capsys.readouterr().out
    assert re.search(rf"verdict +{re.escape(expected)}\n", out)
    if "notes.txt" in names and "a.heic" in names:
        row = r"3 files are not read \(2 \.heic, 1 \.txt\): convert \.heic to JPEG\n"
        assert re.search(rf"other files +{row}", out)
        words = ["--dataset=folder", f"--data_dir={images}", f"--out={images / 'out'}"]
        run("prepare", prepare, *words, "--format=lists")
        assert re.search(rf"other files +{row}", capsys.readouterr().out)


def test_photographs_that_are_not_upright_are_counted(images, capsys):
    picture, data = PIL.Image.new("RGB", (40, 30)), io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    picture.save(data, "JPEG", exif=exif)
    (images / "train/disc/phone.jpg").write_bytes(data.getvalue())
    run("verify", verify, "--dataset=folder", f"--data_dir={images}")
    line = r"turned +1 image by EXIF orientation; train with --exif=apply, which"
    assert re.search(line, capsys.readouterr().out)


def test_short_sides_of_photographs_tell_an_image_size(images, capsys):
    for number, size in enumerate([(84, 500), (200, 170), (300, 900)]):
        PIL.Image.new("RGB", size).save(images / f"train/disc/new{number}.png")
    report = run("verify", verify, "--dataset=folder", f"--data_dir={images}")
    sides = [min(PIL.Image.open(path).size) for path in images.rglob("*.*g")]
    expected = {"smallest": min(sides), "median": sorted(sides)[len(sides) // 2], "largest": 300}
    assert report["short_side"] == expected
    line = rf"short side +{min(sides)} to 300 px, median \d+; train with --image_size=32\n"
    assert re.search(line, capsys.readouterr().out)
    sizes = [verify._choose_image_size(side) for side in (8, 84, 160, 375, 4000)]
    assert sizes == [32, 64, 128, 224, 224]


def test_images_without_a_label_are_in_the_verdict(images, capsys):
    shutil.copy(next((images / "train/disc").iterdir()), images / "train" / "loose.jpg")
    report = run("verify", verify, "--dataset=folder", f"--data_dir={images}")
    assert sum(report["images"].values()) == 39
    verdict = "39 images are good; 1 image without a label cannot be used"
    assert re.search(rf"verdict +{verdict}\n", capsys.readouterr().out)


def test_duplicates_across_splits_are_in_the_verdict(images, capsys):
    shutil.copy(next((images / "train/disc").iterdir()), images / "val/disc/again.jpg")
    run("verify", verify, "--dataset=folder", f"--data_dir={images}")
    assert "every image decodes, but 1 are in more than one split" in capsys.readouterr().out
