"""How much memory this machine, or the control group of this process, has."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def memory_bytes() -> int:
    """Return the memory of the machine, or the smallest limit of the control groups that this process is in."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *cgroup_limits(OWN_CGROUPS, CGROUPS)])


def cgroup_limits(own: Path, root: Path) -> list[int]:
    """Return the memory limits of the groups in a ``/proc/…/cgroup`` file, and of those around them (versions 1, 2)."""
    limits = []
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = Path(path.lstrip("/"))
        limits += [_text(folder / part / name).strip() for part in (group, *group.parents)]
    return [int(limit) for limit in limits if limit.isdigit()]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
