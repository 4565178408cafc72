"""Step folders: what is saved comes back, what is damaged is never taken for a step."""

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


def make(value):
    """Variables of three types in nested dicts, whose keys have slashes as Keras's paths do."""
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


def values_of(variables):
    return {
        f"{group}:{name}": np.asarray(tf.cast(v, tf.float64))
        for group, members in variables.items()
        for name, v in members.items()
    }


def same(one, two):
    one, two = values_of(one), values_of(two)
    return one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run folder with steps 3 and 7; never changed."""
    run = tmp_path_factory.mktemp("saved")
    for step in (3, 7):
        checkpoint.save(run, step, make(step))
    return run


@pytest.fixture
def run(saved, tmp_path):
    """A copy of it that a test may damage."""
    return pathlib.Path(shutil.copytree(saved, tmp_path / "run"))


def test_save_writes_one_folder_and_leaves_nothing_else(saved):
    assert names(saved) == ["step-00000003", "step-00000007"]
    assert names(saved / "step-00000007") == [DATA, INDEX, MANIFEST]
    manifest = json.loads((saved / "step-00000007" / MANIFEST).read_text())
    assert manifest["step"] == 7
    assert set(manifest["files"]) == {DATA, INDEX}
    assert manifest["files"][INDEX]["bytes"] == (saved / "step-00000007" / INDEX).stat().st_size


def test_restore(saved):
    variables = make(0)
    checkpoint.restore(saved / "step-00000007", variables)
    assert same(variables, make(7))
    checkpoint.restore(str(saved / "step-00000003"), variables)
    assert same(variables, make(3))


def test_other_programs_see_the_keys_as_they_are(saved):
    """Slashes neither make levels nor collide, and the tensors have their own types."""
    reader = tf.train.load_checkpoint(str(saved / "step-00000003" / "ckpt"))
    stored = reader.get_variable_to_dtype_map()
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    found = {name.removesuffix(suffix).replace(".S", "/") for name in stored if suffix in name}
    assert found == {
        "model/stem_conv/kernel",
        "model/stem_conv/kernel_2",
        "model/block/bn/gamma",
        "optimizer/sgd/iterations",
        "counters/step",
    }
    assert tf.bfloat16 in stored.values()


def test_restore_wants_every_variable_on_both_sides(saved):
    more, fewer, other = make(0), make(0), make(0)
    more["model"]["extra"] = tf.Variable(1.0)
    del fewer["counters"]["step"]
    other["model"]["stem_conv/kernel"] = tf.Variable(tf.zeros([SIZE - 1]))
    for variables in (more, fewer, other):
        with pytest.raises((AssertionError, ValueError)):
            checkpoint.restore(saved / "step-00000007", variables)


def test_read_part(saved):
    part = {"model": {"block/bn/gamma": make(0)["model"]["block/bn/gamma"]}}
    checkpoint.restore_partial(saved / "step-00000007", part)
    assert np.array_equal(part["model"]["block/bn/gamma"], make(7)["model"]["block/bn/gamma"])
    with pytest.raises(AssertionError):
        checkpoint.restore_partial(
            saved / "step-00000007", {"model": {"missing": tf.Variable(1.0)}}
        )
    with pytest.raises(ValueError, match="shape"):
        wrong = {"model": {"block/bn/gamma": tf.Variable(tf.zeros([8], tf.bfloat16))}}
        checkpoint.restore_partial(saved / "step-00000007", wrong)


def test_a_step_beyond_eight_digits(tmp_path):
    folder = checkpoint.save(tmp_path, 123_456_789, make(1))
    assert folder.name == "step-123456789"
    checkpoint.save(tmp_path, 99_999_999, make(2))
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
def test_step_of(name, step):
    assert checkpoint.parse_step(pathlib.Path("run", name)) == step


def damaged(folder, kind):
    """Damages a step folder in one of the ways that disks and people do."""
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


DAMAGE = [
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
    """Step 7 of a run is damaged: it is passed over and restores nothing at all."""
    bad = run / "step-00000007"
    with pytest.raises(checkpoint.CorruptCheckpointError):
        checkpoint.verify(bad)
    variables = make(1)
    with pytest.raises(checkpoint.CorruptCheckpointError):
        checkpoint.restore(bad, variables)
    assert same(variables, make(1))
    newest = checkpoint.find_newest_intact(run)
    assert newest == run / "step-00000003"
    checkpoint.restore(newest, variables)
    assert same(variables, make(3))


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found(run, kind):
    if kind == "manifest cut by a byte":  # the line's end: the same JSON
        os.truncate(run / "step-00000007" / MANIFEST, 40)
    damaged(run / "step-00000007", kind)
    assert_falls_back(run)


@pytest.mark.parametrize("name", [DATA, INDEX])
def test_bit_flips_are_found(run, name):
    path = run / "step-00000007" / name
    whole = path.read_bytes()
    rng = random.Random(0)
    places = {0, len(whole) - 1} | {rng.randrange(len(whole)) for _ in range(30)}
    for place in sorted(places):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(checkpoint.CorruptCheckpointError):
            checkpoint.verify(path.parent)
    assert_falls_back(run)
    path.write_bytes(whole)
    assert checkpoint.find_newest_intact(run) == path.parent


def test_both_files_of_another_step(run):
    """As after a mistaken copy: the manifest tells them apart although they are sound."""
    for name in (DATA, INDEX):
        shutil.copy(run / "step-00000003" / name, run / "step-00000007" / name)
    assert_falls_back(run)


def test_a_renamed_step_folder_is_not_believed(run):
    os.rename(run / "step-00000003", run / "step-00000099")
    assert checkpoint.find_newest_intact(run) == run / "step-00000007"


def test_every_step_damaged(run):
    for step in ("step-00000003", "step-00000007"):
        (run / step / DATA).unlink()
    assert checkpoint.find_newest_intact(run) is None
    assert len(checkpoint.list_step_folders(run)) == 2


def test_no_steps(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "step-00000009").write_text("a file")
    assert checkpoint.list_step_folders(tmp_path) == []
    assert checkpoint.find_newest_intact(tmp_path) is None
    assert checkpoint.find_best_intact(tmp_path) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_written(run, bad):
    before = contents(run)
    variables = make(9)
    variables["model"]["block/bn/gamma"].assign([1, 2, bad, 4, 5, 6, 7])
    with pytest.raises(checkpoint.NonFiniteError, match="model/block/bn/gamma"):
        checkpoint.save(run, 9, variables)
    assert contents(run) == before
    assert names(run) == ["step-00000003", "step-00000007"]


class Disk:
    """Counts the calls of an os function and fails at the n-th."""

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
def test_a_failing_sync_leaves_no_step(run, monkeypatch, at, error):
    """Files, manifest and folder are synced before the rename: four chances to fail."""
    before = contents(run)
    disk = Disk(os.fsync, at, error)
    monkeypatch.setattr(os, "fsync", disk)
    with pytest.raises(type(error)):
        checkpoint.save(run, 9, make(9))
    assert disk.calls == at
    assert contents(run) == before
    assert names(run) == ["step-00000003", "step-00000007"]


def test_everything_is_synced_before_the_name_and_the_name_after(run, monkeypatch):
    """Without the last one a power cut may take the new name back."""
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
    checkpoint.save(run, 9, make(9))
    at = log.index("RENAME")
    assert sorted(log[:at])[1:] == [DATA, INDEX, MANIFEST]
    assert log[at - 1].startswith(".tmp-")
    assert log[at + 1 :] == [run.name]


def test_a_failing_rename_leaves_no_step(run, monkeypatch):
    before = contents(run)
    monkeypatch.setattr(os, "rename", Disk(os.rename, 1, FULL))
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(run, 9, make(9))
    assert contents(run) == before
    assert names(run) == ["step-00000003", "step-00000007"]


@pytest.mark.parametrize(("function", "at"), [("fsync", 1), ("fsync", 3), ("rename", 1)])
def test_a_kill_in_the_middle_leaves_only_junk_that_clean_takes(run, monkeypatch, function, at):
    """A process that ends there and then has no chance to tidy up."""
    with monkeypatch.context() as patch:
        patch.setattr(os, function, Disk(getattr(os, function), at, SystemExit(9)))
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(SystemExit):
            checkpoint.save(run, 9, make(9))
    junk = set(names(run)) - {"step-00000003", "step-00000007"}
    assert len(junk) == 1 and junk.pop().startswith(".tmp-00000009-")
    assert checkpoint.find_newest_intact(run).name == "step-00000007"
    checkpoint.remove_unfinished(run)
    assert names(run) == ["step-00000003", "step-00000007"]
    checkpoint.save(run, 9, make(9))
    assert checkpoint.find_newest_intact(run).name == "step-00000009"


def test_a_kill_while_an_old_step_is_removed(run, monkeypatch):
    """Half a folder must not stay under the name of a step."""
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", Disk(shutil.rmtree, 1, SystemExit(9)))
        with pytest.raises(SystemExit):
            retention.prune(run, keep=1)
    assert [n for n in names(run) if n.startswith("step-")] == ["step-00000007"]
    checkpoint.remove_unfinished(run)
    assert names(run) == ["step-00000007"]


def test_a_disk_that_takes_no_more_bytes(run):
    """The writer itself fails, in TensorFlow's code, not in ours."""
    variables = make(9)
    variables["model"]["big"] = tf.Variable(tf.ones([100_000]))
    before = contents(run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:  # Python ignores SIGXFSZ, so writing fails with EFBIG
        with pytest.raises((OSError, tf.errors.OpError)):
            checkpoint.save(run, 9, variables)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(run) == before
    assert names(run) == ["step-00000003", "step-00000007"]
    checkpoint.save(run, 9, variables)
    assert checkpoint.find_newest_intact(run).name == "step-00000009"


@pytest.mark.parametrize(
    ("bytes_kept", "kind"), [(None, (OSError, tf.errors.OpError)), (5, IndexError)]
)
def test_what_was_written_wrong_is_not_renamed(run, monkeypatch, bytes_kept, kind):
    """A disk that flips a bit as it writes, or loses some, is caught by the reading back."""
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
        checkpoint.save(run, 9, make(9))
    assert names(run) == ["step-00000003", "step-00000007"]


def test_a_corrupt_step_is_replaced_when_it_is_trained_again(run):
    damaged(run / "step-00000007", "data cut in half")
    checkpoint.save(run, 7, make(70))
    variables = make(0)
    checkpoint.restore(checkpoint.find_newest_intact(run), variables)
    assert same(variables, make(70))
    assert names(run) == ["step-00000003", "step-00000007"]


def test_clean_takes_what_a_killed_process_left(run):
    (run / ".tmp-00000009-123").mkdir()
    (run / ".tmp-00000009-123" / DATA).write_bytes(b"half")
    (run / ".del-step-00000001-123").mkdir()
    (run / ".tmp-123-config.json").write_text("half")
    (run / "train").mkdir()
    (run / "config.json").write_text("{}")
    checkpoint.remove_unfinished(run)
    assert names(run) == ["config.json", "step-00000003", "step-00000007", "train"]


def save_many(run, **top1_of_step):
    for name, top1 in top1_of_step.items():
        metrics = {} if top1 is None else {"top1": top1, "nll": 1.0 - top1}
        checkpoint.save(run, int(name[1:]), {"c": {"s": tf.Variable(1)}}, metrics)


def steps(run):
    return [checkpoint.parse_step(folder) for folder in checkpoint.list_step_folders(run)]


def test_prune_keeps_the_newest_and_the_best(tmp_path):
    save_many(tmp_path, s1=0.2, s2=0.6, s3=0.4, s4=None, s5=0.5, s6=0.1)
    retention.prune(tmp_path, keep=2)
    assert steps(tmp_path) == [6, 5, 2]
    assert checkpoint.find_best_intact(tmp_path).name == "step-00000002"
    retention.prune(tmp_path, keep=2)
    assert steps(tmp_path) == [6, 5, 2]
    retention.prune(tmp_path, keep=1)
    assert steps(tmp_path) == [6, 2]
    assert all(not name.startswith(".") for name in names(tmp_path))


def test_prune_where_the_best_is_among_the_newest(tmp_path):
    save_many(tmp_path, s1=0.2, s2=0.3, s3=0.9)
    retention.prune(tmp_path, keep=1)
    assert steps(tmp_path) == [3]


def test_prune_without_any_figures(tmp_path):
    save_many(tmp_path, s1=None, s2=None, s3=None)
    retention.prune(tmp_path, keep=2)
    assert steps(tmp_path) == [3, 2]
    assert checkpoint.find_best_intact(tmp_path) is None


def test_the_best_that_is_damaged_gives_way_to_the_second(tmp_path):
    save_many(tmp_path, s1=0.6, s2=0.9, s3=0.1)
    damaged(tmp_path / "step-00000002", "data cut by a byte")
    assert checkpoint.find_best_intact(tmp_path).name == "step-00000001"


def test_a_best_step_with_a_broken_manifest_does_not_stop_the_pruning(tmp_path):
    save_many(tmp_path, s1=0.9, s2=0.3, s3=0.2)
    (tmp_path / "step-00000001" / MANIFEST).write_text("{")
    retention.prune(tmp_path, keep=1)
    assert checkpoint.find_newest_intact(tmp_path) == tmp_path / "step-00000003"
    assert checkpoint.find_best_intact(tmp_path) == tmp_path / "step-00000002"


def test_prune_does_not_count_damaged_steps(tmp_path):
    """A run went on from step 1 since step 3 is damaged, and has just saved step 2."""
    save_many(tmp_path, s1=None, s2=None, s3=None)
    damaged(tmp_path / "step-00000003", "data cut by a byte")
    retention.prune(tmp_path, keep=1)
    assert checkpoint.find_newest_intact(tmp_path) == tmp_path / "step-00000002"


def test_a_damaged_best_step_does_not_shield_itself(tmp_path):
    """The best of those that can still be read is kept."""
    save_many(tmp_path, s1=0.6, s2=0.9, s3=0.1, s4=0.2)
    damaged(tmp_path / "step-00000002", "data cut by a byte")
    retention.prune(tmp_path, keep=1)
    assert checkpoint.find_best_intact(tmp_path) == tmp_path / "step-00000001"
