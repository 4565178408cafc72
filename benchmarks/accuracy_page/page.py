"""RESULTS.md, made from the records."""

import statistics

from benchmarks import harness
from benchmarks.accuracy_page.rows import Mean
from benchmarks.accuracy_page.tables import TABLES


def render(records):
    """Lays out the page.

    Args:
      records: dict from a row's name to its record; rows that have none yet are left out.

    Returns:
      str.
    """
    places = list(dict.fromkeys(_describe_place(record) for record in records.values()))
    machines = {place: chr(ord("A") + number) for number, place in enumerate(places)}
    parts = [
        "# Results of our own",
        "Made by `REAL_IMAGES_DIR=DIR python -m benchmarks.accuracy_page` from the records in "
        "`benchmarks/accuracy_page/records`; it runs the rows that have none and goes on where it "
        "was cut. Top-1 and top-5 are error rates on ten crops unless one crop is named, top-1 "
        "with its 95 % interval, or of a mean the lowest and the highest. Time is that of the "
        "training steps, each epoch at the median of the speeds in its log (of `model.fit`: all "
        "epochs as fast as its fastest), so it compares on one machine only.",
        "The commands below train. Each run is then judged by `python main.py --mode=eval "
        "--ckpt=checkpoints/RUN --split=SPLIT --crops=CROPS` with val or test and 1 or 10.",
        "The photographs are not ours to ship: `benchmarks/lists/` names those of each set, which "
        "lie in DIR as `mini/{train,val,test}/WNID/` and `nette224/{train,val}/WNID/`.",
        "\n".join(f"- {letter}: {place}" for place, letter in machines.items()),
    ]
    for table in TABLES:
        shown = [(row, _resolve_record(row, records)) for row in table.rows]
        shown = [(row, record) for row, record in shown if record]
        if shown:
            parts += [f"## {table.title}", table.text, _format_table(table, shown, machines)]
            commands = [record["command"] for row, record in shown if not isinstance(row, Mean)]
            parts += ["```sh\n" + "\n".join(commands) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _describe_place(record):
    """Where a row was run, in words."""
    machine = record["machine"]
    half = "bfloat16" if harness.has_bfloat16(machine) else "no bfloat16"
    packages = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{machine['cpu']}, {machine['cores']} cores, {half}; {packages}"


def _resolve_record(row, records):
    """The record that a row shows with the `places` it is of, or None where it has none yet."""
    if not isinstance(row, Mean):
        record = records.get(row.name)
        return record and record | {"places": [_describe_place(record)]}
    if not records.keys() >= set(row.of):
        return None
    of = [records[name] for name in row.of]
    times = [record["seconds"] for record in of]
    seconds = None if None in times else statistics.mean(times)
    common = [v for v in row.views if all(v in record["evaluations"] for record in of)]
    evaluations = {view: _mean_scores([r["evaluations"][view] for r in of]) for view in common}
    places = list(dict.fromkeys(map(_describe_place, of)))
    return {"seconds": seconds, "evaluations": evaluations, "places": places}


def _mean_scores(scores):
    """Mean errors; what is an interval elsewhere are the extremes here."""
    top1 = [score["top1_error"] for score in scores]
    return {
        "top1_error": statistics.mean(top1),
        "top1_low": 1 - max(top1),
        "top1_high": 1 - min(top1),
        "top5_error": statistics.mean(score["top5_error"] for score in scores),
    }


def _format_table(table, shown, machines):
    lines = [["run", *map(_format_header, table.columns)]]
    for row, record in shown:
        lines.append([row.label, *(_format_cell(key, record, machines) for key in table.columns)])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _format_header(column):
    """Turns "val-1 top1", as in `Table.columns`, into "top-1 val err, one crop"."""
    if " " not in column:
        return column
    view, top = column.split()
    split, crops = view.split("-")
    return f"top-{top.removeprefix('top')} {split} err" + (", one crop" if crops == "1" else "")


def _format_cell(column, record, machines):
    if column == "time":
        seconds = record["seconds"]
        return "" if seconds is None else f"{seconds / 60:.1f} min"
    if column == "machine":
        return ", ".join(machines[place] for place in record["places"])
    view, top = column.split()
    return _format_error(record["evaluations"].get(view), top)


def _format_error(scores, top):
    """1 - accuracy in per cent, with the interval of top-1."""
    if scores is None:
        return ""
    error = f"{100 * scores[f'{top}_error']:.1f}"
    if top != "top1":
        return error
    return (
        f"{error} ({100 - 100 * scores['top1_high']:.1f} to {100 - 100 * scores['top1_low']:.1f})"
    )
