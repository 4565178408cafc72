"""Step folders: save and restore, detection of corruption, atomicity and pruning."""

import errno
import json
import os
import pathlib
import random
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf

from loops.checkpointing import checkpoint, retention

DATA, INDEX, MANIFEST = "ckpt.data-00000-of-00001", "ckpt.index", "manifest.json"
SIZE = 500


def make_variables(value):
    """Makes variables of three dtypes; their keys contain slashes, as Keras's paths do."""
    weights = np.arange(SIZE, dtype=np.float32) + 1000.0 * value
    return {
        "model": {
            "stem_conv/kernel": tf.Variable(weights),
            "stem_conv/kernel_2": tf.Variable(weights[:3]),
            "block/bn/gamma": tf.Variable(tf.cast(weights[:7], tf.bfloat16)),
        },
        "optimizer": {"sgd/iterations": tf.Variable(value, dtype=tf.int64)},
        "counters": {"step": tf.Variable(value, dtype=tf.int64)},
    }


def to_arrays(variables):
    return {
        f"{group}:{name}": np.asarray(tf.cast(v, tf.float64))
        for group, variables_of_group in variables.items()
        for name, v in variables_of_group.items()
    }


def are_equal(a, b):
    a, b = to_arrays(a), to_arrays(b)
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def list_names(folder):
    return sorted(path.name for path in folder.iterdir())


