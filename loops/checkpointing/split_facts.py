"""What a run records about its images, to tell later in what they have changed."""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

import numpy as np

from input_pipeline.config import DataConfig
from input_pipeline.sources import folder_splits, source
from input_pipeline.sources.source import Source
from input_pipeline.text import pluralize

_NUM_SHOWN = 3


class SplitFacts(TypedDict):
    """What config.json contains about a split.

    Attributes:
      images: number of images.
      fingerprint: hash over the names and labels of the images.
      class_sizes: number of images of each class. Older versions did not write it.
      first: name of the first image. Likewise.
      rule: what the labels and the split come from. Likewise.
      written: of class folders without splits, see `folder_splits.fingerprint_written`. Likewise.
    """

    images: int
    fingerprint: str
    class_sizes: NotRequired[list[int]]
    first: NotRequired[str]
    rule: NotRequired[str]
    written: NotRequired[tuple[int, str]]


def describe(split: Source, config: DataConfig | None = None) -> SplitFacts:
    """Returns the facts about a split.

    Args:
      split: the split.
      config: names the images; None omits what is written down about them.
    """
    facts: SplitFacts = {
        "images": split.num_examples,
        "fingerprint": split.fingerprint,
        "class_sizes": np.bincount(split.labels, minlength=len(split.class_names)).tolist(),
        "first": split.describe(0),
        "rule": split.rule,
    }
    if config is not None and split.rule == folder_splits.RULE:
        facts["written"] = folder_splits.fingerprint_written(source.get_data_dir(config))
    return facts


def require_same_split(then: Mapping[str, SplitFacts], config: DataConfig) -> None:
    """Checks that the split that a run was trained on is still known and the same.

    Args:
      then: the recorded facts by split.
      config: names the images that are opened now.

    Raises:
      DataError: the run split class folders by itself, and this split is lost or another one.
    """
    for facts in then.values():
        if facts.get("rule") == folder_splits.RULE:
            source.require_written_split(config, facts.get("written", ()))


def find_changes(
    then: Mapping[str, SplitFacts], now: Mapping[str, SplitFacts], class_names: Sequence[str]
) -> list[str]:
    """Describes in what the images of the splits differ, one text for each changed split.

    Args:
      then: the recorded facts by split.
      now: the facts of today by split; only these splits are compared.
      class_names: class names by label.
    """
    return [
        f"{name}: {_describe_change(then[name], facts, class_names)}"
        for name, facts in now.items()
        if name in then and then[name]["fingerprint"] != facts["fingerprint"]
    ]


def _describe_change(then: SplitFacts, now: SplitFacts, class_names: Sequence[str]) -> str:
    parts = [pluralize(now["images"], "image")]
    if now["images"] != then["images"]:
        parts[0] += f", were {then['images']}"
    sizes = zip(class_names, now["class_sizes"], then.get("class_sizes", []), strict=False)
    changed = [f"{name} has {size}, had {old}" for name, size, old in sizes if size != old]
    parts += changed[:_NUM_SHOWN]
    if len(changed) > _NUM_SHOWN:
        parts.append(f"{len(changed) - _NUM_SHOWN} more classes have changed")
    if not changed:
        parts.append("other names or labels")
    if now["first"] != then.get("first", now["first"]):
        parts.append(f"the first is {now['first']}, was {then['first']}")
    return "; ".join(parts)
