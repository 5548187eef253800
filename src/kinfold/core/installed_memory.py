"""How much memory there is, asked before data is read."""

from __future__ import annotations

import os
from pathlib import Path

# Where Linux says how much a container may use, in its two forms.
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_fits(needed: int, what: str, instead: str) -> None:
    """Raise ValueError where `what`, a subject and its verb, is more bytes than the machine has."""
    memory = _installed()
    if memory is not None and needed > memory:
        raise ValueError(
            f"{what} {needed / 2**30:.1f} GiB, and this machine has {memory / 2**30:.1f} GiB "
            f"of memory. {instead}"
        )


def _installed() -> int | None:
    """Bytes of memory that this process can have; None where the system does not say."""
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, OSError, ValueError):
        found = []
    for limit in _LIMITS:
        try:
            found.append(int(Path(limit).read_text("ascii")))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(found, default=None)
