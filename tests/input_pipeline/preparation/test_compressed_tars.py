"""Compressed tar files: preparing reads them once; training names the command."""

import gzip
import io
import json
import os
import pathlib
import tarfile

import pytest
import tensorflow as tf

from input_pipeline.config import DataConfig
from input_pipeline.errors import DataError, UsageError
from input_pipeline.sources import layouts as source_layouts
from input_pipeline.sources import source
from loops.tools.data import prepare
from tests.command_line import parse
from tests.input_pipeline import imagenet_layouts as layouts
from tests.input_pipeline.files import put


def _put(path, files):
    put(path, gzip.compress(layouts.tar_bytes(files)))


def _hugging_face(root):
    for split, images in (("train", layouts.TRAIN), ("val", layouts.VAL)):
        for part in range(2):
            name = f"{split}_images_{part}" if split == "train" else f"{split}_images{part}"
            files = [(f"{n[:-5]}_{w}.JPEG", data) for w, n, data in images[part::2]]
            _put(root / f"data/{name}.tar.gz", files)


def _class_folders(root):
    files = [
        (f"./top/{split}/{wnid}/{name}", data)
        for split, images in (("train", layouts.TRAIN), ("val", layouts.TRAIN[::3]))
        for wnid, name, data in images
    ]
    _put(root / "top.tgz", [("./top/README", b"no image"), *files])


def _ilsvrc_tars(root):
    layouts.three_tars(root)
    for path in root.glob("*.tar"):
        put(pathlib.Path(f"{path}.gz"), gzip.compress(path.read_bytes()))
        path.unlink()


def _prepare(root, out, *words):
    return prepare.run(parse("--mode=prepare", f"--data_dir={root}", f"--out={out}", *words))


def _contents(folder, dataset, split):
    opened = source.open_split(DataConfig(dataset=dataset, data_dir=str(folder)), split)
    images = tf.data.Dataset.range(opened.num_examples).map(opened.read)
    return [(opened.class_names[int(k)], data) for data, k in images.as_numpy_iterator()]


@pytest.mark.parametrize("make", [_hugging_face, _class_folders, _ilsvrc_tars])
def test_prepare_reads_what_training_refuses(tmp_path, make):
    root, out = tmp_path / "raw", tmp_path / "out"
    make(root)
    before = sorted(root.rglob("*"))
    with pytest.raises(UsageError, match=rf"--mode=prepare --data_dir={root} --out=DIR"):
        source.open_split(DataConfig(dataset="folder", data_dir=str(root)), "train")
    dataset = "folder" if make is _class_folders else "ilsvrc2012"
    assert _prepare(root, out)["dataset"] == dataset
    val = layouts.TRAIN[::3] if make is _class_folders else layouts.VAL
    for split, images in (("train", layouts.TRAIN), ("val", val)):
        assert _contents(out, dataset, split) == [(wnid, data) for wnid, _, data in images]
    assert sorted(root.rglob("*")) == before
    assert not (out / ".unfinished").exists()


def test_unpacking_continues_after_the_last_finished_file(tmp_path, caplog):
    root, out = tmp_path / "raw", tmp_path / "out"
    _hugging_face(root)
    last = root / "data/val_images1.tar.gz"
    whole = last.read_bytes()
    for damaged in (whole[:-100], whole[:-8] + bytes(8), b"no gzip file"):
        last.write_bytes(damaged)
        with pytest.raises(DataError, match=r"val_images1\.tar\.gz: is not a complete tar file"):
            _prepare(root, out)
    last.write_bytes(whole)
    _prepare(root, out)
    assert caplog.text.count("which is removed at the end") == 4 + 3
    assert len(_contents(out, "ilsvrc2012", "val")) == len(layouts.VAL)


@pytest.mark.parametrize("name", ["../outside.jpg", "/outside.jpg", "a/../../outside.jpg"])
def test_file_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    _put(tmp_path / "raw/a.tar.gz", [("train/cat/1.jpg", b"1"), (name, b"2")])
    with pytest.raises(DataError, match=r"a\.tar\.gz: .*outside\.jpg leads out of the folder"):
        _prepare(tmp_path / "raw", tmp_path / "out", "--dataset=folder")
    assert not list(tmp_path.rglob("outside.jpg"))


def test_pipe_is_named(tmp_path):
    (tmp_path / "raw").mkdir()
    os.mkfifo(tmp_path / "raw/a.tgz")
    with pytest.raises(DataError, match=r"raw/a\.tgz: is a folder, pipe"):
        _prepare(tmp_path / "raw", tmp_path / "out")


def test_lists_cannot_point_into_an_archive(tmp_path):
    _hugging_face(tmp_path / "raw")
    with pytest.raises(UsageError, match="--format=lists: lists cannot point into"):
        _prepare(tmp_path / "raw", tmp_path / "out", "--format=lists")
    assert not (tmp_path / "out").exists()


def test_archive_next_to_class_folders_does_not_count(tmp_path):
    for name in ("cat", "dog"):
        for number in range(12):
            put(tmp_path / "raw" / name / f"{number}.jpg", b"\xff\xd8\xff")
    _put(tmp_path / "raw/photos.tgz", [("cat/0.jpg", b"\xff\xd8\xff")])
    opened = source.open_split(
        DataConfig(dataset="folder", data_dir=str(tmp_path / "raw")), "train"
    )
    assert opened.num_examples == 20
    assert source_layouts.find_compressed(tmp_path / "raw") == []


