"""The comparisons that `make bench` runs, in order. To add one, add an entry to `ALL`."""

import dataclasses
from collections.abc import Callable

from benchmarks import harness
from benchmarks.speed_page import result_rows

# Placeholders in commands: replaced by values of this machine, printed as they are.
TORCH_PYTHON = "$TORCH_PYTHON"
IMAGES = "$REAL_IMAGES_DIR"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A benchmark with its arguments.

    Attributes:
      name: name of its JSON file, without the extension.
      words: its command after `python`; `run_all` adds `--json=FILE`.
      minutes: time limit.
      make_rows: converts its JSON to rows. None if it prints a Markdown table instead.
    """

    name: str
    words: tuple[str, ...]
    minutes: float
    make_rows: Callable[[result_rows.Report], list[result_rows.Row]] | None


def _make_comparison(
    module: str, minutes: float, *words: str, name: str | None = None
) -> Comparison:
    make_rows = getattr(result_rows, module, None)
    return Comparison(name or module, ("-m", f"benchmarks.{module}", *words), minutes, make_rows)


def _make_matmul_comparison(dtype: str) -> Comparison:
    half = () if dtype == "float32" else ("--mixed_precision", f"--half_dtype={dtype}")
    words = ("main.py", "--mode=benchmark", "--benchmark=step", "--batch_size=32", *half)
    return Comparison(f"share_{dtype}", words, 6, result_rows.matmul_share)


ALL = (
    _make_comparison("step_vs_keras", 30),
    *map(_make_matmul_comparison, harness.default_dtypes()),
    _make_comparison("start_up", 12),
    _make_comparison("step_vs_torch", 40, f"--torch_python={TORCH_PYTHON}"),
    _make_comparison("eval_vs_keras", 30, f"--data_dir={IMAGES}/ilsvrc_sample"),
    _make_comparison("predict_vs_eval", 20),
    _make_comparison("predict_vs_eval", 20, "--crops=1", name="predict_vs_eval_1_crop"),
    _make_comparison(
        "input_vs_peers",
        15,
        f"--data_dir={IMAGES}/ilsvrc_sample",
        f"--torch_python={TORCH_PYTHON}",
    ),
    _make_comparison("input_formats", 20, f"--data_dir={IMAGES}/ilsvrc_sample"),
    _make_comparison("loop_overhead", 45),
    _make_comparison("replicas", 40, "--size=224", "--steps=5"),
    _make_comparison("replicas", 30, name="replicas_64_px"),
    _make_comparison("net_speeds", 40),
    Comparison(
        "timm_parity", (TORCH_PYTHON, "-m", "benchmarks.timm_parity"), 15, result_rows.timm_parity
    ),
    _make_comparison("model_table", 5),
)
