"""Row and table types of RESULTS.md."""

import dataclasses

_ALL_VIEWS = ("val-1", "val-10", "test-1", "test-10")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table.

    Attributes:
      name: name of the record and of the run folder.
      label: text in the table.
      views: evaluations of the row, as SPLIT-CROPS.
    """

    name: str
    label: str
    views: tuple[str, ...] = _ALL_VIEWS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run(Row):
    """A training run.

    Attributes:
      flags: flags of `main.py`, without the name of the run.
      minutes: time limit of one call; the next call resumes the run.
    """

    flags: tuple[str, ...]
    minutes: float = 90.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit(Run):
    """A training run of `benchmarks.fit_baseline`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestTwo(Row):
    """The averaged probabilities of the two of the named rows that score best on val."""

    row_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean(Row):
    """The mean, lowest and highest accuracy of the named rows; it is computed, not run."""

    row_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of RESULTS.md.

    Attributes:
      key: its name in `--only`.
      title: its heading.
      text: a description of the data.
      rows: its rows, in order.
      columns: "time", "machine", or SPLIT-CROPS followed by top1 or top5.
    """

    key: str
    title: str
    text: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...] = (
        *("time", "val-1 top1", "val-10 top1", "val-10 top5"),
        *("test-10 top1", "test-10 top5", "machine"),
    )