def test_splits_in_two_archives_stay_apart(tmp_path):
    images = layouts.TRAIN
    for split, part in (("train", images), ("val", images[::3])):
        files = [(f"{wnid}/{number}.jpg", data) for number, (wnid, _, data) in enumerate(part)]
        _put(tmp_path / f"raw/{split}.tar.gz", files)
    _prepare(tmp_path / "raw", tmp_path / "out", "--dataset=folder")
    for split, part in (("train", images), ("val", images[::3])):
        expected = sorted((wnid, data) for wnid, _, data in part)
        assert sorted(_contents(tmp_path / "out", "folder", split)) == expected


def test_mistakes_are_told_before_anything_is_unpacked(tmp_path):
    _class_folders(tmp_path / "raw")
    put(tmp_path / "out/mine.txt", b"")
    with pytest.raises(UsageError, match="is not an empty folder"):
        _prepare(tmp_path / "raw", tmp_path / "out")
    with pytest.raises(UsageError, match="--quality=200"):
        _prepare(tmp_path / "raw", tmp_path / "new", "--short_side=8", "--quality=200")
    assert not (tmp_path / "new/.unfinished").exists()


@pytest.mark.parametrize("folder", [".", "ILSVRC2012_devkit_t12/data"])
def test_labels_next_to_archives_are_used(tmp_path, folder):
    """The first label differs from the published one."""
    root, out = tmp_path / "raw", tmp_path / "out"
    _ilsvrc_tars(root)
    wnids = ("n02119789", *layouts.VAL_WNIDS[1:])
    put(root / folder / "imagenet_2012_validation_synset_labels.txt", "\n".join(wnids).encode())
    _prepare(root, out)
    data = dict((name, data) for _, name, data in layouts.VAL)
    expected = {(w, data[f"ILSVRC2012_val_{k:08d}.JPEG"]) for k, w in enumerate(wnids, 1)}
    assert set(_contents(out, "ilsvrc2012", "val")) == expected
    assert json.loads((out / "manifest.json").read_text())["root"] == "../raw"


@pytest.mark.parametrize("is_finished", [False, True])
def test_files_of_a_replaced_archive_are_removed(tmp_path, is_finished):
    root, out = tmp_path / "raw", tmp_path / "out"
    images = [(f"{split}/{w}/{n}", d) for split in ("train", "val") for w, n, d in layouts.TRAIN]
    _put(root / "a.tar.gz", [*images, ("train/n01440764/old.jpg", images[0][1])])
    _put(root / "b.tar.gz", [("README", b"")])
    whole = (root / "a.tar.gz").read_bytes()
    damaged = root / ("b.tar.gz" if is_finished else "a.tar.gz")
    damaged.write_bytes(damaged.read_bytes()[:-8])
    with pytest.raises(DataError, match="is not a complete tar file"):
        _prepare(root, out, "--dataset=folder")
    assert [*out.rglob("old.jpg")]
    _put(root / "a.tar.gz", images)
    _put(root / "b.tar.gz", [("README", b"")])
    assert (root / "a.tar.gz").read_bytes() != whole
    os.utime(root / "a.tar.gz", (1, 1))
    assert _prepare(root, out, "--dataset=folder")["splits"]["train"]["images"] == len(
        layouts.TRAIN
    )


def test_read_error_of_an_archive_is_not_blamed_on_the_output(tmp_path):
    """Linux answers EIO for the first bytes of this file."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.tgz").symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match=r"raw/a\.tgz: Input/output error; fix this"):
        _prepare(tmp_path / "raw", tmp_path / "out")


def test_linked_folder_in_the_output_is_not_followed(tmp_path):
    """A stranger's folder may have it where the images are unpacked."""
    _class_folders(tmp_path / "raw")
    (tmp_path / "elsewhere").mkdir()
    unpacked = tmp_path / "out/.unfinished/unpacked"
    unpacked.mkdir(parents=True)
    for name in ("top", "train"):
        (unpacked / name).symlink_to(tmp_path / "elsewhere")
    _prepare(tmp_path / "raw", tmp_path / "out", "--dataset=folder")
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_links_in_archives_are_unpacked(tmp_path):
    """A link may come before its file."""
    _, name, data = layouts.TRAIN[0]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for split in ("train", "val"):
            for wnid, kind, target in (
                ("n01440764", tarfile.SYMTYPE, f"../n01443537/{name}"),
                ("n01443537", tarfile.REGTYPE, ""),
                ("n02100735", tarfile.LNKTYPE, f"./{split}/n01443537/{name}"),
            ):
                member = tarfile.TarInfo(f"./{split}/{wnid}/{name}")
                member.type, member.linkname = kind, target
                member.size = 0 if target else len(data)
                tar.addfile(member, io.BytesIO(data))
    put(tmp_path / "raw/a.tgz", buffer.getvalue())
    _prepare(tmp_path / "raw", tmp_path / "out", "--dataset=folder")
    for split in ("train", "val"):
        wnids = ("n01440764", "n01443537", "n02100735")
        assert _contents(tmp_path / "out", "folder", split) == [(wnid, data) for wnid in wnids]


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../raw/secret.jpg"])
def test_links_in_archives_lead_nowhere_else(tmp_path, target):
    put(tmp_path / "raw/secret.jpg", b"secret")
    member = tarfile.TarInfo("train/cat/1.jpg")
    member.type, member.linkname = tarfile.LNKTYPE, target
    packed = member.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    put(tmp_path / "raw/a.tgz", gzip.compress(packed))
    with pytest.raises(DataError, match=r"a\.tgz: .*1\.jpg is a link to .* not in the tar file"):
        _prepare(tmp_path / "raw", tmp_path / "out", "--dataset=folder")
