"""Names of published weights on the Hugging Face Hub, as in `--weights=timm/resnet50.a1_in1k`."""

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from input_pipeline.errors import UsageError

_PREFIX = re.compile(r"hf[_-]hub:")
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


class HubName(NamedTuple):
    """A repository on the hub.

    Attributes:
      repository: as OWNER/NAME.
      revision: branch, tag or commit; None for the main branch.
    """

    repository: str
    revision: str | None

    @property
    def run_name(self) -> str:
        """The name of the run folder that the weights are imported into."""
        return self.repository.partition("/")[2]

    def __str__(self) -> str:
        prefix = "" if self.repository.startswith("timm/") else "hf_hub:"
        return f"{prefix}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_any(texts: Iterable[str]) -> bool:
    """Returns whether one of several values may name a repository; see `parse`."""
    return any(_PREFIX.match(text) or text.startswith("timm/") for text in texts)


def parse(flag: str, text: str) -> HubName | None:
    """Returns the repository that a value names, or None for a path.

    `timm/NAME` and `hf_hub:OWNER/NAME` are repositories, unless such a path exists. A revision may
    follow as in `timm/NAME@REVISION`.

    Args:
      flag: name of the flag, for the message.
      text: its value.

    Raises:
      UsageError: `hf_hub:` does not begin a valid name.
    """
    prefix = _PREFIX.match(text)
    if os.path.lexists(text) or not (prefix or text.startswith("timm/")):
        return None
    match = _NAME.fullmatch(text[prefix.end() :] if prefix else text)
    if match is None:
        raise UsageError(f"--{flag}={text}: is not a name on the hub, as in hf_hub:OWNER/NAME")
    return HubName(match[1], match[2])
