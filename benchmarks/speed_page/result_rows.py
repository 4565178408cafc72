"""Converts the JSON of each benchmark to rows of the common table.

Each function has the name of its benchmark module and takes the JSON that the module writes.
"""

import dataclasses
import statistics
from collections.abc import Mapping

Report = Mapping  # the parsed JSON of a benchmark


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
      quantity: what was measured, with its unit.
      ours: our value.
      peer: name of what we compare with.
      theirs: the value of the peer.
      ratio: factor by which ours is better; None if there is no ratio.
      target: the ratio to reach; None without a target.
    """

    quantity: str
    ours: float
    peer: str
    theirs: float
    ratio: float | None
    target: float | None = None


def _make_rate_row(
    quantity: str, ours: float, peer: str, theirs: float, target: float | None = None
) -> Row:
    """Returns a Row of two rates, where more is better."""
    return Row(quantity, ours, peer, theirs, ours / theirs, target)


def step_vs_keras(report: Report) -> list[Row]:
    """Returns speed and peak memory of a training step."""
    targets = {"bfloat16": 1.7, "float32": 1.3}
    rows = []
    for dtype, result in report["results"].items():
        ours, keras = (result["medians"][side] for side in ("ours", "keras"))
        rates = [side["images_per_second"] for side in (ours, keras)]
        quantity, ratio = f"training step, {dtype}, images/s", result["median_ratio"]
        rows.append(Row(quantity, rates[0], "Keras layers", rates[1], ratio, targets[dtype]))
        memory = [side["peak_memory_mb"] for side in (ours, keras)]
        quantity = f"peak memory of a training step, {dtype}, MB"
        rows.append(Row(quantity, memory[0], "Keras layers", memory[1], memory[1] / memory[0]))
    return rows


def step_vs_torch(report: Report) -> list[Row]:
    """Returns the speed of training and evaluation."""
    labels = {"train": "training step", "eval": "forward pass of an evaluation"}
    return [
        Row(
            f"{labels[r['work']]}, {r['dtype']}, images/s",
            r["medians"]["ours"],
            "timm on torch",
            r["medians"]["torch"],
            r["ratio"],
            r["wanted"],
        )
        for r in report["results"]
    ]


def start_up(report: Report) -> list[Row]:
    """Returns the seconds from process start to the end of the first step."""
    results = report["results"]
    ours, keras = (results["medians"][side]["seconds"] for side in ("ours", "keras"))
    quantity = f"process start to end of the first step, {report['dtype']}, s"
    return [Row(quantity, ours, "Keras layers", keras, results["ratio"], results["wanted"])]


def matmul_share(report: Report) -> list[Row]:
    """Returns the FLOP rate of a training step and that of matrix products.

    The report is that of `--mode=benchmark --benchmark=step`.
    """
    target = {"bfloat16": 0.85, "float32": 0.8}[report["compute_dtype"]]
    quantity = f"arithmetic of a training step, {report['compute_dtype']}, GFLOP/s"
    peak = report["matmul_gflops_per_second"]
    return [_make_rate_row(quantity, report["gflops_per_second"], "matrix products", peak, target)]


def eval_vs_keras(report: Report) -> list[Row]:
    """Returns the speed of a ten-crop evaluation, including decoding."""
    result = report["result"]
    ours, keras = (result["medians"][side]["images_per_second"] for side in ("ours", "keras"))
    quantity = f"ten-crop evaluation from files, ResNetV2-50, {report['dtype']}, images/s"
    return [Row(quantity, ours, "Keras layers, predict", keras, result["median_ratio"], 1.2)]


def input_vs_peers(report: Report) -> list[Row]:
    """Returns the speed of the input pipeline; skipped sides have no row."""
    runs = report["images_per_second"]
    medians = {side: statistics.median(rates) for side, rates in runs.items() if rates}
    return [
        Row(
            f"input pipeline, {r['ours']}, images/s",
            medians[r["ours"]],
            r["other"].replace("_", ", "),
            medians[r["other"]],
            r["ratio"],
            r["wanted"],
        )
        for r in report["ratios"]
    ]


def input_formats(report: Report) -> list[Row]:
    """Returns the speed of a prepared data set and of its original files."""
    runs = report["images_per_second"]
    medians = {side: statistics.median(rates) for side, rates in runs.items()}
    quantity = "input pipeline, classic from TFRecords at 288 px, images/s"
    return [
        _make_rate_row(quantity, medians["tfrecord"], "the original files", medians["files"], 1.4)
    ]


def predict_vs_eval(report: Report) -> list[Row]:
    """Returns the speed of predictions."""
    medians = report["results"]["medians"]
    flags = dict(word.split("=", 1) for word in report["command"].split() if "=" in word)
    quantity = f"--mode=predict, {flags['--model']}, 64 px, {flags['--crops']} crops, images/s"
    return [_make_rate_row(quantity, medians["predict"], "--mode=eval", medians["eval"], 0.8)]


def net_speeds(report: Report) -> list[Row]:
    """Returns the arithmetic rate of each network and that of the first one."""
    first, *others = report["results"]
    rates = {net: result["gigaops"] for net, result in report["results"].items()}
    quantity = "training step of {}, 10^9 multiply-adds/s"
    return [_make_rate_row(quantity.format(net), rates[net], first, rates[first]) for net in others]


def timm_parity(report: Report) -> list[Row]:
    """Returns the largest differences from timm over all networks: nets, pixels and answers."""
    results = list(report["results"].values())
    reached = 1.0 if all(result["equal"] for result in results) else 0.0
    rows = (
        ("logits of the same images, {}", "net", 1e-4),
        ("pixels of photographs, of 255, {}", "pixels", 2.0),
        ("logits of photographs, of their deviation, {}", "logits", 0.005),
    )
    nets = f"{len(results)} imported nets"
    return [
        Row(
            "largest difference: " + quantity.format(nets),
            max(result[key] for result in results),
            *("timm; at most", limit, reached, 1.0),
        )
        for quantity, key, limit in rows
    ]


def loop_overhead(report: Report) -> list[Row]:
    """Returns the speed of the whole program and that of the training step alone."""
    rows = report["results"]["rows"]
    bare, loop = (statistics.median(row[i] for row in rows) for i in (1, 2))
    ratio = report["results"]["median_ratio"]
    return [Row("--mode=train in memory, images/s", loop, "the step alone", bare, ratio, 0.97)]


def replicas(report: Report) -> list[Row]:
    """Returns the speed of two replicas and of one; the target is at most 1.1 times the time."""
    one, two = (statistics.median(row[i] for row in report["rows"]) for i in (1, 2))
    quantity = f"step of two replicas on one CPU, {report['size']} px, images/s"
    return [Row(quantity, two, "one replica", one, 1 / report["median"], round(1 / 1.1, 2))]
