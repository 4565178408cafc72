"""The page of all benchmarks' results, in Markdown."""

from benchmarks import harness

_HEAD = """# Results of the benchmarks

Written by `make bench`; do not edit. A ratio says by which factor ours is better: the
median of those of the pairs of runs, so that of the two medians beside it may differ from it.
"""


def render(every, results, identity):
    """Lays out what is kept.

    Args:
      every: Comparisons, in order.
      results: dict from a name to what `run_all.run_comparison` kept; some may lack.
      identity: dict of the code and machine of now: rows of other code name their commit.

    Returns:
      str in Markdown.
    """
    rows, tables, missing = [], [], []
    for comparison in every:
        kept = results.get(comparison.name)
        if kept is None:
            missing.append(f"`{comparison.name}` has not run")
            continue
        if kept["outcome"] != "done":
            missing.append(f"`{comparison.name}`: {kept['outcome']}{_format_last_line(kept)}")
        if comparison.rows is None and kept["outcome"] == "done":
            tables.append(f"## `{comparison.name}`\n\n{_extract_table(kept['said'])}\n")
        elif kept["report"] is not None:
            rows += _rows(comparison, kept)
            missing += [
                f"`{comparison.name}`: {peer} is skipped, {reason}"
                for peer, reason in kept["report"].get("skipped", {}).items()
            ]
    parts = [_HEAD, _describe_machine(results, identity)]
    parts.append(_format_table(rows) if rows else "No comparison has been made yet.\n")
    parts += tables
    if missing:
        parts.append("## Not there\n\n" + "\n".join(f"- {line}" for line in missing) + "\n")
    parts.append("## Commands\n\n" + "".join(_format_command(c) for c in every))
    return "\n".join(parts)


def _rows(comparison, kept):
    """Rows of the table; only a report that was cut short may lack what a row needs."""
    try:
        rows = comparison.rows(kept["report"])
    except (KeyError, IndexError, ValueError):
        if kept["outcome"] == "done":
            raise
        return []
    commit, date = kept["commit"], kept["date"][:10]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        reached = "" if row.wanted is None else "yes" if row.ratio >= row.wanted else "**no**"
        wanted = "" if row.wanted is None else f"{row.wanted:g}"
        figures = [
            _format_figure(row.ours),
            f"{row.peer}: {_format_figure(row.theirs)}",
            ratio,
            wanted,
            reached,
        ]
        yield [row.what, *figures, f"{date} {commit}".strip(), f"`{comparison.name}`"]


def _format_figure(value):
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _format_table(rows):
    header = ["what", "ours", "theirs", "ratio", "wanted", "reached", "of", "command"]
    lines = [header, ["---", "---:", "---", "---:", "---:", "---", "---", "---"], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _describe_machine(results, identity):
    """The machine, and the versions of all packages that took part."""
    machine = identity["machine"]
    flags = ", ".join(machine["cpu_flags"])
    lines = [
        f"- machine: {machine['cpu']}, {machine['cores']} cores ({flags}), {machine['system']}"
    ]
    versions = {}
    for kept in results.values():
        if kept["machine"] != machine:
            lines.append("- some rows are of another machine: see their JSON files")
            break
        versions |= (kept["report"] or {}).get("versions", {})
    told = ", ".join(f"{package} {version}" for package, version in sorted(versions.items()))
    if told:
        lines.append(f"- versions: {told}")
    lines.append(f"- written: {harness.utc_now()}, code {identity['commit'] or identity['code']}")
    return "\n".join(lines) + "\n"


def _extract_table(said):
    return "\n".join(line for line in said.splitlines() if line.startswith("|"))


def _format_last_line(kept):
    lines = [line for line in kept["said"].splitlines() if line.strip()]
    return f" ({lines[-1].strip()[:200]})" if lines else ""


def _format_command(comparison):
    words = " ".join(comparison.words)
    start = "" if comparison.words[0].startswith("$") else "python "
    return f"- `{comparison.name}`: `{start}{words}`\n"
