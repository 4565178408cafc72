"""Files of strangers are read without waiting for pipes, reading devices or filling the memory."""

import os
import socket

import pytest

from input_pipeline.system import regular_files


def make_irregular(folder, kind):
    """Makes a path that is not a regular file."""
    path = folder / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "link to a device"])
def test_only_regular_files_are_opened(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with pytest.raises(PermissionError, match="not a file"):
        regular_files.open_regular(make_irregular(tmp_path, kind).relative_to(tmp_path))


@pytest.mark.parametrize("read", [lambda f: f.read(9), lambda f: f.read(), lambda f: f.raw.read(9)])
def test_read_error_names_the_file(tmp_path, read):
    """Linux answers EIO for the first bytes of this file."""
    (tmp_path / "file").symlink_to("/proc/self/mem")
    with regular_files.open_regular(tmp_path / "file") as file, pytest.raises(OSError) as caught:
        read(file)
    assert caught.value.filename == str(tmp_path / "file")


def test_a_pipe_that_appears_after_the_first_check_does_not_block(tmp_path, monkeypatch):
    regular = tmp_path / "file"
    regular.write_bytes(b"")
    status = os.stat(regular)
    monkeypatch.setattr(os, "stat", lambda path: status)
    with pytest.raises(PermissionError, match="not a file"):
        regular_files.open_regular(make_irregular(tmp_path, "pipe"))


def test_links_to_regular_files_are_followed(tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to("file")
    assert regular_files.read_bytes(tmp_path / "link", 4) == b"data"


def test_size_is_checked_before_reading(tmp_path):
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(PermissionError, match="1099511627776 bytes"):
        regular_files.read_json(path)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"{", b"\xff", b'{"a":' * 100_000])
def test_malformed_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        regular_files.parse_json(text)
