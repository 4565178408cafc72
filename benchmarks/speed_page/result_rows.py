"""Reads the JSON of each benchmark into rows of one shape, for the table of all of them."""

import dataclasses
import statistics


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
      what: was measured, with its unit.
      ours: our figure.
      peer: what it is compared with.
      theirs: the peer's figure.
      ratio: by which ours is better, as a factor; None where no ratio is meant.
      wanted: the ratio that we want; None without a goal.
    """

    what: str
    ours: float
    peer: str
    theirs: float
    ratio: float | None
    wanted: float | None = None


def _make_rate_row(what, ours, peer, theirs, wanted=None):
    """A Row of two rates."""
    return Row(what, ours, peer, theirs, ours / theirs, wanted)


def step_vs_keras(report):
    """Speed, peak memory."""
    wanted = {"bfloat16": 1.7, "float32": 1.3}
    rows = []
    for dtype, result in report["results"].items():
        ours, keras = (result["medians"][side] for side in ("ours", "keras"))
        rates = [side["images_per_second"] for side in (ours, keras)]
        what = f"training step, {dtype}, images/s"
        rows.append(
            Row(what, rates[0], "Keras layers", rates[1], result["median_ratio"], wanted[dtype])
        )
        memory = [side["peak_memory_mb"] for side in (ours, keras)]
        what = f"its peak memory, {dtype}, MB"
        rows.append(Row(what, memory[0], "Keras layers", memory[1], memory[1] / memory[0]))
    return rows


def step_vs_torch(report):
    """Speed of training and evaluation."""
    names = {"train": "training step", "eval": "forward pass of an evaluation"}
    return [
        Row(
            f"{names[r['work']]}, {r['dtype']}, images/s",
            r["medians"]["ours"],
            "timm on torch",
            r["medians"]["torch"],
            r["ratio"],
            r["wanted"],
        )
        for r in report["results"]
    ]


def start_up(report):
    """Seconds until the first step is done."""
    results = report["results"]
    ours, keras = (results["medians"][side]["seconds"] for side in ("ours", "keras"))
    what = f"start of the process to end of the first step, {report['dtype']}, s"
    return [Row(what, ours, "Keras layers", keras, results["ratio"], results["wanted"])]


def matmul_share(report):
    """The rate of a training step beside that of matrix products, from `--mode=benchmark`."""
    wanted = {"bfloat16": 0.85, "float32": 0.8}[report["compute_dtype"]]
    what = f"arithmetic of a training step, {report['compute_dtype']}, GFLOP/s"
    most = report["matmul_gflops_per_second"]
    return [_make_rate_row(what, report["gflops_per_second"], "matrix products", most, wanted)]


def eval_vs_keras(report):
    """Speed of a ten-crop evaluation, decoding included."""
    result = report["result"]
    ours, keras = (result["medians"][side]["images_per_second"] for side in ("ours", "keras"))
    what = f"ten-crop evaluation from files, ResNetV2-50, {report['dtype']}, images/s"
    return [Row(what, ours, "Keras layers, predict", keras, result["median_ratio"], 1.2)]


def input_vs_peers(report):
    """Speed of the input pipeline; sides that were skipped have no row."""
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


def input_formats(report):
    """Speed of a prepared set beside its files."""
    runs = report["images_per_second"]
    medians = {side: statistics.median(rates) for side, rates in runs.items()}
    what = "input pipeline, classic from TFRecords at 288 px, images/s"
    return [
        _make_rate_row(what, medians["tfrecord"], "the files themselves", medians["files"], 1.4)
    ]


def predict_vs_eval(report):
    """Speed of predictions."""
    medians = report["results"]["medians"]
    words = dict(word.split("=", 1) for word in report["command"].split() if "=" in word)
    what = f"--mode=predict, {words['--model']}, 64 px, {words['--crops']} views, images/s"
    return [_make_rate_row(what, medians["predict"], "--mode=eval", medians["eval"], 0.8)]


def net_speeds(report):
    """Arithmetic of every net beside that of the first."""
    first, *others = report["results"]
    rates = {net: figures["gigaops"] for net, figures in report["results"].items()}
    what = "training step of {}, 10^9 multiply-adds/s"
    return [_make_rate_row(what.format(net), rates[net], first, rates[first]) for net in others]


def timm_parity(report):
    """Largest difference of logits from timm's, of all nets and sizes."""
    results = report["results"]
    every = [figures for sizes in results.values() for figures in sizes.values()]
    worst = max(figures["difference"] for figures in every)
    largest = max(figures["largest_logit"] for figures in every)
    equal = all(figures["equal"] for figures in every)
    what = f"largest difference of logits up to {largest:.2f}, {len(results)} imported nets"
    return [Row(what, worst, "timm; at most", 1e-4, 1.0 if equal else 0.0, 1.0)]


def loop_overhead(report):
    """Speed of the whole program beside the step alone."""
    rows = report["results"]["rows"]
    bare, loop = (statistics.median(row[i] for row in rows) for i in (1, 2))
    ratio = report["results"]["median_ratio"]
    return [Row("--mode=train in memory, images/s", loop, "the step alone", bare, ratio, 0.97)]


def replicas(report):
    """Speed of two replicas on a CPU beside one: at most 1.1 times as long a step."""
    one, two = (statistics.median(row[i] for row in report["rows"]) for i in (1, 2))
    what = f"step of two replicas on one CPU, {report['size']} px, images/s"
    return [Row(what, two, "one replica", one, 1 / report["median"], round(1 / 1.1, 2))]
