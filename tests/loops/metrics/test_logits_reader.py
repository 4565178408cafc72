"""Tests that files of logits round-trip and that hostile files are rejected without harm."""

import errno
import io
import json
import os
import pathlib
import pickle
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest

from input_pipeline.errors import DataError, UsageError
from loops.metrics import classification, logits_reader, logits_writer

N, V, C = 5, 10, 3


def make_split(labels=(0, 1, 2, 1, 0), fingerprint="f"):
    return types.SimpleNamespace(
        num_examples=len(labels),
        labels=np.array(labels, np.int32),
        class_names=("cat", "dog", "eel"),
        fingerprint=fingerprint,
        describe=lambda i: f"val/{i}.jpg",
    )


def make_logits(seed):
    return np.random.default_rng(seed).normal(0, 3, (N, V, C)).astype(np.float32)


def write(path, seeds=(0,), views=V, split=None):
    with logits_writer.Writer(
        path, split or make_split(), {"dataset": "d", "split": "val"}
    ) as file:
        for seed in seeds:
            append = file.begin_model({"model": f"m{seed}", "step": seed, "image_size": 32}, views)
            for start in range(0, N, 2):  # the last batch is smaller
                append(make_logits(seed)[start : start + 2, :views])
        file.finish()
    return path


def test_round_trip(tmp_path):
    path = write(tmp_path / "a.npz", (0, 1))
    file = logits_reader.LogitsFile(path)
    assert file.facts == {
        "class_names": ["cat", "dog", "eel"],
        "dataset": "d",
        "split": "val",
        "fingerprint": "f",
    }
    assert file.labels.tolist() == [0, 1, 2, 1, 0]
    assert file.names == [f"val/{i}.jpg" for i in range(N)]
    for seed, model in enumerate(file.models):
        logits = make_logits(seed)
        assert (model.facts["model"], model.views) == (f"m{seed}", V)
        np.testing.assert_array_equal(model.probabilities(V), classification.mean_softmax(logits))
        np.testing.assert_array_equal(
            model.probabilities(1), classification.mean_softmax(logits[:, 4:5])
        )
    with np.load(path, allow_pickle=False) as arrays:  # numpy can read the file too
        np.testing.assert_array_equal(arrays["logits_1"], make_logits(1))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz"]


def test_failed_evaluation_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError):
        with logits_writer.Writer(tmp_path / "a.npz", make_split(), {}) as file:
            file.begin_model({"model": "m"}, V)
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_evaluation_without_a_file_touches_no_disk(monkeypatch):
    """On a read-only disk, even the removal of a missing file is an error."""

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(pathlib.Path, "unlink", refuse)
    with logits_writer.Writer("", make_split(), {}):
        pass


def test_non_finite_logits_are_not_written(tmp_path):
    with logits_writer.Writer(tmp_path / "a.npz", make_split(), {}) as file:
        append = file.begin_model({"model": "m"}, V)
        with pytest.raises(DataError, match="the logits of m are not finite"):
            append(np.full((1, V, C), np.nan, np.float32))


def test_full_disk_raises_a_one_line_error(tmp_path, monkeypatch):
    open_archive = zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda _, *args: open_archive("/dev/full", *args))
    path = tmp_path / "a.npz"
    with logits_writer.Writer(path, make_split(), {}) as file:
        with pytest.raises(UsageError, match=rf"--save_logits={path}: could not be written"):
            append = file.begin_model({"model": "m"}, V)
            for _ in range(1000):
                append(np.zeros((N, V, C), np.float32))
    assert list(tmp_path.iterdir()) == []


def test_files_of_different_images_are_rejected(tmp_path):
    first = write(tmp_path / "a.npz")
    assert len(logits_reader.read_all(f"{first},{write(tmp_path / 'b.npz', (1,))}")) == 2
    others = [make_split(fingerprint="g"), make_split((0, 1, 2, 1, 1))]
    for number, (other, word) in enumerate(zip(others, ("fingerprint", "labels"), strict=True)):
        path = write(tmp_path / f"other{number}.npz", split=other)
        with pytest.raises(UsageError, match=rf"--logits=.*other{number}.*{word}"):
            logits_reader.read_all(f"{first},{path}")


def make_content():
    """Returns metadata and arrays of a valid file."""
    meta = {
        "format": 1,
        "models": [{"model": "m", "step": 1, "image_size": 32}],
        "class_names": ["cat", "dog", "eel"],
        "dataset": "d",
        "split": "val",
        "fingerprint": "f",
    }
    return meta, {
        "labels": np.zeros(N, np.int32),
        "names": np.array([b"x"] * N),
        "logits_0": make_logits(0),
    }


def save(path, metadata, /, **changed):
    """Writes a valid file except for the changed arrays; None leaves an array out."""
    meta = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    arrays = make_content()[1] | {"meta": meta} | changed
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def save_with_entry(path, name, data, **kwargs):
    """Writes a valid file except for the raw bytes of one entry."""
    save(path, make_content()[0], **{name: None})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", data, **kwargs)


def npy_bytes(array, **changed):
    """Returns an npy file whose header does not match its data."""
    buffer = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array) | changed
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


class Canary:
    def __reduce__(self):
        return os.mkdir, (str(pathlib.Path(os.environ["CANARY"])),)


def with_meta(**changed):
    return lambda path: save(path, make_content()[0] | changed)


def save_flipped_bit(path):
    data = bytearray(write(path).read_bytes())
    at = bytes(data).find(make_logits(0)[2].tobytes())
    data[at] ^= 1
    path.write_bytes(data)


def save_pickled_array(path):
    data = np.empty(1, object)
    data[0] = Canary()
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, data, allow_pickle=True)
    save_with_entry(path, "meta", buffer.getvalue())


