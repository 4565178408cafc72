"""What a row and a table of RESULTS.md are made of."""

import dataclasses

_ALL_VIEWS = ("val-1", "val-10", "test-1", "test-10")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Row:
    """A row of a table that is run.

    Attributes:
      name: of the record, and of the run folder.
      label: in the table.
      views: SPLIT-CROPS that it is judged on.
    """

    name: str
    label: str
    views: tuple = _ALL_VIEWS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(_Row):
    """A training.

    Attributes:
      flags: of the command, but for the run's name.
      program: of the command, behind `python`.
      minutes: after so many it is stopped, to go on in another call.
    """

    flags: tuple
    program: tuple = ("main.py",)
    minutes: float = 90.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit(Run):
    """A training by `benchmarks.fit_baseline`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestTwo(_Row):
    """The average of the probabilities of the two runs, of those named, that are best on val."""

    of: tuple


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean(_Row):
    """The mean of the errors of the rows named, with the smallest and the largest; nothing runs."""

    of: tuple


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of RESULTS.md.

    Attributes:
      key: what `--only` calls it.
      title: its heading.
      text: what the reader should know of the data.
      rows: of it.
      columns: "time", "machine", or SPLIT-CROPS and top1 or top5.
    """

    key: str
    title: str
    text: str
    rows: tuple
    columns: tuple = (
        *("time", "val-1 top1", "val-10 top1", "val-10 top5"),
        *("test-10 top1", "test-10 top5", "machine"),
    )
