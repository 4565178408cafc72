"""Damages a file in one of a few ways."""

import contextlib
import json
import os
import pathlib
import re
from typing import Any

# Names of long values.
_LONG = {"DEEP": "[" * 100_000, "LONG": "9" * 5000}
# What can stand in place of a file.
STAND_INS = ("missing", "empty", "folder", "pipe", "link to itself", "/dev/zero", "image", "text")


def make_zero(path: pathlib.Path) -> None:
    """Makes a device like /dev/zero. A link to that could make root replace the real one."""
    try:
        os.mknod(path, 0o020666, os.makedev(1, 5))
    except PermissionError:
        path.symlink_to("/dev/zero")


def apply(root: pathlib.Path, pattern: str, how: str, number: int, value: str) -> None:
    """Damages a file.

    Args:
      root: folder of the file.
      pattern: glob of the file below it. The first match is damaged, if there is one.
      how: "replace" (with a stand-in), "flip" (a bit), "cut", "write" (over bytes), "insert",
        "digits" (a number by nines), "drop line", "double line", or "json" (a value).
      number: place in the file. It is counted in bytes, numbers, lines or values, and from the end
        if it is negative; larger numbers start over.
      value: the stand-in, or what is written; for JSON, a JSON text, or "" to remove the value.
    """
    path = next(iter(sorted(root.glob(pattern))), None)
    if path is None or not path.is_file():
        return
    if how == "replace":
        path.unlink()
        _put_stand_in(path, value)
        return
    data = path.read_bytes()
    place = number % (len(data) or 1)
    value = _LONG.get(value, value)
    written = value.encode("utf-8", "surrogateescape")
    if how == "flip" and data:
        data = data[:place] + bytes([data[place] ^ 1 << number % 8]) + data[place + 1 :]
    elif how == "cut":
        data = data[:place]
    elif how == "write":
        data = data[:place] + written + data[place + len(written) :]
    elif how == "insert":
        data = data[:place] + written + data[place:]
    elif how == "digits" and (runs := list(re.finditer(rb"\d+", data))):
        start, stop = runs[number % len(runs)].span()
        data = data[:start] + b"9" * (stop - start) + data[stop:]
    elif how.endswith("line") and (lines := data.splitlines(keepends=True)):
        lines[number % len(lines)] *= 2 if how.startswith("double") else 0
        data = b"".join(lines)
    elif how == "json" and data.strip():
        with contextlib.suppress(ValueError, RecursionError):  # it is damaged already
            data = _damage_json(data.decode(), number, value).encode()
    path.write_bytes(data)


def _put_stand_in(path: pathlib.Path, name: str) -> None:
    if name == "folder":
        path.mkdir()
    elif name == "pipe":
        os.mkfifo(path)
    elif name == "link to itself":
        path.symlink_to(path.name)
    elif name == "/dev/zero":
        make_zero(path)
    elif name != "missing":
        path.write_bytes({"empty": b"", "image": b"\xff\xd8\xff\xe0", "text": b"text\n"}[name])


def _damage_json(text: str, number: int, value: str) -> str:
    """Replaces or removes one value in a JSON text, or in one line of a JSON-lines text."""
    lines = text.splitlines(keepends=True)
    try:
        parts = [json.loads(text)]
    except ValueError:
        parts = [json.loads(line) for line in lines]
    is_lines = len(parts) > 1
    index = number % len(parts)
    document = [parts[index]]
    nodes = _list_nodes(document)
    container, key = nodes[number // len(parts) % len(nodes)]
    if value:
        container[key] = "REPLACED"
    elif container is not document:
        del container[key]
    changed = json.dumps(document[0]).replace('"REPLACED"', value)
    return "".join([*lines[:index], f"{changed}\n", *lines[index + 1 :]]) if is_lines else changed


def _list_nodes(node: Any) -> list[tuple[Any, Any]]:
    """Returns (container, key) of every value inside a container."""
    keys = list(node) if isinstance(node, dict) else range(len(node))
    nodes = [(node, key) for key in keys]
    for key in keys:
        if isinstance(node[key], dict | list):
            nodes += _list_nodes(node[key])
    return nodes
