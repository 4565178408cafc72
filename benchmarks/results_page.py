"""RESULTS.md, made from what `benchmarks.results` found."""

from benchmarks.results_runs import TABLES

_HEADER = (
    "run",
    "time",
    "top-1 val err, one crop",
    "top-1 val err",
    "top-5 val err",
    "top-1 test err",
    "top-5 test err",
)


def markdown(results, facts):
    """Lays out the page.

    Args:
      results: dict from a table's key to {row's name: dict as of `results.result_of`}; rows that
        have no result yet are left out.
      facts: dict of `harness.facts`.

    Returns:
      str.
    """
    machine, versions = facts["machine"], facts["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts = [
        "# Results of our own",
        f"Made by `REAL_IMAGES_DIR=DIR {facts['command']}`, last on {facts['date'][:10]}, which "
        "trains what is missing and goes on where it was cut. Error rates are of ten crops unless "
        "another number is named, with 95 % intervals. Time is that of the training steps, at the "
        "median of the speeds in its log (of `model.fit`: of its epochs).",
        "The photographs are not ours to ship: `benchmarks/lists/` names those of each set.",
        f"Machine: {machine['cpu']}, {machine['cores']} cores. Versions: {packages}.",
    ]
    for table in TABLES:
        found = results.get(table.key)
        if found:
            parts += [f"## {table.title}", table.text, _table(table, found)]
            parts += ["```sh\n" + "\n".join(_commands(table, found)) + "\n```"]
    return "\n\n".join(parts) + "\n"


def _table(table, found):
    lines = ["| " + " | ".join(_HEADER) + " |", "|---" * len(_HEADER) + "|"]
    for row in table.rows:
        if row.name in found:
            lines.append("| " + " | ".join(_cells(row, found[row.name])) + " |")
    return "\n".join(lines)


def _cells(row, result):
    evaluations = result["evaluations"]
    seconds = result["seconds"]
    yield row.label
    yield "" if seconds is None else f"{seconds / 60:.1f} min"
    yield _error(evaluations.get("val-1"), "top1")
    for split in ("val", "test"):
        for top in ("top1", "top5"):
            yield _error(evaluations.get(f"{split}-10"), top)


def _error(scores, top):
    """1 - accuracy in per cent, with the interval of top-1."""
    if scores is None:
        return ""
    error = f"{100 * scores[f'{top}_error']:.1f}"
    if top != "top1":
        return error
    return (
        f"{error} ({100 - 100 * scores['top1_high']:.1f} to {100 - 100 * scores['top1_low']:.1f})"
    )


def _commands(table, found):
    for row in table.rows:
        if row.name in found:
            yield found[row.name]["command"]
