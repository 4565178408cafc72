"""Measures the memory that this process can still allocate, within its control groups."""

import os
import pathlib
from collections.abc import Iterator
from typing import NamedTuple


class _CgroupFiles(NamedTuple):
    """Names of a memory control group's files, and of one key in its `memory.stat`."""

    limit: str
    usage: str
    inactive_file: str  # key of the page cache that the kernel can reclaim first


_CGROUP_V2 = _CgroupFiles("memory.max", "memory.current", "inactive_file")
_CGROUP_V1 = _CgroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_bytes(root: str | os.PathLike[str] = "/") -> int | None:
    """Returns how many bytes this process can allocate without swapping or being killed.

    A batch system or a container limits a group of processes to less than the machine has.

    Args:
      root: folder that contains `proc` and `sys`.

    Returns:
      Bytes, or None if the operating system does not report them.
    """
    root = pathlib.Path(root)
    try:
        words = (root / "proc/meminfo").read_text().split()
        candidates = [int(words[words.index("MemAvailable:") + 1]) * 1024]
    except OSError:
        if "SC_AVPHYS_PAGES" not in os.sysconf_names:
            return None
        candidates = [os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for folder, files in _iter_cgroups(root):
        try:
            candidates.append(_free_bytes(folder, files))
        except (OSError, ValueError):  # the group is not visible, or its limit is "max"
            continue
    return max(0, min(candidates))


def _iter_cgroups(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, _CgroupFiles]]:
    """Yields the folder and file names of each group of this process, innermost first.

    A container may see its path on the host. The mount point itself is then its group.
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
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield mount.joinpath(*parts[:depth]), _CGROUP_V1 if controllers else _CGROUP_V2


def _free_bytes(folder: pathlib.Path, files: _CgroupFiles) -> int:
    """Returns what a group may still allocate.

    Inactive page cache counts as free, because the kernel reclaims it when memory is needed.
    """
    limit = int((folder / files.limit).read_text())
    usage = int((folder / files.usage).read_text())
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return limit - usage + int(stat.get(files.inactive_file, 0))
