"""Records of finished rows: one JSON file per row, stored in the repository with its command.

The tables may take days and several machines. So each record contains where and when it was made,
and a row with a record is not run again.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from benchmarks import harness

DEFAULT_FOLDER = pathlib.Path(__file__).parent / "records"
# Stored of each evaluation; the run folder has all scores.
_STORED_SCORES = (
    *("split", "crops", "num_examples", "top1", "top1_low", "top1_high", "top5", "nll"),
)


def read(folder: pathlib.Path, name: str, command: str) -> dict | None:
    """Returns the record of a row as `write` does, or None if there is none.

    Args:
      folder: folder of the records.
      name: name of the row.
      command: the command that the record must have.

    Raises:
      SystemExit: the record was made with another command.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    if record["command"] != command:
        raise SystemExit(
            f"{path}: made with {record['command']!r}, but the table has {command!r}; remove the"
            " file to run it again"
        )
    return record


def write(
    folder: pathlib.Path,
    name: str,
    kind: str,
    command: str,
    seconds: float | None,
    evaluations: Mapping[str, Mapping[str, Any]],
    commit: str,
) -> dict:
    """Stores the result of a row and returns its record.

    Args:
      folder: folder of the records.
      name: name of the row.
      kind: name of its class in `rows`.
      command: the command that repeats it.
      seconds: training time, or None.
      evaluations: scores of `classification.score`, by "SPLIT-CROPS".
      commit: of this repository, as of `run_all.describe_commit`.

    Returns:
      A dict: command, date, machine, versions, commit, kind, seconds, evaluations.
    """
    record = harness.collect_metadata("", [], (*harness.PACKAGES, "numpy")) | {
        "command": command,
        "commit": commit,
        "kind": kind,
        "seconds": None if seconds is None else round(seconds, 1),
        "evaluations": {
            key: {name: scores[name] for name in _STORED_SCORES if name in scores}
            for key, scores in evaluations.items()
        },
    }
    harness.write_json(folder / f"{name}.json", record)
    return record
