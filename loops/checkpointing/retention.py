"""Which step folders a run keeps."""

import pathlib

from loops.checkpointing import checkpoint


class VerificationCache:
    """Remembers which step folders were found intact, so that a process hashes each once.

    A folder is trusted as long as names, sizes, times and inodes of its files stay what they were.
    """

    def __init__(self):
        self._stamps = {}

    def note(self, folder):
        """Takes note of an intact folder."""
        self._stamps[folder.name] = _stat_files(folder)

    def is_intact(self, folder):
        """Whether a step folder passes its checks, now or before."""
        if self._stamps.get(folder.name) == _stat_files(folder):
            return True
        intact = checkpoint.is_intact(folder)
        if intact:
            self.note(folder)
        return intact


def _stat_files(folder):
    stats = {path.name: path.lstat() for path in sorted(pathlib.Path(folder).iterdir())}
    return [(name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in stats.items()]


def prune(run_dir, keep, keep_every=None, verified=None):
    """Removes all step folders but the newest `keep`, the one with the highest top-1, and the
    first of every `keep_every` steps.

    Only intact ones count: a damaged folder must not push out a sound one.

    Args:
      run_dir: the run folder.
      keep: how many of the newest.
      keep_every: steps, as a float where it was given in epochs, or None.
      verified: Verified, or None to hash every folder.
    """
    verified = verified or VerificationCache()
    folders = [f for f in checkpoint.list_step_folders(run_dir) if verified.is_intact(f)]
    figures = {f: checkpoint.read_top1(f) for f in folders}
    scored = [f for f in folders if figures[f] is not None]
    spared = _find_milestones(folders, keep_every) if keep_every else set()
    spared.add(max(scored, key=figures.get, default=None))
    for folder in folders[keep:]:
        if folder not in spared:
            checkpoint.remove(folder)


def _find_milestones(folders, every):
    """The first step folder of each interval but the one from step 0.

    Not those of exact multiples, at which nothing may have been saved. Half a step more, as saves
    are at rounded intervals.
    """
    first = {}
    for folder in sorted(folders, key=checkpoint.parse_step):
        first.setdefault((checkpoint.parse_step(folder) + 0.5) // every, folder)
    return {folder for interval, folder in first.items() if interval}
