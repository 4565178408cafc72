"""Renders RESULTS.md from the records."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks import harness
from benchmarks.accuracy_page.rows import Mean, Row, Table
from benchmarks.accuracy_page.tables import HEADLINES, TABLES

_HEAD = (
    "# Accuracy results",
    "Written by `REAL_IMAGES_DIR=DIR python -m benchmarks.accuracy_page` from the records in "
    "`benchmarks/accuracy_page/records`; do not edit. The command runs the rows without a record "
    "and can be interrupted and restarted.",
    "Top-1 and top-5 are accuracies in percent, on ten crops unless the column says one crop. "
    "In brackets: the 95 % interval of top-1, or for a mean the lowest and the highest. Time is "
    "the time of the training steps, each epoch at the median of its logged speeds. For "
    "`model.fit` all epochs count like the fastest one. Compare times only on the same machine. "
    "Tables without times are of a machine that did other work, too.",
    "The commands below train. Evaluate each run with `python main.py --mode=eval "
    "--ckpt=checkpoints/RUN --split=SPLIT --crops=CROPS`, where SPLIT is val or test and CROPS is "
    "1 or 10.",
    "We cannot distribute the photos. `benchmarks/lists/` has the names of the files in each data "
    "set. Put them in DIR as `mini/{train,val,test}/WNID/`. `imagenette160/{train,val}/WNID/` is "
    "Imagenette with its official split.",
)


def render(records: Mapping[str, dict]) -> str:
    """Returns the page in Markdown.

    Args:
      records: record of each row by name; rows without one are left out.
    """
    places = list(dict.fromkeys(_describe_place(record) for record in records.values()))
    machines = {place: chr(ord("A") + number) for number, place in enumerate(places)}
    parts = [*_HEAD, "\n".join(f"- {letter}: {place}" for place, letter in machines.items())]
    if headlines := _format_headlines(records, machines):
        parts.append(headlines)
    for table in TABLES:
        resolved = [(row, _resolve_record(row, records)) for row in table.rows]
        finished = [(row, record) for row, record in resolved if record]
        if finished:
            parts += [f"## {table.title}", table.text, _format_table(table, finished, machines)]
            commands = [record["command"] for row, record in finished if not isinstance(row, Mean)]
            parts += ["```sh\n" + "\n".join(commands) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _format_headlines(records: Mapping[str, dict], machines: Mapping[str, str]) -> str:
    """Returns a table of the rows of HEADLINES that have a record; "" if there are none."""
    lines = [["data, length", "run", "top-1", "on", "machine", "command"], ["---"] * 6]
    for title, row in ((table.title, row) for table in TABLES for row in table.rows):
        record = _resolve_record(row, records)
        if row.name in HEADLINES and record:
            view = HEADLINES[row.name]
            cells = [_format_cell(key, record, machines) for key in (f"{view} top1", "machine")]
            first = row.row_names[0] if isinstance(row, Mean) else row.name
            command = f"`{records[first]['command']}`"
            lines.append([title, row.label, cells[0], _describe_view(view), cells[1], command])
    return _join_table(lines) if len(lines) > 2 else ""


def _join_table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _describe_view(view: str) -> str:
    """Formats "val-1", as in `Row.views`, as "val, one crop"."""
    split, crops = view.split("-")
    return f"{split}, {'one crop' if crops == '1' else 'ten crops'}"


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
    """Returns mean accuracies, with the extremes of top-1 in place of an interval."""
    top1 = [score["top1"] for score in scores]
    return {
        "top1": statistics.mean(top1),
        "top1_low": min(top1),
        "top1_high": max(top1),
        "top5": statistics.mean(score["top5"] for score in scores),
    }


def _format_table(
    table: Table, finished: Sequence[tuple[Row, dict]], machines: Mapping[str, str]
) -> str:
    lines = [["run", *map(_format_header, table.columns)]]
    for row, record in finished:
        lines.append([row.label, *(_format_cell(key, record, machines) for key in table.columns)])
    lines.insert(1, ["---"] * len(lines[0]))
    return _join_table(lines)


def _format_header(column: str) -> str:
    """Formats "val-1 top1", as in `Table.columns`, as "top-1 val, one crop"."""
    if " " not in column:
        return column
    view, top = column.split()
    split, crops = view.split("-")
    return f"top-{top.removeprefix('top')} {split}" + (", one crop" if crops == "1" else "")


def _format_cell(column: str, record: Mapping, machines: Mapping[str, str]) -> str:
    if column == "time":
        seconds = record["seconds"]
        return "" if seconds is None else f"{seconds / 60:.1f} min"
    if column == "machine":
        return ", ".join(machines[place] for place in record["places"])
    view, top = column.split()
    return _format_accuracy(record["evaluations"].get(view), top)


def _format_accuracy(scores: Mapping[str, float] | None, top: str) -> str:
    """Formats an accuracy in percent; top-1 with its interval."""
    if scores is None:
        return ""
    accuracy = f"{100 * scores[top]:.1f}"
    if top != "top1":
        return accuracy
    return f"{accuracy} ({100 * scores['top1_low']:.1f} to {100 * scores['top1_high']:.1f})"