def read_files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run folder with steps 3 and 7; read only."""
    run = tmp_path_factory.mktemp("saved")
    for step in (3, 7):
        checkpoint.save(run, step, make_variables(step))
    return run


@pytest.fixture
def run(saved, tmp_path):
    """A copy of the run folder that a test may change."""
    return pathlib.Path(shutil.copytree(saved, tmp_path / "run"))


def test_save_leaves_only_the_step_folder(saved):
    assert list_names(saved) == ["step-00000003", "step-00000007"]
    assert list_names(saved / "step-00000007") == [DATA, INDEX, MANIFEST]
    manifest = json.loads((saved / "step-00000007" / MANIFEST).read_text())
    assert manifest["step"] == 7
    assert set(manifest["files"]) == {DATA, INDEX}
    assert manifest["files"][INDEX]["bytes"] == (saved / "step-00000007" / INDEX).stat().st_size


def test_restore(saved):
    variables = make_variables(0)
    checkpoint.restore(saved / "step-00000007", variables)
    assert are_equal(variables, make_variables(7))
    checkpoint.restore(str(saved / "step-00000003"), variables)
    assert are_equal(variables, make_variables(3))


def test_file_contains_keys_and_dtypes(saved):
    """Keys with slashes stay distinct, and tensors keep their dtypes."""
    reader = tf.train.load_checkpoint(str(saved / "step-00000003" / "ckpt"))
    stored = reader.get_variable_to_dtype_map()
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    keys = {name.removesuffix(suffix).replace(".S", "/") for name in stored if suffix in name}
    assert keys == {
        "model/stem_conv/kernel",
        "model/stem_conv/kernel_2",
        "model/block/bn/gamma",
        "optimizer/sgd/iterations",
        "counters/step",
    }
    assert tf.bfloat16 in stored.values()


def test_restore_requires_exact_match(saved):
    extra, missing, reshaped = make_variables(0), make_variables(0), make_variables(0)
    extra["model"]["extra"] = tf.Variable(1.0)
    del missing["counters"]["step"]
    reshaped["model"]["stem_conv/kernel"] = tf.Variable(tf.zeros([SIZE - 1]))
    for variables in (extra, missing, reshaped):
        with pytest.raises((AssertionError, ValueError)):
            checkpoint.restore(saved / "step-00000007", variables)


def test_restore_partial(saved):
    part = {"model": {"block/bn/gamma": make_variables(0)["model"]["block/bn/gamma"]}}
    checkpoint.restore_partial(saved / "step-00000007", part)
    assert np.array_equal(
        part["model"]["block/bn/gamma"], make_variables(7)["model"]["block/bn/gamma"]
    )
    with pytest.raises(AssertionError):
        checkpoint.restore_partial(
            saved / "step-00000007", {"model": {"missing": tf.Variable(1.0)}}
        )
    with pytest.raises(ValueError, match="shape"):
        wrong = {"model": {"block/bn/gamma": tf.Variable(tf.zeros([8], tf.bfloat16))}}
        checkpoint.restore_partial(saved / "step-00000007", wrong)


@pytest.mark.parametrize("name", ["lr[0.1]", "a\\b", "*?{a,b}", "[!a]"])
def test_run_whose_name_is_a_pattern(tmp_path, name):
    """TensorFlow reads the paths of checkpoints as patterns."""
    folder = tmp_path / name
    folder.mkdir()
    variables = make_variables(3)
    step_dir = checkpoint.save(folder, 3, variables)
    assert list_names(folder) == ["step-00000003"]
    loaded = make_variables(0)
    checkpoint.restore(step_dir, loaded)
    assert are_equal(loaded, variables)
    part = {"model": make_variables(0)["model"]}
    checkpoint.restore_partial(step_dir, part)
    assert are_equal(part, {"model": variables["model"]})


def test_step_with_more_than_eight_digits(tmp_path):
    folder = checkpoint.save(tmp_path, 123_456_789, make_variables(1))
    assert folder.name == "step-123456789"
    checkpoint.save(tmp_path, 99_999_999, make_variables(2))
    assert checkpoint.find_newest_intact(tmp_path) == folder


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step-00000007", 7),
        ("step-123456789", 123_456_789),
        ("step-7", None),
        ("step-0000000a", None),
        (".tmp-00000007-12", None),
        (".del-step-00000007-12", None),
        ("step-00000007.old", None),
        ("train", None),
    ],
)
def test_parse_step(name, step):
    assert checkpoint.parse_step(pathlib.Path("run", name)) == step


def corrupt(folder, kind):
    """Corrupts a file of a step folder; `kind` is the file and the kind of damage."""
    path = folder / {"data": DATA, "index": INDEX, "manifest": MANIFEST}[kind.split()[0]]
    size = path.stat().st_size
    match kind.split(maxsplit=1)[1]:
        case "cut by a byte":
            os.truncate(path, size - 1)
        case "cut in half":
            os.truncate(path, size // 2)
        case "longer by a byte":
            path.write_bytes(path.read_bytes() + b"\0")
        case "empty":
            os.truncate(path, 0)
        case "missing":
            path.unlink()
        case "of another step":
            shutil.copy(folder.with_name("step-00000003") / path.name, path)
        case "full of zeros":
            path.write_bytes(b"\0" * size)
        case "a folder":
            path.unlink()
            path.mkdir()
        case text:
            path.write_text(text)


CORRUPTIONS = [
    *(
        f"{file} {kind}"
        for file in ("data", "index", "manifest")
        for kind in ("cut by a byte", "cut in half", "empty", "missing", "of another step")
    ),
    *(f"{file} {kind}" for file in ("data", "index") for kind in ("longer by a byte", "a folder")),
    *(f"{file} full of zeros" for file in ("data", "index", "manifest")),
    "manifest garbage \x7f{{{",
    "manifest []",
    "manifest null",
    "manifest 7",
    "manifest {}",
    'manifest {"step": 7}',
    'manifest {"step": 7, "files": {}}',
    'manifest {"step": 7, "files": []}',
    'manifest {"step": 7, "files": null}',
    'manifest {"step": 7, "files": {"ckpt.index": 5}}',
    'manifest {"step": 7, "files": {"ckpt.index": {}}}',
]


def assert_falls_back(run):
    """Asserts that step 7 is detected as corrupt and restores nothing, and step 3 is used."""
    bad = run / "step-00000007"
    with pytest.raises(checkpoint.CorruptCheckpointError):
        checkpoint.verify(bad)
    variables = make_variables(1)
    with pytest.raises(checkpoint.CorruptCheckpointError):
        checkpoint.restore(bad, variables)
    assert are_equal(variables, make_variables(1))
    newest = checkpoint.find_newest_intact(run)
    assert newest == run / "step-00000003"
    checkpoint.restore(newest, variables)
    assert are_equal(variables, make_variables(3))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_corruption_is_detected(run, kind):
    if kind == "manifest cut by a byte":  # without the line end it is still the same JSON
        os.truncate(run / "step-00000007" / MANIFEST, 40)
    corrupt(run / "step-00000007", kind)
    assert_falls_back(run)


@pytest.mark.parametrize("name", [DATA, INDEX])
def test_bit_flips_are_detected(run, name):
    path = run / "step-00000007" / name
    original = path.read_bytes()
    rng = random.Random(0)
    positions = {0, len(original) - 1} | {rng.randrange(len(original)) for _ in range(30)}
    for position in sorted(positions):
        flipped = bytearray(original)
        flipped[position] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(checkpoint.CorruptCheckpointError):
            checkpoint.verify(path.parent)
    assert_falls_back(run)
    path.write_bytes(original)
    assert checkpoint.find_newest_intact(run) == path.parent


def test_files_copied_from_another_step_are_detected(run):
    """The files are valid but belong to another step, which the manifest reveals."""
    for name in (DATA, INDEX):
        shutil.copy(run / "step-00000003" / name, run / "step-00000007" / name)
    assert_falls_back(run)


def test_renamed_step_folder_is_corrupt(run):
    os.rename(run / "step-00000003", run / "step-00000099")
    assert checkpoint.find_newest_intact(run) == run / "step-00000007"


def test_all_steps_corrupt(run):
    for step in ("step-00000003", "step-00000007"):
        (run / step / DATA).unlink()
    assert checkpoint.find_newest_intact(run) is None
    assert len(checkpoint.list_step_folders(run)) == 2


def test_run_without_checkpoints(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "step-00000009").write_text("a file")
    assert checkpoint.list_step_folders(tmp_path) == []
    assert checkpoint.find_newest_intact(tmp_path) is None
    assert checkpoint.find_best_intact(tmp_path) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nonfinite_variables_are_not_saved(run, bad):
    before = read_files(run)
    variables = make_variables(9)
    variables["model"]["block/bn/gamma"].assign([1, 2, bad, 4, 5, 6, 7])
    with pytest.raises(checkpoint.NonFiniteError, match="model/block/bn/gamma"):
        checkpoint.save(run, 9, variables)
    assert read_files(run) == before
    assert list_names(run) == ["step-00000003", "step-00000007"]


class FailingCall:
    """Wraps a function, counts its calls and raises an error at the n-th."""

    def __init__(self, real, at, error):
        self.real, self.at, self.error, self.calls = real, at, error, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return self.real(*args, **kwargs)


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()])
def test_failed_fsync_leaves_no_step_folder(run, monkeypatch, at, error):
    """Before the rename there are four syncs: of two files, the manifest and the folder."""
    before = read_files(run)
    fsync = FailingCall(os.fsync, at, error)
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(type(error)):
        checkpoint.save(run, 9, make_variables(9))
    assert fsync.calls == at
    assert read_files(run) == before
    assert list_names(run) == ["step-00000003", "step-00000007"]


def test_fsync_before_and_after_rename(run, monkeypatch):
    """Without a sync of the run folder, a power failure may undo the rename."""
    log = []
    fsync, rename = os.fsync, os.rename

    def logged_sync(descriptor):
        log.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def logged_rename(old, new):
        log.append("RENAME")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", logged_sync)
    monkeypatch.setattr(os, "rename", logged_rename)
    checkpoint.save(run, 9, make_variables(9))
    at = log.index("RENAME")
    assert sorted(log[:at])[1:] == [DATA, INDEX, MANIFEST]
    assert log[at - 1].startswith(".tmp-")
    assert log[at + 1 :] == [run.name]


def test_failed_rename_leaves_no_step_folder(run, monkeypatch):
    before = read_files(run)
    monkeypatch.setattr(os, "rename", FailingCall(os.rename, 1, FULL))
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(run, 9, make_variables(9))
    assert read_files(run) == before
    assert list_names(run) == ["step-00000003", "step-00000007"]


@pytest.mark.parametrize(("function", "at"), [("fsync", 1), ("fsync", 3), ("rename", 1)])
def test_kill_during_save_leaves_only_removable_files(run, monkeypatch, function, at):
    """A killed process cannot remove its temporary files."""
    with monkeypatch.context() as patch:
        patch.setattr(os, function, FailingCall(getattr(os, function), at, SystemExit(9)))
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            checkpoint.save(run, 9, make_variables(9))
    unfinished = set(list_names(run)) - {"step-00000003", "step-00000007"}
    assert len(unfinished) == 1 and unfinished.pop().startswith(".tmp-")
    assert checkpoint.find_newest_intact(run).name == "step-00000007"
    checkpoint.remove_unfinished(run)
    assert list_names(run) == ["step-00000003", "step-00000007"]
    checkpoint.save(run, 9, make_variables(9))
    assert checkpoint.find_newest_intact(run).name == "step-00000009"


def test_kill_during_prune(run, monkeypatch):
    """A partly removed folder must not keep the name of a step folder."""
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", FailingCall(shutil.rmtree, 1, SystemExit(9)))
        with pytest.raises(SystemExit):
            retention.prune(run, keep=1)
    assert [n for n in list_names(run) if n.startswith("step-")] == ["step-00000007"]
    checkpoint.remove_unfinished(run)
    assert list_names(run) == ["step-00000007"]


def test_full_disk_during_save(run):
    """The write fails inside TensorFlow."""
    variables = make_variables(9)
    variables["model"]["big"] = tf.Variable(tf.ones([100_000]))
    before = read_files(run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:  # Python ignores SIGXFSZ, so the write fails with EFBIG
        with pytest.raises((OSError, tf.errors.OpError)):
            checkpoint.save(run, 9, variables)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_files(run) == before
    assert list_names(run) == ["step-00000003", "step-00000007"]
    checkpoint.save(run, 9, variables)
    assert checkpoint.find_newest_intact(run).name == "step-00000009"


@pytest.mark.parametrize(
    ("bytes_kept", "kind"), [(None, (OSError, tf.errors.OpError)), (5, IndexError)]
)
def test_read_back_detects_wrong_writes(run, monkeypatch, bytes_kept, kind):
    """A disk flips a bit or loses bytes during the write."""
    write = tf.train.Checkpoint.write

    def flipping(self, prefix, *args, **kwargs):
        result = write(self, prefix, *args, **kwargs)
        path = pathlib.Path(f"{prefix}.data-00000-of-00001")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data[:bytes_kept])
        return result

    monkeypatch.setattr(tf.train.Checkpoint, "write", flipping)
    with pytest.raises(kind):
        checkpoint.save(run, 9, make_variables(9))
    assert list_names(run) == ["step-00000003", "step-00000007"]


def test_corrupt_step_is_replaced_when_trained_again(run):
    corrupt(run / "step-00000007", "data cut in half")
    checkpoint.save(run, 7, make_variables(70))
    variables = make_variables(0)
    checkpoint.restore(checkpoint.find_newest_intact(run), variables)
    assert are_equal(variables, make_variables(70))
    assert list_names(run) == ["step-00000003", "step-00000007"]


def test_remove_unfinished(run):
    (run / ".tmp-00000009-123").mkdir()
    (run / ".tmp-00000009-123" / DATA).write_bytes(b"half")
    (run / ".del-step-00000001-123").mkdir()
    (run / ".tmp-123-config.json").write_text("half")
    (run / "train").mkdir()
    (run / "config.json").write_text("{}")
    checkpoint.remove_unfinished(run)
    assert list_names(run) == ["config.json", "step-00000003", "step-00000007", "train"]


def save_many(run, **top1s):
    for name, top1 in top1s.items():
        metrics = {} if top1 is None else {"top1": top1, "nll": 1.0 - top1}
        checkpoint.save(run, int(name[1:]), {"c": {"s": tf.Variable(1)}}, metrics)


def steps(run):
    return [checkpoint.parse_step(folder) for folder in checkpoint.list_step_folders(run)]


def test_prune_keeps_newest_and_best(tmp_path):
    save_many(tmp_path, s1=0.2, s2=0.6, s3=0.4, s4=None, s5=0.5, s6=0.1)
    retention.prune(tmp_path, keep=2)
    assert steps(tmp_path) == [6, 5, 2]
    assert checkpoint.find_best_intact(tmp_path).name == "step-00000002"
    retention.prune(tmp_path, keep=2)
    assert steps(tmp_path) == [6, 5, 2]
    retention.prune(tmp_path, keep=1)
    assert steps(tmp_path) == [6, 2]
    assert all(not name.startswith(".") for name in list_names(tmp_path))


def test_prune_when_best_is_among_newest(tmp_path):
    save_many(tmp_path, s1=0.2, s2=0.3, s3=0.9)
    retention.prune(tmp_path, keep=1)
    assert steps(tmp_path) == [3]


def test_prune_without_metrics(tmp_path):
    save_many(tmp_path, s1=None, s2=None, s3=None)
    retention.prune(tmp_path, keep=2)
    assert steps(tmp_path) == [3, 2]
    assert checkpoint.find_best_intact(tmp_path) is None


def test_corrupt_best_falls_back_to_second_best(tmp_path):
    save_many(tmp_path, s1=0.6, s2=0.9, s3=0.1)
    corrupt(tmp_path / "step-00000002", "data cut by a byte")
    assert checkpoint.find_best_intact(tmp_path).name == "step-00000001"


def test_prune_with_invalid_manifest_of_best_step(tmp_path):
    save_many(tmp_path, s1=0.9, s2=0.3, s3=0.2)
    (tmp_path / "step-00000001" / MANIFEST).write_text("{")
    retention.prune(tmp_path, keep=1)
    assert checkpoint.find_newest_intact(tmp_path) == tmp_path / "step-00000003"
    assert checkpoint.find_best_intact(tmp_path) == tmp_path / "step-00000002"


def test_prune_does_not_count_corrupt_steps(tmp_path):
    """Step 3 is corrupt, so the run resumed from step 1 and has just saved step 2."""
    save_many(tmp_path, s1=None, s2=None, s3=None)
    corrupt(tmp_path / "step-00000003", "data cut by a byte")
    retention.prune(tmp_path, keep=1)
    assert checkpoint.find_newest_intact(tmp_path) == tmp_path / "step-00000002"


def test_prune_keeps_best_intact_step(tmp_path):
    """A corrupt step with a higher top-1 does not count."""
    save_many(tmp_path, s1=0.6, s2=0.9, s3=0.1, s4=0.2)
    corrupt(tmp_path / "step-00000002", "data cut by a byte")
    retention.prune(tmp_path, keep=1)
    assert checkpoint.find_best_intact(tmp_path) == tmp_path / "step-00000001"
