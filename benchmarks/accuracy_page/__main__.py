"""Trains and evaluates the rows of `tables` and writes the results to RESULTS.md.

    REAL_IMAGES_DIR=DIR python -m benchmarks.accuracy_page --minutes=120

DIR contains the data folders that the commands name. Without it, the page is written from the
existing records.

Rows with a record are skipped, and an interrupted training resumes. After `--minutes` the current
training saves and the command ends. The next call resumes it.
"""

import argparse
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence

from benchmarks import harness, run_all
from benchmarks.accuracy_page import execution, page, records
from benchmarks.accuracy_page.rows import BestTwo, Mean, Row
from benchmarks.accuracy_page.tables import TABLES

PAGE = pathlib.Path(__file__).parents[2] / "RESULTS.md"


def select_rows(keys: Sequence[str]) -> list[Row]:
    """Returns the rows to run of the tables with these keys, without duplicates."""
    in_tables = [row for table in TABLES if table.key in keys for row in table.rows]
    return list({row.name: row for row in in_tables if not isinstance(row, Mean)}.values())


def read_record(folder: pathlib.Path, row: Row, finished: Mapping[str, dict]) -> dict | None:
    """Returns the record of a row, or None.

    Args:
      folder: folder of the records.
      row: Run, Fit or BestTwo.
      finished: records of earlier rows by name.
    """
    if isinstance(row, BestTwo) and not finished.keys() >= set(row.row_names):
        return None
    return records.read(folder, row.name, " ".join(execution.make_command(row, finished)))


def run_row(
    row: Row,
    args: argparse.Namespace,
    finished: Mapping[str, dict],
    seconds_left: Callable[[], float],
) -> dict:
    """Runs a row and stores and returns its record."""
    seconds, evaluations = execution.train_and_evaluate(row, args.folder, finished, seconds_left)
    command = " ".join(execution.make_command(row, finished))
    kind = type(row).__name__
    return records.write(args.records, row.name, kind, command, seconds, evaluations, args.commit)


def parse_arguments() -> argparse.Namespace:
    """Parses the command line; `only` becomes a list, and `commit` is added."""
    keys = [table.key for table in TABLES]
    parser = harness.BenchmarkParser(__doc__, has_json=False)
    parser.add_flag("--minutes", 120.0, "time limit of this call")
    parser.add_flag("--only", ",".join(keys), "tables: " + ", ".join(keys))
    parser.add_flag("--folder", pathlib.Path("checkpoints"), "folder of the run folders")
    parser.add_flag("--records", records.DEFAULT_FOLDER, "folder of the records")
    parser.add_flag("--page", PAGE, "page to write")
    args = parser.parse_args()
    parser.require_known("--only", args.only, keys)
    args.only = args.only.split(",")
    args.commit = run_all.describe_commit()  # of the code that trains, whatever is edited meanwhile
    return args


def main() -> None:
    """Runs the unfinished rows; writes the page after each of them."""
    args = parse_arguments()
    end = time.monotonic() + args.minutes * 60
    finished = {}
    for row in select_rows([table.key for table in TABLES]):
        if record := read_record(args.records, row, finished):
            finished[row.name] = record
    if not os.path.isdir(os.environ.get("REAL_IMAGES_DIR", "")):
        harness.echo("REAL_IMAGES_DIR is not set to the folder of the data sets: nothing is run")
        args.only = []
    args.folder.mkdir(parents=True, exist_ok=True)
    for row in select_rows(args.only):
        if row.name not in finished:
            try:
                finished[row.name] = run_row(row, args, finished, lambda: end - time.monotonic())
            except execution.OutOfTime:
                harness.echo(f"out of time in {row.name}; run the same command to continue")
                break
            args.page.write_text(page.render(finished))
    args.page.write_text(page.render(finished))


if __name__ == "__main__":
    main()
