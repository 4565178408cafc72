"""Prints summaries and tables to stdout, and formats evaluation results for them."""

from collections.abc import Iterable, Mapping, Sequence

from input_pipeline import datasets
from input_pipeline.text import escape_unprintable, pluralize
from loops.metrics import metrics

# Classes that are shown at the end of an evaluation.
_MAX_WEAKEST = 3


def _print(text: str) -> None:
    """Prints a line to stdout. Names of files and classes may contain anything."""
    print(escape_unprintable(text))


def print_summary(title: str, rows: Sequence[tuple[str, object]]) -> None:
    """Prints a title and aligned (name, value) rows to stdout."""
    width = max((len(name) for name, _ in rows), default=0)
    _print(title)
    for name, value in rows:
        _print(f"  {name.ljust(width)}  {value}")


def print_lines(texts: Iterable[str]) -> None:
    """Prints lines of text to stdout."""
    for text in texts:
        _print(text)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table to stdout: first column left-aligned, other columns right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        _print("  " + "  ".join(cells).rstrip())


def comparison_header(results: Mapping) -> tuple[str, ...]:
    """Returns the header of rows of `format_comparison_row`."""
    shown = metrics.iter_shown(results)
    return ("", "top-1", "top-5", *(facts.label or name for name, facts in shown))


def format_evaluation(results: Mapping) -> list[tuple[str, str]]:
    """Formats the results of an evaluation as rows for `print_summary`."""
    rows = []
    for name, value in results.items():
        if name.startswith("top") and name[3:].isdigit():
            low, high = results[f"{name}_low"], results[f"{name}_high"]
            k = name[3:]
            rows.append(
                (f"top-{k} accuracy", f"{value:.2%}  (95 % interval {low:.2%} to {high:.2%})")
            )
    for name, facts in metrics.iter_shown(results):
        value = facts.template.format(results[name])
        value += _format_interval(results, name, facts.template)
        rows.append((facts.label or name, value))
    if "temperature" in results:
        template = (
            "temperature {temperature:.3f}: ECE {ece_odd:.2%} to {ece_calibrated:.2%},"
            " NLL {nll_odd:.4f} to {nll_calibrated:.4f}"
        )
        rows.append(("calibrated", template.format(**results)))
    if "real_top1" in results:
        template = (
            "{real_top1:.2%}  (95 % interval {real_top1_low:.2%} to {real_top1_high:.2%}, {n})"
        )
        count = pluralize(results["real_num_examples"], "image")
        rows.append(("ReaL top-1", template.format(**results, n=count)))
    if "per_class" in results:
        rows += _format_weakest_classes(results["per_class"])
    rows.append(
        (
            "images",
            f"{results['num_examples']} ({results['split']},"
            f" {pluralize(results['crops'], 'crop')})",
        )
    )
    return rows


def _format_weakest_classes(per_class: Mapping[str, Mapping]) -> list[tuple[str, str]]:
    """Formats the classes with the lowest accuracy, and what their images are taken for."""
    scored = [(facts["top1"], name) for name, facts in per_class.items() if facts["num_examples"]]
    rows = []
    for top1, name in sorted(scored)[:_MAX_WEAKEST] if len(scored) > _MAX_WEAKEST else []:
        mistakes = {k: n for k, n in per_class[name]["predicted_as"].items() if k != name}
        text = f"{top1:.2%} {datasets.display_name(name)}"
        if mistakes:
            other, count = next(iter(mistakes.items()))
            images = pluralize(per_class[name]["num_examples"], "image")
            text += f", {count} of {images} as {datasets.display_name(other)}"
        rows.append(("" if rows else "weakest", text))
    return rows


def _format_interval(results: Mapping, name: str, template: str) -> str:
    if f"{name}_low" not in results:
        return ""
    low, high = (template.format(results[f"{name}_{end}"]) for end in ("low", "high"))
    return f"  (95 % interval {low} to {high})"


def format_comparison(results: Mapping) -> list[list[str]]:
    """Formats rows under `comparison_header`: each model, its center crop, and the ensemble."""
    rows = []
    for model in results.get("members", []):
        rows += _format_with_center_crop(model["model"], model)
    name = "ensemble" if "members" in results else pluralize(results["crops"], "crop")
    return rows + _format_with_center_crop(name, results)


def _format_with_center_crop(name: str, results: Mapping) -> list[list[str]]:
    rows = [format_comparison_row(name, results)]
    if "center_crop" in results:
        rows.append(
            format_comparison_row(
                f"{name}, center crop" if "model" in results else "center crop",
                results["center_crop"],
            )
        )
    return rows


def format_comparison_row(name: str, results: Mapping) -> list[str]:
    """Formats one row under `comparison_header`."""
    top = [f"{results[k]:.2%}" if k in results else "" for k in ("top1", "top5")]
    shown = metrics.iter_shown(results)
    scores = [facts.template.format(results[name]) for name, facts in shown]
    return [name, *top, *scores]


def format_size_sweep(results: Sequence[Mapping]) -> tuple[Sequence[str], list[list[str]]]:
    """Formats the results of several image sizes as (header, rows) for `print_table`."""
    rows = [format_comparison_row(f"{r['image_size']} px", r) for r in results]
    return comparison_header(results[0]), rows


def format_paired_tests(results: Mapping) -> list[str]:
    """Formats the results of McNemar's tests, one line per pair of models."""
    template = (
        "  {a} against {b}: {difference:+.2%} top-1 (95 % interval {difference_low:+.2%} to"
        " {difference_high:+.2%}), p = {p_value:.2g} (McNemar, {test}: {only_a} against {only_b})"
    )
    return [template.format(**pair) for pair in results.get("paired", [])]
