"""Files of logits: what is written comes back, and what somebody else wrote can do no harm."""

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


def split_of(labels=(0, 1, 2, 1, 0), fingerprint="f"):
    return types.SimpleNamespace(
        num_examples=len(labels),
        labels=np.array(labels, np.int32),
        class_names=("cat", "dog", "eel"),
        fingerprint=fingerprint,
        describe=lambda i: f"val/{i}.jpg",
    )


def logits_of(seed):
    return np.random.default_rng(seed).normal(0, 3, (N, V, C)).astype(np.float32)


def write(path, seeds=(0,), views=V, split=None):
    with logits_writer.Writer(path, split or split_of(), {"dataset": "d", "split": "val"}) as file:
        for seed in seeds:
            add = file.begin_model({"model": f"m{seed}", "step": seed, "image_size": 32}, views)
            for start in range(0, N, 2):  # batches, the last one smaller
                add(logits_of(seed)[start : start + 2, :views])
        file.finish()
    return path


def test_what_is_written_comes_back(tmp_path):
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
    for seed, member in enumerate(file.members):
        logits = logits_of(seed)
        assert (member.facts["model"], member.views) == (f"m{seed}", V)
        np.testing.assert_array_equal(member.probabilities(V), classification.mean_softmax(logits))
        np.testing.assert_array_equal(
            member.probabilities(1), classification.mean_softmax(logits[:, 4:5])
        )
    with np.load(path, allow_pickle=False) as plain:  # and for anybody else, a plain npz
        np.testing.assert_array_equal(plain["logits_1"], logits_of(1))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz"]


def test_a_pass_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError):
        with logits_writer.Writer(tmp_path / "a.npz", split_of(), {}) as file:
            file.begin_model({"model": "m"}, V)
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_logits_that_are_not_finite_are_not_written(tmp_path):
    with logits_writer.Writer(tmp_path / "a.npz", split_of(), {}) as file:
        add = file.begin_model({"model": "m"}, V)
        with pytest.raises(DataError, match="not finite"):
            add(np.full((1, V, C), np.nan, np.float32))


def test_a_full_disk_gets_one_line(tmp_path):
    with logits_writer.Writer("/dev/full", split_of(), {}) as file:
        file._temporary = pathlib.Path("/dev/full")
        with pytest.raises(UsageError, match=r"--save_logits=/dev/full: could not be written"):
            add = file.begin_model({"model": "m"}, V)
            for _ in range(1000):
                add(np.zeros((N, V, C), np.float32))
        file._temporary = tmp_path / "nothing"


def test_files_of_other_images_are_not_compared(tmp_path):
    first = write(tmp_path / "a.npz")
    assert len(logits_reader.read_all(f"{first},{write(tmp_path / 'b.npz', (1,))}")) == 2
    others = [split_of(fingerprint="g"), split_of((0, 1, 2, 1, 1))]
    for number, (other, word) in enumerate(zip(others, ("fingerprint", "labels"), strict=True)):
        path = write(tmp_path / f"other{number}.npz", split=other)
        with pytest.raises(UsageError, match=rf"--logits=.*other{number}.*{word}"):
            logits_reader.read_all(f"{first},{path}")


def arrays():
    """What a good file holds."""
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
        "logits_0": logits_of(0),
    }


def saved(path, facts, **changed):
    data = arrays()[1] | {"meta": np.frombuffer(json.dumps(facts).encode(), np.uint8)} | changed
    np.savez(path, **{k: v for k, v in data.items() if v is not None})


def with_entry(path, name, data, **kwargs):
    """A good file, but for the raw bytes of one entry."""
    saved(path, arrays()[0], **{name: None})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", data, **kwargs)


def npy_bytes(array, **changed):
    """An npy file whose header says something else than its data."""
    buffer = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array) | changed
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


class Canary:
    def __reduce__(self):
        return os.mkdir, (str(pathlib.Path(os.environ["CANARY"])),)


def changed_meta(**facts):
    return lambda path: saved(path, arrays()[0] | facts)


def flipped(path):
    data = bytearray(write(path).read_bytes())
    at = bytes(data).find(logits_of(0)[2].tobytes())
    data[at] ^= 1
    path.write_bytes(data)


def pickled(path):
    data = np.empty(1, object)
    data[0] = Canary()
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, data, allow_pickle=True)
    with_entry(path, "meta", buffer.getvalue())


def bomb(path):
    zeros = npy_bytes(np.zeros(0, np.float32), shape=(N, V, C), fortran_order=False)
    zeros += bytes(200_000_000)
    with_entry(path, "logits_0", zeros, compress_type=zipfile.ZIP_DEFLATED)


def nan_logits(path):
    logits = logits_of(0)
    logits[3, 7, 1] = np.inf
    saved(path, arrays()[0], logits_0=logits)


