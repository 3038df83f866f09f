"""Two thousand variants, every tenth of which does its worst, in one search (`benchmarks/survival.py`)."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import survival
from benchmarks.report import write_report
from tests.hostile.searches import ground
from tests.hostile.variants import FATES

VARIANTS = 2000
HOSTILE = survival.shares(VARIANTS)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
@pytest.mark.timeout(1200)  # of a busy machine; a quarter of it is needed
@pytest.mark.xdist_group("campaign")
def test_two_thousand_variants_a_tenth_of_them_hostile_are_all_accounted_for_and_nothing_is_left() -> None:
    with ground() as place:
        report = survival.campaign(place, VARIANTS)
        if path := os.environ.get("EVO_SURVIVAL_REPORT"):
            write_report(Path(path), survival.report_of("campaign", report))
        assert report["exit_code"] == 0, place.log
        assert "is not one of Evo's own bases: its code is compiled and run here as" in place.log
    assert report["unexpected"] == [], report["longest_s"]
    assert report["recorded"] == report["recorded_once"] == VARIANTS
    assert 0.95 * VARIANTS / 10 <= sum(HOSTILE.values()) <= VARIANTS / 10
    fates = {f"{hostility} -> {': '.join(fate)}": HOSTILE[hostility] for hostility, fate in FATES.items()}
    assert report["fates"] == {"none -> measured": VARIANTS - sum(HOSTILE.values()), **fates}

    taken_down: Counter[str] = Counter()
    for hostility, (stage, reason) in FATES.items():
        if stage in ("crash", "timeout") and reason != "build":
            taken_down[f"{stage}: {reason}"] += HOSTILE[hostility]
    recoveries = {fate: found["count"] for fate, found in report["recovery_s"].items()}
    assert recoveries == taken_down, "every loss of a worker is an event"
    assert max(found["max"] for found in report["recovery_s"].values()) < 10

    assert abs(report["driver_memory_mib"]["growth"]) < 0.10, report["driver_memory_mib"]
    assert report["orphans"] == report["temporary_files"] == []
    assert report["listening_beyond_loopback"] == []
    assert report["integrity"] == "ok"