def save_bomb(path):
    zeros = npy_bytes(np.zeros(0, np.float32), shape=(N, V, C), fortran_order=False)
    zeros += bytes(200_000_000)
    save_with_entry(path, "logits_0", zeros, compress_type=zipfile.ZIP_DEFLATED)


def save_infinite_logits(path):
    logits = make_logits(0)
    logits[3, 7, 1] = np.inf
    save(path, make_content()[0], logits_0=logits)


HOSTILE = {
    "not a zip": lambda p: p.write_bytes(b"no logits here" * 9),
    "empty": lambda p: p.write_bytes(b""),
    "a pickle": lambda p: p.write_bytes(pickle.dumps(Canary())),
    "a pickled array": save_pickled_array,
    "truncated": lambda p: p.write_bytes(write(p).read_bytes()[:-300]),
    "flipped bit": save_flipped_bit,
    "compressed bomb": save_bomb,
    "logits missing": lambda p: save(p, make_content()[0], logits_0=None),
    "labels missing": lambda p: save(p, make_content()[0], labels=None),
    "wrong dtype": lambda p: save(p, make_content()[0], logits_0=make_logits(0).astype(np.float64)),
    "wrong byte order": lambda p: save(p, make_content()[0], logits_0=make_logits(0).astype(">f4")),
    "wrong rank": lambda p: save(p, make_content()[0], logits_0=make_logits(0)[:, 0]),
    "other images": lambda p: save(p, make_content()[0], logits_0=make_logits(0)[:4]),
    "other classes": lambda p: save(p, make_content()[0], logits_0=make_logits(0)[..., :2]),
    "seven views": lambda p: save(p, make_content()[0], logits_0=make_logits(0)[:, :7].copy()),
    "not finite": save_infinite_logits,
    "label out of range": lambda p: save(p, make_content()[0], labels=np.full(N, 3, np.int32)),
    "label below zero": lambda p: save(p, make_content()[0], labels=np.full(N, -1, np.int32)),
    "no images": lambda p: save(p, make_content()[0], labels=np.zeros(0, np.int32), names=None),
    "header of a huge array": lambda p: save_with_entry(
        p, "logits_0", npy_bytes(make_logits(0), shape=(2**40, V, C))
    ),
    "header of negative size": lambda p: save_with_entry(
        p, "logits_0", npy_bytes(make_logits(0), shape=(-N, -V, C))
    ),
    "code in the header": lambda p: save_with_entry(
        p, "logits_0", npy_bytes(make_logits(0)).replace(b"False", b"f.x()")
    ),
    "other format": with_meta(format=2),
    "no models": with_meta(models=[]),
    "models that are text": with_meta(models="m"),
    "a model without a step": with_meta(models=[{"model": "m", "image_size": 3}]),
    "classes that are a number": with_meta(class_names=3),
    "a dataset that is a list": with_meta(dataset=["d"]),
    "meta that is a list": lambda p: save(p, [1, 2]),
    "meta nested deep": lambda p: save_with_entry(
        p, "meta", npy_bytes(np.frombuffer(b"[" * 100_000, np.uint8))
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_raises_a_one_line_error(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CANARY", str(tmp_path / "canary"))
    path = tmp_path / "a.npz"
    HOSTILE[name](path)
    with pytest.raises(UsageError) as caught:
        for model in logits_reader.LogitsFile(path).models:
            model.probabilities(V)
    assert str(caught.value).startswith(f"--logits={path}: ") and "\n" not in str(caught.value)
    assert not (tmp_path / "canary").exists()


def test_compressed_bomb_is_rejected_before_it_uses_memory(tmp_path):
    """Reads in a separate process, because writing the file needs more memory than reading it."""
    HOSTILE["compressed bomb"](tmp_path / "a.npz")
    code = (
        "import resource, sys\n"
        "from loops.metrics import logits_reader\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    [m.probabilities(1) for m in logits_reader.LogitsFile(sys.argv[1]).models]\n"
        "except logits_reader.UsageError:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.npz"]
    process = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    assert int(process.stdout) < 50_000  # kB


def test_random_damage_is_detected_or_harmless(tmp_path):
    """Changes one to three bytes of each of 400 files, and truncates some of them."""
    intact = write(tmp_path / "intact.npz").read_bytes()
    expected = classification.mean_softmax(make_logits(0))
    rng = np.random.default_rng(4)
    rejected = 0
    for _ in range(400):
        data = bytearray(intact)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        if rng.random() < 0.1:
            del data[int(rng.integers(len(data))) :]
        (tmp_path / "a.npz").write_bytes(data)
        try:
            (model,) = logits_reader.LogitsFile(tmp_path / "a.npz").models
            np.testing.assert_array_equal(model.probabilities(V), expected)
        except UsageError as error:
            rejected += 1
            assert "\n" not in str(error)
    assert rejected > 300


def test_unchanged_content_of_the_hostile_files_is_valid(tmp_path):
    save(tmp_path / "a.npz", make_content()[0])
    (model,) = logits_reader.LogitsFile(tmp_path / "a.npz").models
    assert model.probabilities(V).shape == (N, C)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_path_that_is_not_a_file_is_rejected(kind, tmp_path):
    path = tmp_path / "a.npz"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)  # opening it would block
    with pytest.raises(UsageError, match="no such file"):
        logits_reader.LogitsFile(path)


def test_file_names_that_are_not_utf8_round_trip(tmp_path):
    """File systems allow such names."""
    split = make_split()
    split.describe = lambda i: f"val/{i}-\udcff.jpg"
    file = logits_reader.LogitsFile(write(tmp_path / "a.npz", split=split))
    assert file.names[4] == "val/4-\udcff.jpg"
