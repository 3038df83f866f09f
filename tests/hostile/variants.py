"""A base from outside the project, some of whose variants are hostile, and what is to become of each."""

from __future__ import annotations

import shutil
from pathlib import Path

TEMPLATE = Path(__file__).with_name("hostile.cpp")

# hostility -> (stage, reason) of the one rejection that it must end in
FATES = {
    "crash": ("crash", "SIGSEGV"),
    "hang": ("timeout", "hang"),
    "wrong": ("verify", "wrong_output"),
    "slow_compile": ("timeout", "build"),
    "memory": ("crash", "out_of_memory"),
    "exit": ("crash", "exit_3"),
    "killed": ("crash", "SIGKILL"),
    "parent": ("crash", "SIGKILL"),  # kills the process above its worker
    "stray": ("crash", "SIGSEGV"),  # leaves a child of its own behind
}
SLOW = ("hang", "slow_compile")  # each costs a time limit


def write_base(folder: Path, *, honest: int, each: int, slow: int | None = None) -> Path:
    """Write `search_spaces/hostile.yaml` and its template under the folder; returns the YAML's path.

    The space holds `honest` variants that are right and `each` of every hostility (`slow` of those in SLOW where that
    is given), all of them different programs.
    """
    of_slow = each if slow is None else slow
    (folder / "kernels").mkdir(parents=True)
    (folder / "search_spaces").mkdir()
    shutil.copy(TEMPLATE, folder / "kernels" / TEMPLATE.name)
    path = folder / "search_spaces" / "hostile.yaml"
    serials = ", ".join(str(serial) for serial in range(max(honest, each, of_slow)))
    path.write_text(
        f"""template: {TEMPLATE.name}
workload: attention
entry: attention_forward
doc: Attention on the CPU, some of it hostile
knobs:
  serial: [{serials}]
  hostility: [none, {", ".join(FATES)}]
rules:
  honest_ones: hostility != none or serial < {honest}
  hostile_ones: hostility == none or serial < ({of_slow} if hostility in ({", ".join(SLOW)}) else {each})
"""
    )
    return path
