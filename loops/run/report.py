"""What a mode says at its end: a summary on stdout, and the same facts as JSON."""

import json
import os
import pathlib


def summary(title, rows):
    """Prints a title and aligned (name, value) rows to stdout."""
    width = max(len(name) for name, _ in rows)
    print(title)
    for name, value in rows:
        print(f"  {name.ljust(width)}  {value}")


def write_json(path, facts):
    """Writes facts to a file, whole or not at all."""
    write_bytes(path, (json.dumps(facts, indent=1) + "\n").encode())


def write_bytes(path, data):
    """Writes a file, whole or not at all."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def evaluation_rows(results):
    """Rows for `summary` from the results of an evaluation."""
    rows = []
    for name, value in results.items():
        if name.startswith("top") and name[3:].isdigit():
            low, high = results[f"{name}_low"], results[f"{name}_high"]
            k = name[3:]
            rows.append(
                (f"top-{k} accuracy", f"{value:.2%}  (95 % interval {low:.2%} to {high:.2%})")
            )
    rows.append(("NLL", f"{results['nll']:.4f}"))
    rows.append(
        ("images", f"{results['num_examples']} ({results['split']}, {results['crops']} crops)")
    )
    return rows
