"""Finds what `--weights` names: a repository on the hub, a folder with a card, or a file."""

import dataclasses
import os
import pathlib

from input_pipeline.errors import UsageError
from loops.config import hub_names
from loops.tools.weights import card, hub


@dataclasses.dataclass(frozen=True)
class LocatedWeights:
    """Weights, and the card that describes them.

    Attributes:
      where: flag and value, for messages.
      name: the repository, or None for files of the user.
      path: file of the weights, or their folder in the cache if they are not downloaded yet.
      card: None if there is none.
      run_name: default of `--run_name`; empty for a file.
    """

    where: str
    name: hub_names.HubName | None
    path: pathlib.Path
    card: card.Card | None
    run_name: str

    def fetch(self) -> pathlib.Path:
        """Returns the path of the file of weights, which it downloads if needed.

        Raises:
          UsageError: the repository has no such file, or it cannot be downloaded.
        """
        if self.name is None:
            return self.path
        # The commit of the card: another may be published in between.
        name = self.name._replace(revision=self.commit or self.name.revision)
        path = hub.download(self.where, name, hub.WEIGHTS)
        if path is None:
            raise UsageError(
                f"{self.where}: has no {hub.WEIGHTS}; files of other forms are not downloaded"
            )
        return path

    @property
    def commit(self) -> str:
        """The commit of the repository, or "" if the card was not downloaded."""
        return self.path.name if self.name is not None else ""


def locate(flag: str, text: str) -> LocatedWeights:
    """Finds weights and reads their card, but does not download the weights.

    Args:
      flag: name of the flag, for messages.
      text: its value.

    Raises:
      UsageError: there are no such weights, or the card is not valid.
    """
    where = f"--{flag}={text}"
    name = hub_names.parse(flag, text)
    if name is not None:
        path = hub.download(where, name, hub.CARD)
        if path is None:
            return LocatedWeights(where, name, pathlib.Path(), None, name.run_name)
        return LocatedWeights(where, name, path.parent, card.read(path, where), name.run_name)
    path = pathlib.Path(text)
    if not path.is_dir():
        return LocatedWeights(where, None, path, None, "")
    weights, described = path / hub.WEIGHTS, path / hub.CARD
    if not weights.exists():
        hint = "; a run folder needs no import: give it as --ckpt or --init_from"
        raise UsageError(
            f"{where}: the folder has no {hub.WEIGHTS}{hint if described.exists() else ''}"
        )
    found = card.read(described, where) if described.exists() else None
    return LocatedWeights(where, None, weights, found, os.path.basename(os.path.abspath(text)))
