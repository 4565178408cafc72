"""Removes old checkpoints of a run."""

import pathlib
from collections.abc import Sequence

from loops.checkpointing import checkpoint


class VerificationCache:
    """Remembers intact step folders, so that a process hashes each folder only once.

    A folder counts as intact while the names, sizes, times and inodes of its files are unchanged.
    """

    def __init__(self) -> None:
        self._stats: dict[str, list[tuple[str, int, int, int]]] = {}

    def mark_intact(self, folder: pathlib.Path) -> None:
        """Records that a folder is intact."""
        self._stats[folder.name] = _stat_files(folder)

    def is_intact(self, folder: pathlib.Path) -> bool:
        """Returns whether a step folder passes verification, now or earlier."""
        if self._stats.get(folder.name) == _stat_files(folder):
            return True
        intact = checkpoint.is_intact(folder)
        if intact:
            self.mark_intact(folder)
        return intact


def _stat_files(folder: pathlib.Path) -> list[tuple[str, int, int, int]]:
    """Returns (name, size, modification time, inode) of each file."""
    stats = {path.name: path.lstat() for path in sorted(pathlib.Path(folder).iterdir())}
    return [(name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats.items()]


def prune(
    run_dir: pathlib.Path,
    keep: int,
    keep_every: float | None = None,
    verified: VerificationCache | None = None,
) -> None:
    """Removes old step folders.

    The newest `keep`, the best one and the first of every `keep_every` steps
    stay. Corrupt folders are not counted, because they must not displace intact ones.

    Args:
      run_dir: the run folder.
      keep: number of newest checkpoints to keep.
      keep_every: interval in steps, fractional if it was given in epochs, or None.
      verified: folders known to be intact; without it every folder is hashed.
    """
    verified = verified or VerificationCache()
    folders = [f for f in checkpoint.list_step_folders(run_dir) if verified.is_intact(f)]
    scores = {f: checkpoint.read_score(f) for f in folders}
    scored = [f for f in folders if scores[f] is not None]
    protected = _find_milestones(folders, keep_every) if keep_every else set()
    protected.add(max(scored, key=scores.get, default=None))
    for folder in folders[keep:]:
        if folder not in protected:
            checkpoint.remove(folder)


def _find_milestones(folders: Sequence[pathlib.Path], keep_every: float) -> set[pathlib.Path]:
    """Returns the first step folder of each interval except the interval that starts at step 0.

    Exact multiples of the interval may not exist, because saves happen at rounded steps. The
    half step added to each step compensates for the rounding.
    """
    first = {}
    for folder in sorted(folders, key=checkpoint.parse_step):
        first.setdefault((checkpoint.parse_step(folder) + 0.5) // keep_every, folder)
    return {folder for interval, folder in first.items() if interval}
