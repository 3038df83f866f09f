"""The hostile base's variants one by one, and the processes of a fleet that runs them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from evo.base import load_base
from evo.outcome import Built
from evo.targets.host import HostTarget
from evo.variant import Variant, make_variant
from evo.workloads import find_workload
from tests.hostile.variants import write_base

CASE = find_workload("attention").case("tiny", dtype="float32")


class Kit:
    """Variants of the hostile base, built when asked for."""

    def __init__(self, folder: Path) -> None:
        self.target = HostTarget()
        self.facts = self.target.facts()
        self.base = load_base(write_base(folder, honest=8, each=2))
        self.space = self.base.space({**self.facts.limits, **CASE.constants()})

    def variant(self, hostility: str = "none", serial: int = 0) -> Variant:
        return make_variant(
            self.base,
            self.space,
            self.space.configuration({"serial": serial, "hostility": hostility}),
            constants=CASE.constants(),
            facts=self.facts.limits,
            arch=self.facts.arch,
            toolchain=self.target.toolchain(),
        )

    def built(self, variant: Variant) -> Built:
        built = self.target.build(variant)
        assert isinstance(built, Built), built
        return built


def actor_of() -> int:
    """The process of a fleet's only seat, known from others by its files in the folder of this process's fleet."""
    folder = os.environ["EVO_FLEET_FOLDER"]
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            named = (path / "cmdline").read_bytes().startswith(b"ray::_SeatActor.")
            if named and any(str(link.readlink()).startswith(folder) for link in (path / "fd").iterdir()):
                return int(path.name)
    raise AssertionError("the fleet's seat is not there")


def nursery_of() -> int:
    """The process that forks this seat's workers, each with a guard between."""
    mark = f"EVO_FLEET={os.environ['EVO_FLEET']}".encode()
    found: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            named = b"evo.births" in (path / "cmdline").read_bytes().split(b"\0")
            if named and mark in (path / "environ").read_bytes().split(b"\0"):
                found[int(path.name)] = parent_of(int(path.name))
    root = next(pid for pid, parent in found.items() if parent not in found)
    return children_of(root)[0]


def guard_of(nursery: int) -> int:
    """The parent of the worker in use: the older one, the other guards the spare."""
    return children_of(nursery)[0]


def children_of(pid: int) -> list[int]:
    """Oldest first."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
