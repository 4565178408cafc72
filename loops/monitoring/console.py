"""What a mode says at its end: a summary on stdout, and the same facts as JSON."""

from input_pipeline.text import escape_non_utf8, pluralize


def _print(text):
    """Prints to stdout, also the name of a file that is not UTF-8."""
    print(escape_non_utf8(text))


def print_summary(title, rows):
    """Prints a title and aligned (name, value) rows to stdout."""
    width = max(len(name) for name, _ in rows)
    _print(title)
    for name, value in rows:
        _print(f"  {name.ljust(width)}  {value}")


def print_lines(texts):
    """Prints lines of text to stdout."""
    for text in texts:
        _print(text)


def print_table(header, rows):
    """Prints rows of text under a header to stdout: the first column to the left, others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        _print("  " + "  ".join(cells).rstrip())


COMPARISON_HEADER = ("", "top-1", "top-5", "NLL", "Brier", "ECE")


def format_evaluation(results):
    """Rows for `print_summary` from the results of an evaluation."""
    rows = []
    for name, value in results.items():
        if name.startswith("top") and name[3:].isdigit():
            low, high = results[f"{name}_low"], results[f"{name}_high"]
            k = name[3:]
            rows.append(
                (f"top-{k} accuracy", f"{value:.2%}  (95 % interval {low:.2%} to {high:.2%})")
            )
    rows.append(("NLL", f"{results['nll']:.4f}" + _format_interval(results, "nll", "{:.4f}")))
    if "brier" in results:
        rows.append(
            ("Brier", f"{results['brier']:.4f}" + _format_interval(results, "brier", "{:.4f}"))
        )
    if "ece" in results:
        rows.append(("ECE", f"{results['ece']:.2%}" + _format_interval(results, "ece", "{:.2%}")))
    if "temperature" in results:
        told = "temperature {temperature:.3f}: ECE {ece_odd:.2%} to {ece_calibrated:.2%}".format(
            **results
        )
        rows.append(
            ("calibrated", told + ", NLL {nll_odd:.4f} to {nll_calibrated:.4f}".format(**results))
        )
    if "real_top1" in results:
        told = "{real_top1:.2%}  (95 % interval {real_top1_low:.2%} to {real_top1_high:.2%}, {n})"
        count = pluralize(results["real_num_examples"], "image")
        rows.append(("ReaL top-1", told.format(**results, n=count)))
    rows.append(
        (
            "images",
            f"{results['num_examples']} ({results['split']},"
            f" {pluralize(results['crops'], 'crop')})",
        )
    )
    return rows


def _format_interval(results, name, form):
    if f"{name}_low" not in results:
        return ""
    low, high = (form.format(results[f"{name}_{end}"]) for end in ("low", "high"))
    return f"  (95 % interval {low} to {high})"


def format_comparison(results):
    """Rows under COMPARISON: each model, its centre crop, and all of them together."""
    rows = []
    for member in results.get("members", []):
        rows += _format_with_center_crop(member["model"], member)
    together = "ensemble" if "members" in results else pluralize(results["crops"], "crop")
    return rows + _format_with_center_crop(together, results)


def _format_with_center_crop(name, judged):
    rows = [format_comparison_row(name, judged)]
    if "center_crop" in judged:
        rows.append(
            format_comparison_row(
                f"{name}, centre crop" if "model" in judged else "centre crop",
                judged["center_crop"],
            )
        )
    return rows


def format_comparison_row(name, judged):
    """One row under COMPARISON."""
    top = [f"{judged[k]:.2%}" if k in judged else "" for k in ("top1", "top5")]
    return [name, *top, f"{judged['nll']:.4f}", f"{judged['brier']:.4f}", f"{judged['ece']:.2%}"]


def format_size_sweep(every):
    """Header and rows of the table of several image sizes, for `print_table`."""
    rows = [format_comparison_row(f"{results['image_size']} px", results) for results in every]
    return COMPARISON_HEADER, rows


def format_paired_tests(results):
    """What McNemar's tests say, one line each."""
    form = (
        "  {a} against {b}: {difference:+.2%} top-1 (95 % interval {difference_low:+.2%} to"
        " {difference_high:+.2%}), p = {p_value:.2g} (McNemar, {test}: {only_a} against {only_b})"
    )
    return [form.format(**pair) for pair in results.get("paired", [])]
