"""Pages are quick and lose nothing by it."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evo.dashboard import make_app, views
from evo.record import open_record
from tests.synthetic import fill_campaign, make_spec

testclient = pytest.importorskip("fastapi.testclient", reason="httpx is not installed")


def test_pages_over_many_trials_are_quick(tmp_path: Path) -> None:
    """A guard against a query that lost its index; benchmarks/dashboard_speed.py has the real figures."""
    path = tmp_path / "results.db"
    with open_record(path) as record:
        campaign_id = record.start_campaign(make_spec())
        fill_campaign(record, campaign_id, 400, proposer="random")
    with testclient.TestClient(make_app(path)) as found:
        found.get("/")
        started = time.perf_counter()
        assert found.get("/").status_code == 200
        assert found.get(f"/campaigns/{campaign_id}").status_code == 200
        assert time.perf_counter() - started < 2.0


def test_points_of_a_watched_campaign_are_those_of_one_read_anew(tmp_path: Path) -> None:
    with open_record(tmp_path / "results.db") as record, open_record(tmp_path / "source.db") as source:
        trials = fill_campaign(source, source.start_campaign(make_spec()), 90)
        campaign_id = record.start_campaign(make_spec())
        for first in range(0, 90, 30):
            record.record_trials(campaign_id, trials[first : first + 30])
            watched = views.points_of(record, record.campaign(campaign_id))
            assert watched == record.points(campaign_id, most=views.POINTS_MOST)
            assert [point.position for point in watched] == list(range(1, first + 31))


def test_a_poll_without_news_is_next_to_nothing(client: testclient.TestClient) -> None:
    """Campaign 3 runs and has no trial yet."""
    news = client.get("/campaigns/3/live?after=0&evaluated=0").json()
    assert news == {"state": "running", "evaluated": 0, "parts": {}}
    first = client.get("/campaigns/3/live?after=0&evaluated=-1").json()
    assert set(first["parts"]) == {"summary"}


def test_nothing_but_the_page_is_needed_for_its_first_paint(client: testclient.TestClient) -> None:
    for path in ("/", "/campaigns/1", "/elites"):
        page = client.get(path)
        head = page.text.partition("</head>")[0]
        assert "stylesheet" not in head
        scripts = re.findall(r"<script([^>]*)>", head)
        assert [("src" in script, "defer" in script) for script in scripts] == [(False, False), (True, True)]
        inline = re.findall(r"<script>(.*?)</script>", head, re.DOTALL)
        allowed = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
        assert f"'sha256-{allowed}'" in page.headers["content-security-policy"]
    kept = client.get(re.findall(r'src="(/static/page.js[^"]*)"', page.text)[0])
    assert "immutable" in kept.headers["cache-control"]
    assert client.get("/").headers["cache-control"] == "no-store"


def test_the_list_is_made_anew_when_something_has_happened(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with open_record(path) as record, testclient.TestClient(make_app(path)) as visitor:
        first = record.start_campaign(make_spec())
        assert "running" in visitor.get("/").text
        trials = fill_campaign(record, first, 20)
        record.finish_campaign(first, "done", "budget spent")
        done = visitor.get("/").text
        assert "running" not in done.partition("<main")[2]
        assert visitor.get("/").text == done
        record.start_campaign(make_spec(base="phase5"))
        assert "phase5" in visitor.get("/").text
        record.record_trial(first, replace(trials[0], number=20))
        assert ">21<" in visitor.get("/").text
