"""What this process may use of its machine: cores, memory and address space."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

GIB = 2**30
# To import, compile and draw takes 2.1 GiB of addresses for the smallest experiment there is, and
# what compiles aborts the process where it gets none.
LEAST_ADDRESSES = 3 * GIB


def cores() -> int:
    """Returns how many cores this process may use: of its affinity, and of its container's quota.

    A quota of one and a half cores keeps two at work.
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = cpu_quota()
    return count if quota is None else max(1, min(count, math.ceil(quota)))


def cpu_quota(
    cgroups: Path = Path("/proc/self/cgroup"), mounts: Path = Path("/sys/fs/cgroup")
) -> float | None:
    """Returns the cores that control groups grant, such as `docker --cpus`; None for no limit.

    Args:
      cgroups: names the groups of this process, of version 1 or 2.
      mounts: where control groups are mounted.
    """
    folders = _groups("cpu", cgroups, mounts)
    return min((quota for folder in folders for quota in _quotas(folder)), default=None)


def memory(
    cgroups: Path = Path("/proc/self/cgroup"), mounts: Path = Path("/sys/fs/cgroup")
) -> float:
    """Returns the bytes of memory that this process may use, whoever uses some of them now.

    That is the least of the machine's, of what control groups grant (`docker --memory`), and of
    `ulimit -v`; infinity where nothing of it is known.

    Args:
      cgroups, mounts: as those of `cpu_quota`.
    """
    limits: list[float] = [math.inf]
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):  # not on Windows
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for folder in _groups("memory", cgroups, mounts):
        for file in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # `max` stands for no limit
                limits.append(int((folder / file).read_text(encoding="utf-8")))
    return min(*limits, addresses() or math.inf)


def _groups(controller: str, cgroups: Path, mounts: Path) -> Iterator[Path]:
    """Yields the folders of this process's control groups and of the groups around them.

    A group has no more than these. Inside of a container the files of its group may lie at the
    mount's root, whatever its name is outside.
    """
    try:
        lines = cgroups.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, name = [*line.split(":", 2), "", "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        group = PurePosixPath(name.lstrip("/"))
        roots = [mounts / controllers, mounts / controller] if controllers else [mounts]
        for root in roots:
            yield from (root / part for part in (group, *group.parents))


def _quotas(folder: Path) -> Iterator[float]:
    """Yields the quota of one group in cores, if it has one."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            words = " ".join((folder / file).read_text(encoding="utf-8") for file in files).split()
            quota, period = map(int, words)  # `max` stands for no limit, as does -1
        except (OSError, ValueError):
            continue
        if quota > 0 and period > 0:
            yield quota / period


def addresses() -> int | None:
    """Returns the bytes of address space that this process may have (`ulimit -v`); None for any."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit
