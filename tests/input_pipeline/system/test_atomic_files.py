"""Atomic file writes: the old or the new content, never a part of it."""

import errno
import hashlib
import os

import pytest

from input_pipeline.system import atomic_files


def test_write_bytes_creates_and_replaces_a_file(tmp_path):
    path = tmp_path / "file"
    for data in (b"old", b"new", b""):
        atomic_files.write_bytes(path, data)
        assert path.read_bytes() == data
    assert os.listdir(tmp_path) == ["file"]


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_files.write_bytes(path, b"old")

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_system_without_fsync(tmp_path, monkeypatch, number):
    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    atomic_files.write_bytes(tmp_path / "file", b"data")
    atomic_files.sync(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"data"


def test_content_is_synced_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    path, log = tmp_path / "file", []
    fsync = os.fsync

    def recording_fsync(descriptor):
        log.append((os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")), path.exists()))
        fsync(descriptor)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc")
    monkeypatch.setattr(os, "fsync", recording_fsync)
    atomic_files.write_bytes(path, b"data")
    assert log == [(f".tmp-{os.getpid()}-file", False), (tmp_path.name, True)]


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    assert atomic_files.sha256(tmp_path / "file") == hashlib.sha256(b"data").hexdigest()
