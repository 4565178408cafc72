"""Checks and expands the paths on a command line."""

import os
import re

from input_pipeline.errors import UsageError

# gs://BUCKET and file:///folder, HOST:/folder as in scp, C:\folder and \\HOST\folder.
_REMOTE = re.compile(r"[^/\\]+:[/\\]|\\\\")
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*|\{[A-Za-z_]\w*\})")


def split(text: str) -> list[str]:
    """Splits a list of paths at its commas. A path that exists, or its folder, is not split."""
    path = os.path.expanduser(text)
    folder = os.path.dirname(path.rstrip("/"))
    is_one = os.path.exists(path) or ("," in folder and os.path.isdir(folder))
    return [text] if is_one else text.split(",")


def expand_all(flag: str, text: str) -> str:
    """Expands each path of a list that is separated by commas; see `expand`."""
    return ",".join(expand(flag, path) for path in split(text))


def expand(flag: str, path: str) -> str:
    """Replaces `~` and `~USER` at the start of a path, as a shell does where it sees one.

    Args:
      flag: name of the flag, for error messages.
      path: a path from the command line.

    Raises:
      UsageError: the path is empty, is not local, or contains what the shell should have replaced.
    """
    where = f"--{flag}={path}"
    if not path.strip():
        raise UsageError(f"--{flag} is missing: its path is empty; name one, or drop the flag")
    if "\0" in path:
        raise UsageError(f"--{flag}={path!r}: a path cannot contain a null character")
    if path.startswith(("https://", "http://")):
        hub = "; --weights=timm/NAME downloads by itself" if flag == "weights" else ""
        raise UsageError(
            f"{where}: is not a local path; download it with curl -LO and name the file{hub}"
        )
    if _REMOTE.match(path):
        raise UsageError(
            f"{where}: is not a local path; mount or copy it, and name the local path (./ in front"
            " of a local name with a colon)"
        )
    if path.startswith("~"):
        path = os.path.expanduser(path)
        if path.startswith("~") and not os.path.lexists(path):
            raise UsageError(f"{where}: there is no such user or home; write the whole path")
    variable = _VARIABLE.search(path)
    if variable and not os.path.lexists(_cut_after(path, variable.end())):
        raise UsageError(
            f"{where}: the shell has not replaced {variable[0]}; remove the quotes around it, or"
            " write the whole path"
        )
    return path


def _cut_after(path: str, position: int) -> str:
    """Returns the path up to the end of the name at a position."""
    return path[:position] + path[position:].partition("/")[0]
