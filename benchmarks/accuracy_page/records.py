"""What the runs gave, kept in the repository: a JSON file for every row, with its command.

A table may take days and more than one machine, so a record says where and when it was made, and a
row that has one is done.
"""

import json
import pathlib

from benchmarks import harness

DEFAULT_FOLDER = pathlib.Path(__file__).parent / "records"
# Of each evaluation; the rest is in the run folder.
_KEPT_SCORES = (
    *("split", "crops", "num_examples", "top1", "top1_low", "top1_high", "top5"),
    *("top1_error", "top5_error", "nll"),
)
_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy")


def read(folder, name, command):
    """The record of a row, or None where there is none.

    Args:
      folder: pathlib.Path of the records.
      name: of the row.
      command: what it has to have been made with.

    Returns:
      dict of `write`.

    Raises:
      SystemExit: it was made with another command.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    if record["command"] != command:
        raise SystemExit(
            f"{path}: made by {record['command']!r}, the table says {command!r}; remove the file"
            " to run it again"
        )
    return record


def write(folder, name, kind, command, seconds, evaluations):
    """Keeps what a row gave, and returns it.

    Args:
      folder: pathlib.Path of the records.
      name: of the row.
      kind: name of its class in `rows`.
      command: that repeats it.
      seconds: of training, or None.
      evaluations: dict from "SPLIT-CROPS" to scores of `metrics.score`.

    Returns:
      dict: command, date, machine, versions, kind, seconds, evaluations.
    """
    record = harness.collect_metadata("", [], _PACKAGES) | {
        "command": command,
        "kind": kind,
        "seconds": None if seconds is None else round(seconds, 1),
        "evaluations": {
            key: {name: scores[name] for name in _KEPT_SCORES if name in scores}
            for key, scores in evaluations.items()
        },
    }
    harness.write_json(folder / f"{name}.json", record)
    return record
