"""Trains and judges the rows of `tables`, and writes what came out to RESULTS.md.

    REAL_IMAGES_DIR=DIR python -m benchmarks.accuracy_page --minutes=120

Rows that have a record are skipped, a training that was cut goes on where it was. Ends after
--minutes at the latest: the training that is on then saves, and the next call resumes it. DIR holds
the folders that the commands name. Without it, the page is written from the records there are.
"""

import argparse
import os
import pathlib
import time

from benchmarks import harness
from benchmarks.accuracy_page import execution, page, records
from benchmarks.accuracy_page.rows import BestTwo, Mean
from benchmarks.accuracy_page.tables import TABLES

PAGE = pathlib.Path(__file__).parents[2] / "RESULTS.md"


def select_rows(keys):
    """The rows to run of the tables with these keys; one that is in two tables comes once."""
    in_tables = [row for table in TABLES if table.key in keys for row in table.rows]
    return list({row.name: row for row in in_tables if not isinstance(row, Mean)}.values())


def read_record(folder, row, done):
    """The record of a row, or None."""
    if isinstance(row, BestTwo) and not done.keys() >= set(row.of):
        return None
    return records.read(folder, row.name, " ".join(execution.make_command(row, done)))


def run_row(row, args, done, seconds_left):
    """Does a row and keeps its record."""
    seconds, evaluations = execution.train_and_evaluate(row, args.folder, done, seconds_left)
    command = " ".join(execution.make_command(row, done))
    kind = type(row).__name__
    return records.write(args.records, row.name, kind, command, seconds, evaluations)


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=120.0, help="to spend in this call")
    keys = [table.key for table in TABLES]
    parser.add_argument("--only", default=",".join(keys), help="tables: " + ", ".join(keys))
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("checkpoints"))
    parser.add_argument("--records", type=pathlib.Path, default=records.DEFAULT_FOLDER)
    parser.add_argument("--page", type=pathlib.Path, default=PAGE)
    args = parser.parse_args()
    args.only = args.only.split(",")
    if unknown := set(args.only) - set(keys):
        parser.error(f"--only={','.join(sorted(unknown))}: tables are {', '.join(keys)}")
    return args


def main():
    """Does what is left of the tables; writes the page after every row."""
    args = parse_arguments()
    end = time.monotonic() + args.minutes * 60
    done = {}
    for row in select_rows([table.key for table in TABLES]):
        if record := read_record(args.records, row, done):
            done[row.name] = record
    if not os.path.isdir(os.environ.get("REAL_IMAGES_DIR", "")):
        harness.echo("REAL_IMAGES_DIR is not set to the folder of the data sets: nothing is run")
        args.only = []
    args.folder.mkdir(parents=True, exist_ok=True)
    for row in select_rows(args.only):
        if row.name not in done:
            try:
                done[row.name] = run_row(row, args, done, lambda: end - time.monotonic())
            except execution.OutOfTime:
                harness.echo(f"out of time in {row.name}; the same command goes on")
                break
            args.page.write_text(page.render(done))
    args.page.write_text(page.render(done))


if __name__ == "__main__":
    main()
