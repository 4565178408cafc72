"""Renders RESULTS.md from the records."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks import harness
from benchmarks.accuracy_page.rows import Mean, Row, Table
from benchmarks.accuracy_page.tables import TABLES

_HEAD = (
    "# Accuracy results",
    "Written by `REAL_IMAGES_DIR=DIR python -m benchmarks.accuracy_page` from the records in "
    "`benchmarks/accuracy_page/records`; do not edit. The command runs the rows without a record "
    "and can be interrupted and restarted.",
    "Top-1 and top-5 are error rates in percent, on ten crops unless the column says one crop. "
    "In brackets: the 95 % interval of top-1, or for a mean the lowest and the highest. Time is "
    "the time of the training steps, each epoch at the median of its logged speeds. For "
    "`model.fit` all epochs count like the fastest one. Compare times only on the same machine.",
    "The commands below train. Evaluate each run with `python main.py --mode=eval "
    "--ckpt=checkpoints/RUN --split=SPLIT --crops=CROPS`, where SPLIT is val or test and CROPS is "
    "1 or 10.",
    "We cannot distribute the photos. `benchmarks/lists/` has the names of the files in each data "
    "set. Put them in DIR as `mini/{train,val,test}/WNID/` and `nette224/{train,val}/WNID/`.",
)


def render(records: Mapping[str, dict]) -> str:
    """Returns the page in Markdown.

    Args:
      records: record of each row by name; rows without one are left out.
    """
    places = list(dict.fromkeys(_describe_place(record) for record in records.values()))
    machines = {place: chr(ord("A") + number) for number, place in enumerate(places)}
    parts = [*_HEAD, "\n".join(f"- {letter}: {place}" for place, letter in machines.items())]
    for table in TABLES:
        resolved = [(row, _resolve_record(row, records)) for row in table.rows]
        finished = [(row, record) for row, record in resolved if record]
        if finished:
            parts += [f"## {table.title}", table.text, _format_table(table, finished, machines)]
            commands = [record["command"] for row, record in finished if not isinstance(row, Mean)]
            parts += ["```sh\n" + "\n".join(commands) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _describe_place(record: Mapping) -> str:
    """Returns the machine and the package versions of a record as text."""
    machine = record["machine"]
    half = "bfloat16" if harness.has_bfloat16(machine) else "no bfloat16"
    packages = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{machine['cpu']}, {machine['cores']} cores, {half}; {packages}"


def _resolve_record(row: Row, records: Mapping[str, dict]) -> dict | None:
    """Returns the record of a row with its `places`, or None if it has no record yet."""
    if not isinstance(row, Mean):
        record = records.get(row.name)
        return record and record | {"places": [_describe_place(record)]}
    if not records.keys() >= set(row.row_names):
        return None
    averaged = [records[name] for name in row.row_names]
    times = [record["seconds"] for record in averaged]
    seconds = None if None in times else statistics.mean(times)
    views = [v for v in row.views if all(v in record["evaluations"] for record in averaged)]
    evaluations = {v: _average_scores([r["evaluations"][v] for r in averaged]) for v in views}
    places = list(dict.fromkeys(map(_describe_place, averaged)))
    return {"seconds": seconds, "evaluations": evaluations, "places": places}


def _average_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns mean errors, with the extremes of top-1 in place of an interval."""
    top1 = [score["top1_error"] for score in scores]
    return {
        "top1_error": statistics.mean(top1),
        "top1_low": 1 - max(top1),
        "top1_high": 1 - min(top1),
        "top5_error": statistics.mean(score["top5_error"] for score in scores),
    }


def _format_table(
    table: Table, finished: Sequence[tuple[Row, dict]], machines: Mapping[str, str]
) -> str:
    lines = [["run", *map(_format_header, table.columns)]]
    for row, record in finished:
        lines.append([row.label, *(_format_cell(key, record, machines) for key in table.columns)])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _format_header(column: str) -> str:
    """Formats "val-1 top1", as in `Table.columns`, as "top-1 val err, one crop"."""
    if " " not in column:
        return column
    view, top = column.split()
    split, crops = view.split("-")
    return f"top-{top.removeprefix('top')} {split} err" + (", one crop" if crops == "1" else "")


def _format_cell(column: str, record: Mapping, machines: Mapping[str, str]) -> str:
    if column == "time":
        seconds = record["seconds"]
        return "" if seconds is None else f"{seconds / 60:.1f} min"
    if column == "machine":
        return ", ".join(machines[place] for place in record["places"])
    view, top = column.split()
    return _format_error(record["evaluations"].get(view), top)


def _format_error(scores: Mapping[str, float] | None, top: str) -> str:
    """Formats an error rate in percent; top-1 with its interval."""
    if scores is None:
        return ""
    error = f"{100 * scores[f'{top}_error']:.1f}"
    if top != "top1":
        return error
    return (
        f"{error} ({100 - 100 * scores['top1_high']:.1f} to {100 - 100 * scores['top1_low']:.1f})"
    )
