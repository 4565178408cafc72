"""Checks the folders of runs on a command line, without TensorFlow, and says what to type."""

import difflib
import pathlib
import re

from input_pipeline.errors import UsageError

_DEFAULT_ROOT = pathlib.Path("checkpoints")
_MAX_SHOWN = 5
_WEIGHT_FILES = (".safetensors", ".h5", ".pth", ".pt", ".bin", ".tar")
_HUB_NAME = re.compile(r"res[a-z0-9]+\.[a-z0-9_]+")  # of a net and its recipe at timm


def require_folder(path: str, flag: str) -> None:
    """Raises UsageError if a path is no folder, or contains runs but is not one.

    Args:
      path: RUN, RUN/best or a step folder.
      flag: the flag that has this value, with its dashes.
    """
    folder, where = pathlib.Path(path), f"{flag}={path}"
    if folder.is_file():
        hint = "name the run folder"
        if folder.suffix in _WEIGHT_FILES:
            hint = f"import it with --mode=import --weights={path}"
        raise UsageError(f"{where}: is a file; {hint}")
    if folder.name == "best" and not folder.exists() and folder.parent.is_dir():
        folder = folder.parent
    if not folder.is_dir():
        similar = _find_similar(folder)
        hint = ""
        if similar:
            hint = f"; did you mean {flag}={similar}?"
        elif _HUB_NAME.fullmatch(path):
            hint = f"; did you mean {flag}=timm/{path}?"
        elif "/" not in path:
            hint = "; published weights are named as in timm/resnet50.a1_in1k"
        raise UsageError(f"{where}: there is no such folder{hint}")
    if (folder / "model.safetensors").exists():
        raise UsageError(
            f"{where}: has weights of another program; import them with --mode=import"
            f" --weights={path} --run_name=NAME, then give {flag}=checkpoints/NAME"
        )
    if not (folder / "config.json").exists() and (runs := list_runs(folder)):
        shown = ", ".join(map(str, runs[:_MAX_SHOWN])) + ", ..." * (len(runs) > _MAX_SHOWN)
        raise UsageError(f"{where}: contains runs but is not one; name one: {shown}")


def is_run(path: str) -> bool:
    """Returns whether a path is a run folder, or contains runs."""
    folder = pathlib.Path(path)
    return (folder / "config.json").exists() or bool(list_runs(folder))


def require_run(root: str, name: str) -> None:
    """Raises UsageError if there is no run of this name in a folder.

    Args:
      root: the folder of the runs.
      name: name of the run.
    """
    folder = pathlib.Path(root, name)
    if (folder / "config.json").exists():
        return
    similar = _find_similar(folder)
    hint = f"; did you mean --run_name={similar.name}" if similar else ""
    raise UsageError(
        f"--run_name={name}: there is no such run in {root}{hint}; a new one needs --data_dir"
    )


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
