"""Compares an evaluation of imported weights with the accuracy that their publisher states."""

from collections.abc import Mapping
from typing import Any

from input_pipeline.augmentation import crops
from loops.checkpointing.run_folder import Record
from loops.config.config import Config
from nets import published_weights
from nets.published_weights import Figure

# Images of the split that the published accuracies are measured on.
_NUM_IMAGES = 50_000


def find(record: Record, config: Config, results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the published accuracy of an evaluated model, and how its test differs from ours.

    Args:
      record: Record of the run.
      config: config of the evaluation.
      results: of the evaluation. Its center crop is compared.

    Returns:
      None unless these are known weights on the whole val split of ILSVRC 2012, with their top-1
      accuracy. Else a dict with the fields of `Figure`, `repository`, and `differences`, one text
      for each.
    """
    entry = published_weights.find(str(record.weights.get("repository", "")))
    is_val = (config.data.dataset, config.evaluation.split) == ("ilsvrc2012", "val")
    if entry is None or not is_val or results["num_examples"] != _NUM_IMAGES:
        return None
    if "top1" not in results:  # `--top_k` leaves it out
        return None
    # The figure whose test differs least from ours.
    differences, figure = min(
        ((_list_differences(config, figure), figure) for figure in entry.figures),
        key=lambda pair: len(pair[0]),
    )
    return {
        "repository": entry.repository,
        **figure._asdict(),
        "differences": differences,
    }


def _list_differences(config: Config, figure: Figure) -> list[str]:
    data = config.data
    ours = crops.eval_short_side(data.image_size, data.crop_fraction, data.torchvision_rounding)
    theirs = crops.eval_short_side(figure.image_size, figure.crop_fraction, True)
    pairs = (
        ("image size", data.image_size, figure.image_size),
        ("short side", ours, theirs),
        ("interpolation", data.interpolation, figure.interpolation),
    )
    return [f"{name} {own}, published with {other}" for name, own, other in pairs if own != other]


def format_row(results: Mapping[str, Any]) -> tuple[str, str]:
    """Formats the comparison as a row of the summary.

    Args:
      results: of the evaluation, with `published`.
    """
    published, ours = results["published"], results.get("center_crop", results)
    if published["differences"]:
        verdict = "another test: " + "; ".join(published["differences"])
    else:
        is_inside = ours["top1_low"] <= published["top1"] <= ours["top1_high"]
        verdict = "inside our 95 % interval" if is_inside else "outside our 95 % interval"
    text = (
        f"top-1 {published['top1']:.2%}, top-5 {published['top5']:.2%} with the center crop; ours"
        f" top-1 {ours['top1']:.2%} ({ours['top1_low']:.2%} to {ours['top1_high']:.2%}), {verdict}"
    )
    return "published", text
