"""Nsight Compute on one variant: where its time goes, read from the hardware's counters.

As a program (`python -m evo.profile FILE`) it is the process that is watched: it launches the pickled variant.
"""

from __future__ import annotations

import csv
import io
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evo.errors import InputError
from evo.outcome import Built
from evo.variant import Variant

# Our word -> the counters that tell it, the first that the chip has. Source: Nsight Compute, Profiling Guide, metrics.
METRICS: Mapping[str, tuple[str, ...]] = {
    "duration_ns": ("gpu__time_duration.sum",),
    "tensor_pipe_pct": (
        "sm__inst_executed_pipe_tensor_op_hmma.avg.pct_of_peak_sustained_active",
        "sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_active",
        "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
    ),
    "barrier_stall_per_issue": (
        "smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio",
        "smsp__average_warp_latency_issue_stalled_barrier.ratio",
    ),
    "memory_stall_per_issue": ("smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio",),
    "wait_stall_per_issue": ("smsp__average_warps_issue_stalled_wait_per_issue_active.ratio",),
    "shared_stall_per_issue": ("smsp__average_warps_issue_stalled_short_scoreboard_per_issue_active.ratio",),
    "math_stall_per_issue": ("smsp__average_warps_issue_stalled_math_pipe_throttle_per_issue_active.ratio",),
    "bank_conflicts": ("l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",),
    "occupancy_pct": ("sm__warps_active.avg.pct_of_peak_sustained_active",),
    "issue_pct": ("smsp__issue_active.avg.pct_of_peak_sustained_active",),
    "dram_bytes_per_s": ("dram__bytes.sum.per_second",),
    "l2_pct": ("lts__t_sectors.avg.pct_of_peak_sustained_elapsed",),
    "shared_pct": ("l1tex__data_pipe_lsu_wavefronts_mem_shared.avg.pct_of_peak_sustained_elapsed",),
}
_LAUNCHES, _SKIPPED = 4, 3  # the profiler looks at the last of these: the first ones load code and warm the cache
_SCALE = {"nsecond": 1.0, "ns": 1.0, "usecond": 1e3, "us": 1e3, "msecond": 1e6, "ms": 1e6}
_BYTES = {"byte/second": 1.0, "Kbyte/second": 1e3, "Mbyte/second": 1e6, "Gbyte/second": 1e9, "Tbyte/second": 1e12}


@dataclass(frozen=True, slots=True)
class Subject:
    """What the watched process launches."""

    variant: Variant
    built: Built
    workload: str
    case: Any


def profile(subject: Subject, *, limit_s: float = 120.0) -> dict[str, float]:
    """Counters of one launch by our words; a counter that this chip lacks is left out.

    Raises: InputError when ncu is not installed or cannot read the counters, with its own words.
    """
    ncu = shutil.which("ncu")
    if ncu is None:
        raise InputError("ncu is not on PATH; expected Nsight Compute (it comes with the CUDA toolkit)")
    with tempfile.TemporaryDirectory(prefix="evo-profile-") as folder:
        path = Path(folder) / "subject.pickle"
        path.write_bytes(pickle.dumps(subject))
        command = [ncu, "--csv", "--page", "raw", "--clock-control", "none", "--target-processes", "all"]
        command += ["--kernel-name", subject.variant.entry, "--launch-skip", str(_SKIPPED), "--launch-count", "1"]
        command += ["--metrics", ",".join(name for names in METRICS.values() for name in names)]
        try:
            done = subprocess.run(
                [*command, sys.executable, "-m", "evo.profile", str(path)],
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"ncu gave no answer within {limit_s:g} s") from None
    found = parse(done.stdout)
    if not found:
        words = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line or "rror" in line]
        raise InputError(f"ncu read no counters: {' '.join(words)[:400] or f'exit code {done.returncode}'}")
    return found


def parse(text: str) -> dict[str, float]:
    """The counters in ncu's raw CSV (a row of names, one of units, one per kernel) by our words."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.reader(io.StringIO("\n".join(lines))))
    if len(rows) < 3:
        return {}
    names, units, values = rows[0], rows[1], rows[-1]
    raw: dict[str, float] = {}
    for name, unit, value in zip(names, units, values, strict=False):
        try:
            raw[name] = float(value.replace(",", "")) * _SCALE.get(unit, 1.0) * _BYTES.get(unit, 1.0)
        except ValueError:
            continue  # "n/a", or a column that is no counter
    return {word: raw[name] for word, names in METRICS.items() for name in names[::-1] if name in raw}


def main() -> None:
    """The watched process: load the pickled variant and launch it a few times on fresh inputs."""
    from evo.profile import Subject  # under its importable name, as it was pickled
    from evo.targets import make_target
    from evo.workloads import find_workload

    subject = pickle.loads(Path(sys.argv[1]).read_bytes())
    assert isinstance(subject, Subject)
    import torch

    target, workload = make_target("cuda"), find_workload(subject.workload)
    program = target.load(subject.built, subject.variant, workload)
    inputs = workload.inputs(subject.case, 7, "cuda")
    outputs = {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device="cuda")
        for name, (shape, dtype) in workload.empty_outputs(subject.case).items()
    }
    for _ in range(_LAUNCHES):
        program.run(subject.case, inputs, outputs)


if __name__ == "__main__":
    main()
