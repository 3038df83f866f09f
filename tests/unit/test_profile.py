"""ncu's raw CSV into our words; its absence is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from evo.errors import InputError
from evo.inspect import profile_one
from evo.profile import METRICS, parse

NAMES = [
    "ID",
    "Kernel Name",
    "gpu__time_duration.sum",
    "dram__bytes.sum.per_second",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
]


def raw(*rows: list[str]) -> str:
    return "==PROF== Connected\n" + "\n".join(",".join(f'"{cell}"' for cell in row) for row in rows)


def test_units_are_brought_to_ours() -> None:
    text = raw(NAMES, ["", "", "usecond", "Gbyte/second", "%"], ["0", "attention_forward", "5.28", "1,250.5", "24.9"])
    assert parse(text) == pytest.approx({"duration_ns": 5280.0, "dram_bytes_per_s": 1.2505e12, "occupancy_pct": 24.9})


def test_a_counter_that_the_chip_lacks_is_left_out() -> None:
    text = raw(NAMES, ["", "", "ns", "byte/second", "%"], ["0", "attention_forward", "5280", "n/a", "24.9"])
    assert set(parse(text)) == {"duration_ns", "occupancy_pct"}


def test_no_kernel_gives_no_counters() -> None:
    assert parse("==WARNING== No kernels were profiled.\n") == {}


def test_the_first_counter_known_of_a_word_is_taken() -> None:
    first, second = METRICS["barrier_stall_per_issue"]
    assert parse(raw([first, second], ["", ""], ["1.5", "9"])) == {"barrier_stall_per_issue": 1.5}


def test_a_host_base_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a CUDA base"):
        profile_one("cpu_attention", case="tiny", dtype="", causal=False, db=str(tmp_path / "none.db"))
