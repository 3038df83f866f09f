"""A database of one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evo.record import Record, open_record
from evo.record import record as record_module

pytest.register_assert_rewrite("tests.records")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def record(database: Path) -> Iterator[Record]:
    with open_record(database) as opened:
        yield opened


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try a failed database again at every write, and wait only briefly for its lock."""
    monkeypatch.setattr(record_module, "RETRY_S", 0.0)
    monkeypatch.setattr("evo.record.open.BUSY_TIMEOUT_MS", 50)
