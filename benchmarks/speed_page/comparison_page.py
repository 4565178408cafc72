"""Renders the results of all benchmarks as a Markdown page."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks import harness
from benchmarks.speed_page.comparisons import Comparison

_HEAD = """# Benchmark results

Written by `make bench`; do not edit. A ratio is the factor by which ours is better. It is the
median over the pairs of runs, so it can differ from the ratio of the two medians in the same row.
"""
_HEADER = ["quantity", "ours", "peer", "ratio", "target", "reached", "date, commit", "benchmark"]
_ALIGNMENT = ["---", "---:", "---", "---:", "---:", "---", "---", "---"]


def render(
    comparisons: Sequence[Comparison], results: Mapping[str, dict], identity: Mapping
) -> str:
    """Renders the stored results.

    Args:
      comparisons: in the order of the page.
      results: results of `run_all.run_comparison` by name; some may be missing.
      identity: code, commit and machine of this run.

    Returns:
      The page in Markdown.
    """
    rows, tables, missing = [], [], []
    for comparison in comparisons:
        result = results.get(comparison.name)
        if result is None:
            missing.append(f"`{comparison.name}` has not run")
            continue
        if result["outcome"] != "done":
            missing.append(f"`{comparison.name}`: {result['outcome']}{_format_last_line(result)}")
        if comparison.make_rows is None and result["outcome"] == "done":
            tables.append(f"## `{comparison.name}`\n\n{_extract_table(result['said'])}\n")
        elif result["report"] is not None:
            rows += _make_rows(comparison, result)
            missing += [
                f"`{comparison.name}`: {peer} is skipped, {reason}"
                for peer, reason in result["report"].get("skipped", {}).items()
            ]
    parts = [_HEAD, _describe_machine(results, identity)]
    parts.append(_format_table(rows) if rows else "No comparison has been made yet.\n")
    parts += tables
    if missing:
        parts.append("## Missing\n\n" + "\n".join(f"- {line}" for line in missing) + "\n")
    parts.append("## Commands\n\n" + "".join(_format_command(c) for c in comparisons))
    return "\n".join(parts)


def _make_rows(comparison: Comparison, result: Mapping) -> Iterator[list[str]]:
    """Yields the cells of each row; a report of an unfinished run may lack what a row needs."""
    try:
        rows = comparison.make_rows(result["report"])
    except (KeyError, IndexError, ValueError):
        if result["outcome"] == "done":
            raise
        return
    commit, date = result["commit"], result["date"][:10]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        reached = "" if row.target is None else "yes" if row.ratio >= row.target else "**no**"
        target = "" if row.target is None else f"{row.target:g}"
        cells = [row.quantity, _format_value(row.ours), f"{row.peer}: {_format_value(row.theirs)}"]
        cells += [ratio, target, reached, f"{date} {commit}".strip(), f"`{comparison.name}`"]
        yield cells


def _format_value(value: float) -> str:
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _format_table(rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in [_HEADER, _ALIGNMENT, *rows])


def _describe_machine(results: Mapping[str, dict], identity: Mapping) -> str:
    """Lists the machine and the versions of all packages in the results."""
    machine = identity["machine"]
    flags = ", ".join(machine["cpu_flags"])
    lines = [
        f"- machine: {machine['cpu']}, {machine['cores']} cores ({flags}), {machine['system']}"
    ]
    versions = {}
    for result in results.values():
        if result["machine"] != machine:
            lines.append("- some rows are from another machine: see their JSON files")
            break
        versions |= (result["report"] or {}).get("versions", {})
    text = ", ".join(f"{package} {version}" for package, version in sorted(versions.items()))
    if text:
        lines.append(f"- versions: {text}")
    lines.append(f"- written: {harness.utc_now()}, code {identity['commit'] or identity['code']}")
    return "\n".join(lines) + "\n"


def _extract_table(output: str) -> str:
    return "\n".join(line for line in output.splitlines() if line.startswith("|"))


def _format_last_line(result: Mapping) -> str:
    lines = [line for line in result["said"].splitlines() if line.strip()]
    return f" ({lines[-1].strip()[:200]})" if lines else ""


def _format_command(comparison: Comparison) -> str:
    words = " ".join(comparison.words)
    start = "" if comparison.words[0].startswith("$") else "python "
    return f"- `{comparison.name}`: `{start}{words}`\n"
