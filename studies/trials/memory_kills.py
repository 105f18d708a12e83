"""The kernel's out-of-memory (OOM) kill counters, as evidence that a process crashed because memory ran out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path


def count_memory_kills(root: Path = Path("/")) -> dict[str, int]:
    """Read the kernel's OOM kill counters, keyed by counter name; return an empty dictionary on macOS.

    The counter of this process's control group comes first, then the counter of the machine. A name contains the boot
    id and an inode, so it is unique across machines, boots and control groups. The counters are read
    from files in the folders ``proc`` and ``sys`` of `root`.
    """
    kills = {}
    with contextlib.suppress(OSError):  # macOS
        boot = (root / "proc/sys/kernel/random/boot_id").read_text().strip()
        for path in (*_control_group_files(root), root / "proc/vmstat"):
            with contextlib.suppress(OSError):
                counts = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
                if "oom_kill" in counts:
                    kills[f"{boot}:{path.stat().st_ino}"] = int(counts["oom_kill"])
    return kills


def has_risen(before: Mapping[str, int], now: Mapping[str, int]) -> bool:
    """Return whether the first counter that is in both mappings has risen; False if no counter is in both."""
    return next((now[name] > count for name, count in before.items() if name in now), False)


def _control_group_files(root: Path) -> Iterator[Path]:
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:  # cgroup version 2, whose counter includes the child groups
            yield root / f"sys/fs/cgroup{group}/memory.events"
        elif "memory" in controllers.split(","):
            yield root / f"sys/fs/cgroup/memory{group}/memory.oom_control"
