"""The doctor says what is there and what its absence costs, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from evo.doctor import Finding, examine
from evo.record import open_record
from tests.synthetic import make_spec


def findings(db: str) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(db)}


def test_everything_asked_for_is_looked_at_and_what_is_missing_has_its_cost(tmp_path: Path) -> None:
    found = findings(str(tmp_path / "none.db"))
    assert {"GPU", "driver", "NVRTC", "C++ compiler", "nvcc", "ncu", "compute-sanitizer", "disk", "database"} <= set(
        found
    )
    assert all(finding.cost for finding in found.values() if not finding.ok)
    assert found["NVRTC"].ok
    assert "not there yet" in found["database"].found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scheme", ["", "sqlite:///"])
def test_a_database_is_only_looked_at(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "results.db"
    with open_record(path) as record:
        record.start_campaign(make_spec())
    spool = tmp_path / "results.db.spool-1.jsonl"
    spool.write_text("{}\n")
    found = findings(f"{scheme}{path}")
    assert found["database"].ok
    assert found["database"].found.endswith("1 campaigns")
    assert str(tmp_path) in found["disk"].found
    assert spool.exists(), "merging is a search's to do"


def test_what_is_no_database_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database\n" * 100)
    assert "not a database" in findings(str(tmp_path / "notes.txt"))["database"].found
    assert not findings("nosuch://x")["database"].ok
