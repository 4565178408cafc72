"""Checks the folders of runs on a command line, without TensorFlow, and says what to type."""

import difflib
import pathlib

from input_pipeline.errors import UsageError

_DEFAULT_ROOT = pathlib.Path("checkpoints")
_MAX_SHOWN = 5


def require_folder(path: str, flag: str) -> None:
    """Raises UsageError if a path is no folder, or contains runs but is not one.

    Args:
      path: RUN, RUN/best or a step folder.
      flag: the flag that has this value, with its dashes.
    """
    folder, where = pathlib.Path(path), f"{flag}={path}"
    if folder.name == "best" and not folder.exists() and folder.parent.is_dir():
        folder = folder.parent
    if not folder.is_dir():
        similar = _find_similar(folder)
        hint = f"; did you mean {flag}={similar}?" if similar else ""
        raise UsageError(f"{where}: there is no such folder{hint}")
    if not (folder / "config.json").exists() and (runs := list_runs(folder)):
        shown = ", ".join(map(str, runs[:_MAX_SHOWN])) + ", ..." * (len(runs) > _MAX_SHOWN)
        raise UsageError(f"{where}: contains runs but is not one; name one: {shown}")


def list_runs(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the run folders in a folder, newest first."""
    records = [*folder.glob("*/config.json")] if folder.is_dir() else []
    records.sort(key=_read_time, reverse=True)
    return [file.parent for file in records]


def _read_time(file: pathlib.Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # the run was removed meanwhile
        return 0.0


def _find_similar(missing: pathlib.Path) -> pathlib.Path | None:
    """Returns a run with a similar name, in the folder of the path or in the default one."""
    is_best = missing.name == "best"
    run = missing.parent if is_best else missing
    candidates = [*list_runs(run.parent), *list_runs(_DEFAULT_ROOT)]
    by_name = {candidate.name: candidate for candidate in reversed(candidates)}
    similar = difflib.get_close_matches(run.name, by_name, 1)
    if not similar:
        return None
    return by_name[similar[0]] / "best" if is_best else by_name[similar[0]]
