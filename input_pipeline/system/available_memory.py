"""How much memory a process can still get: of the machine, and of the control groups it is in."""

import os
import pathlib

# Of a group: its limit, what is used of it, and how much of that are files read once. The first
# line is of control groups' version 2, the second of version 1.
_CGROUP_V2 = ("memory.max", "memory.current", "inactive_file")
_CGROUP_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_bytes(root="/"):
    """Bytes of memory that this process could get without swapping or being ended for it.

    A batch system or a container limits a group of processes to less than the machine has.

    Args:
      root: folder that holds `proc` and `sys`.

    Returns:
      int, or None where the system does not say.
    """
    root = pathlib.Path(root)
    try:
        words = (root / "proc/meminfo").read_text().split()
        free = [int(words[words.index("MemAvailable:") + 1]) * 1024]
    except OSError:
        if "SC_AVPHYS_PAGES" not in os.sysconf_names:
            return None
        free = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for group, names in _iter_cgroups(root):
        try:
            free.append(_free_bytes(group, *names))
        except (OSError, ValueError):  # no such group seen from here, or "max"
            continue
    return max(0, min(free))


def _iter_cgroups(root):
    """Yields (folder, names of its files) of each group that this process is in, inner ones first.

    In a container the path may be the one outside of it; the mount itself is then its group.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        steps = [step for step in path.split("/") if step not in ("", "..")]
        for depth in range(len(steps), -1, -1):
            yield mount.joinpath(*steps[:depth]), _CGROUP_V1 if controllers else _CGROUP_V2


def _free_bytes(group, limit, used, files):
    """What a group has left; files read stay in memory only until it is wanted for other things."""
    limit, used = (int((group / name).read_text()) for name in (limit, used))
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return limit - used + int(stat.get(files, 0))