HOSTILE = {
    "not a zip": lambda p: p.write_bytes(b"no logits here" * 9),
    "empty": lambda p: p.write_bytes(b""),
    "a pickle": lambda p: p.write_bytes(pickle.dumps(Canary())),
    "a pickled array": pickled,
    "truncated": lambda p: p.write_bytes(write(p).read_bytes()[:-300]),
    "flipped bit": flipped,
    "compressed bomb": bomb,
    "logits missing": lambda p: saved(p, arrays()[0], logits_0=None),
    "labels missing": lambda p: saved(p, arrays()[0], labels=None),
    "wrong dtype": lambda p: saved(p, arrays()[0], logits_0=logits_of(0).astype(np.float64)),
    "wrong byte order": lambda p: saved(p, arrays()[0], logits_0=logits_of(0).astype(">f4")),
    "wrong rank": lambda p: saved(p, arrays()[0], logits_0=logits_of(0)[:, 0]),
    "other images": lambda p: saved(p, arrays()[0], logits_0=logits_of(0)[:4]),
    "other classes": lambda p: saved(p, arrays()[0], logits_0=logits_of(0)[..., :2]),
    "seven views": lambda p: saved(p, arrays()[0], logits_0=logits_of(0)[:, :7].copy()),
    "not finite": nan_logits,
    "label out of range": lambda p: saved(p, arrays()[0], labels=np.full(N, 3, np.int32)),
    "label below zero": lambda p: saved(p, arrays()[0], labels=np.full(N, -1, np.int32)),
    "no images": lambda p: saved(p, arrays()[0], labels=np.zeros(0, np.int32), names=None),
    "header of a giant": lambda p: with_entry(
        p, "logits_0", npy_bytes(logits_of(0), shape=(2**40, V, C))
    ),
    "header of negative size": lambda p: with_entry(
        p, "logits_0", npy_bytes(logits_of(0), shape=(-N, -V, C))
    ),
    "header that is code": lambda p: with_entry(
        p, "logits_0", npy_bytes(logits_of(0)).replace(b"False", b"f.x()")
    ),
    "other format": changed_meta(format=2),
    "no models": changed_meta(models=[]),
    "models that are text": changed_meta(models="m"),
    "a model without a step": changed_meta(models=[{"model": "m", "image_size": 3}]),
    "classes that are a number": changed_meta(class_names=3),
    "a dataset that is a list": changed_meta(dataset=["d"]),
    "meta that is a list": lambda p: saved(p, [1, 2]),
    "meta nested deep": lambda p: with_entry(
        p, "meta", npy_bytes(np.frombuffer(b"[" * 100_000, np.uint8))
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_get_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CANARY", str(tmp_path / "canary"))
    path = tmp_path / "a.npz"
    HOSTILE[name](path)
    with pytest.raises(UsageError) as caught:
        for member in logits_reader.LogitsFile(path).members:
            member.probabilities(V)
    assert str(caught.value).startswith(f"--logits={path}: ") and "\n" not in str(caught.value)
    assert not (tmp_path / "canary").exists()


def test_a_bomb_is_refused_before_it_takes_memory(tmp_path):
    """In a process of its own: making the file has taken more than reading it would."""
    HOSTILE["compressed bomb"](tmp_path / "a.npz")
    code = (
        "import resource, sys\n"
        "from loops.metrics import logits_reader\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    [m.probabilities(1) for m in logits_reader.LogitsFile(sys.argv[1]).members]\n"
        "except logits_reader.UsageError:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "a.npz"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) < 50_000  # kB


def test_random_damage_is_found_or_does_not_matter(tmp_path):
    """400 files, each with one to three bytes changed or with its end cut off."""
    good = write(tmp_path / "good.npz").read_bytes()
    expected = classification.mean_softmax(logits_of(0))
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(400):
        data = bytearray(good)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        if rng.random() < 0.1:
            del data[int(rng.integers(len(data))) :]
        (tmp_path / "a.npz").write_bytes(data)
        try:
            (member,) = logits_reader.LogitsFile(tmp_path / "a.npz").members
            np.testing.assert_array_equal(member.probabilities(V), expected)
        except UsageError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 300


def test_the_good_file_of_the_hostile_ones_is_good(tmp_path):
    saved(tmp_path / "a.npz", arrays()[0])
    (member,) = logits_reader.LogitsFile(tmp_path / "a.npz").members
    assert member.probabilities(V).shape == (N, C)


@pytest.mark.parametrize("what", ["missing", "folder", "pipe"])
def test_what_is_no_file(what, tmp_path):
    path = tmp_path / "a.npz"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)  # opening it would wait for ever
    with pytest.raises(UsageError, match="no such file"):
        logits_reader.LogitsFile(path)


def test_names_that_are_not_utf8_come_back(tmp_path):
    """As file systems allow them; the pass over the images is not lost."""
    split = split_of()
    split.describe = lambda i: f"val/{i}-\udcff.jpg"
    file = logits_reader.LogitsFile(write(tmp_path / "a.npz", split=split))
    assert file.names[4] == "val/4-\udcff.jpg"
