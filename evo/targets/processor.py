"""What the processor of this machine says of itself: cores, name, clock, features, caches."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path


def cores() -> int:
    """Cores that this process may use: its affinity, cut to the container's CPU quota."""
    allowed = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        allowed = min(allowed, max(1, round(int(quota) / int(period))))
    return allowed


def _lines() -> Iterator[tuple[str, str]]:
    """Key and value of the first processor in /proc/cpuinfo."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines():
            key, _, value = line.partition(":")
            yield key.strip(), value.strip()


def name() -> str:
    """Its model, as the kernel names it."""
    return dict(_lines()).get("model name", platform.processor() or platform.machine())


def mhz() -> int:
    """Its clock now; 0 where it is not told."""
    return round(float(dict(_lines()).get("cpu MHz", "0")))


@functools.cache
def identity() -> str:
    """Model and a digest of its features: a virtual machine may hide some of what its model has."""
    lines = dict(_lines())
    numbers = ".".join(lines.get(key, "?") for key in ("cpu family", "model", "stepping"))
    features = " ".join(sorted(lines.get("flags", lines.get("Features", "")).split()))
    return f"{name()} {numbers} {hashlib.sha256(features.encode()).hexdigest()[:8]}"


@functools.cache
def caches() -> dict[int, int]:
    """Bytes of each level of data cache, as the first core sees it."""
    sizes: dict[int, int] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError, ValueError):
            if (index / "type").read_text().strip() != "Instruction":
                size = (index / "size").read_text().strip()
                unit = {"K": 1024, "M": 1024**2}.get(size[-1], 1)
                sizes[int((index / "level").read_text())] = int(size.rstrip("KM")) * unit
    return sizes
