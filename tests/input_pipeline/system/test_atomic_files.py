"""Atomic file writes: the old or the new content, never a part of it."""

import errno
import hashlib
import os
import secrets
import stat

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
    (temporary, was_renamed), (folder, is_renamed) = log
    assert temporary.startswith(".tmp-") and not was_renamed
    assert (folder, is_renamed) == (tmp_path.name, True)


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    assert atomic_files.sha256(tmp_path / "file") == hashlib.sha256(b"data").hexdigest()


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    target, link = tmp_path / "precious", tmp_path / "link"
    target.write_bytes(b"precious")
    link.symlink_to(target)
    atomic_files.write_bytes(link, b"new")
    assert not link.is_symlink() and link.read_bytes() == b"new"
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_permissions_of_a_replaced_file_are_kept(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    atomic_files.write_bytes(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_respects_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        atomic_files.write_bytes(tmp_path / "file", b"data")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_temporary_files_are_created_exclusively(tmp_path, monkeypatch):
    """A link with the temporary name makes the write fail and is not followed."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    monkeypatch.setattr(secrets, "token_hex", lambda number: "0")
    (tmp_path / ".tmp-0").symlink_to(precious)
    with pytest.raises(FileExistsError):
        atomic_files.write_bytes(tmp_path / "file", b"new")
    assert precious.read_bytes() == b"precious"
    assert (tmp_path / ".tmp-0").is_symlink()


def test_appending_refuses_links_pipes_and_folders(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PermissionError, match="is a link"):
        atomic_files.open_to_append(tmp_path / "link")
    for name in ("pipe", "folder"):
        with pytest.raises(PermissionError, match="is not a regular file"):
            atomic_files.open_to_append(tmp_path / name)
    assert not (tmp_path / "target").exists()
    for data in (b"a", b"b"):
        with atomic_files.open_to_append(tmp_path / "file") as file:
            file.write(data)
    assert (tmp_path / "file").read_bytes() == b"ab"


def test_make_folder_refuses_a_link(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(PermissionError, match="is a link"):
        atomic_files.make_folder(tmp_path / "link")
    for _ in range(2):
        atomic_files.make_folder(tmp_path / "folder")
    assert (tmp_path / "folder").is_dir()
