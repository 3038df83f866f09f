"""A dashboard over three made-up campaigns: done, replayed under a hostile name, running without a trial yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evo.dashboard import make_app
from evo.record import Record, open_record
from tests.synthetic import fill_campaign, make_spec, promote_best


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dashboard") / "results.db"
    with open_record(path) as record:
        first = record.start_campaign(make_spec())
        promote_best(record, first, fill_campaign(record, first, 80))
        record.finish_campaign(first, "done", "budget spent")
        second = record.start_campaign(make_spec(base="a|b <script>", replay="Recorded times of an Example GPU."))
        fill_campaign(record, second, 30)
        record.finish_campaign(second, "interrupted", "Ctrl-C")
        record.start_campaign(make_spec(base="phase5"))
    return path


@pytest.fixture(scope="module")
def client(database: Path) -> Iterator[Any]:
    testclient = pytest.importorskip("fastapi.testclient", reason="httpx is not installed")
    with testclient.TestClient(make_app(database)) as found:
        yield found


@pytest.fixture
def reader(database: Path) -> Iterator[Record]:
    with open_record(database, read_only=True) as found:
        yield found
