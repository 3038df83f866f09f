"""The dashboard without a browser: analysis, API, access, errors, reports."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evo.dashboard import analysis, make_app, serve, views, words, write_report
from evo.dashboard.report import report_markdown, sparkline
from evo.errors import InputError
from evo.outcome import Measured
from evo.record import Interval, Point, Record, open_record
from tests.synthetic import fill_campaign, make_spec, promote_best

testclient = pytest.importorskip("fastapi.testclient", reason="httpx is not installed")


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
def client(database: Path) -> Iterator[testclient.TestClient]:
    with testclient.TestClient(make_app(database)) as found:
        yield found


@pytest.fixture
def reader(database: Path) -> Iterator[Record]:
    with open_record(database, read_only=True) as found:
        yield found


# --- analysis --------------------------------------------------------------------------------------------------------


def make_points(times: list[float | None], operator: str = "random", **knobs: list[object]) -> list[Point]:
    return [
        Point(
            position=index + 1,
            id=index + 1,
            number=index,
            at=float(index),
            time_us=time_us,
            ratio=None,
            stage=None if time_us is not None else "build",
            reason="",
            operator=operator,
            configuration={name: values[index] for name, values in knobs.items()},
        )
        for index, time_us in enumerate(times)
    ]


def test_best_so_far_counts_only_improvements() -> None:
    assert analysis.best_so_far(make_points([5.0, None, 6.0, 3.0, 3.0])) == ([1, 4], [5.0, 3.0])
    assert analysis.best_so_far([]) == ([], [])


def test_the_expectation_of_random_search_falls_from_the_mean_and_ends_with_what_was_drawn() -> None:
    times = [float(value) for value in range(1, 21)]
    found = analysis.random_expectation(make_points([*times]), proposer="random", length=5000)
    assert found is not None
    assert found[0][0] == 1
    assert found[1][0] == pytest.approx(10.5)
    assert found[0][-1] == 20, "beyond its own draws nothing is known"
    assert 1.0 < found[1][-1] < 2.0
    assert all(later <= earlier for earlier, later in zip(found[1], found[1][1:], strict=False))
    assert analysis.random_expectation(make_points([*times], operator="mutate"), proposer="evo", length=50) is None


def test_strangers_count_as_random_only_before_the_search_has_learnt() -> None:
    opening = make_points([5.0] * 12, operator="stranger")
    later = make_points([1.0] * 3, operator="mutation") + make_points([0.5] * 3, operator="stranger")
    assert len(analysis.random_trials([*opening, *later], "evo")) == 12


def test_busy_workers_add_up_to_the_time_worked() -> None:
    intervals = [
        Interval("cpu", "build", 0.0, 3.0),
        Interval("gpu", "measure", 1.0, 2.5),
        Interval("gpu", "verify", 3, 4),
    ]
    found = analysis.occupancy(intervals, bins=8)
    assert found is not None
    width = 4.0 / 8
    assert sum(found["kinds"]["build"]) * width == pytest.approx(3.0)
    assert sum(found["kinds"]["measure"]) * width == pytest.approx(1.5)
    assert found["kinds"]["measure"][:3] == [0.0, 0.0, 1.0]
    assert found["workers"] == 2
    assert found["seat_busy_share"] == pytest.approx(2.5 / 4)
    assert analysis.occupancy([]) is None


def test_knobs_of_numbers_and_of_truth_values_do_not_mix() -> None:
    points = make_points([4.0, 2.0, None, 8.0], flag=[True, 1, False, True])
    (effect,) = analysis.knob_effects([{"name": "flag", "values": [True, False]}], points)
    counts = {box["value"]: (box["count"], box["rejected"]) for box in effect["boxes"]}
    assert counts == {"true": (2, 0), "false": (0, 1)}


def test_the_knob_that_decides_is_the_most_important() -> None:
    strong = [index % 2 for index in range(60)]
    weak = [(index // 7) % 3 for index in range(60)]
    times = [100.0 * value + index % 5 for index, value in enumerate(strong)]
    points = make_points([*times], strong=[*strong], weak=[*weak])
    knobs = [{"name": "strong", "values": [0, 1]}, {"name": "weak", "values": [0, 1, 2]}]
    assert analysis.importances(knobs, points)[0][0] == "strong"
    assert analysis.importances(knobs, points[:10]) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0.5, "0.5 µs"),
        (12.3456, "12.35 µs"),
        (999.96, "1.000 ms"),
        (70966.25, "70.97 ms"),
        (2.5e6, "2.500 s"),
    ],
)
def test_times_are_shown_with_four_digits(value: float | None, shown: str) -> None:
    assert words.micro(value) == shown


# --- API -------------------------------------------------------------------------------------------------------------


def test_the_api_serves_the_facts_of_the_pages(client: testclient.TestClient, reader: Record) -> None:
    campaigns = client.get("/api/campaigns").json()
    assert [item["id"] for item in campaigns] == [3, 2, 1]
    best = reader.campaign(1)
    assert campaigns[2]["best_us"] == best.best_us
    assert campaigns[2]["best_ratio_low"] < campaigns[2]["best_ratio"] < campaigns[2]["best_ratio_high"]
    assert campaigns[1]["replay"].startswith("Recorded times")
    one = client.get("/api/campaigns/1").json()
    assert one["fastest"][0]["time_us"] == best.best_us
    assert sum(row["count"] for row in one["failures"]) == best.evaluated - best.valid
    points = client.get("/api/campaigns/1/points").json()
    assert len(points["position"]) == len(points["rows"]) == 80
    tile_q = next(index for index, knob in enumerate(points["knobs"]) if knob["name"] == "tile_q")
    first = reader.trials(1)[0].configuration["tile_q"]
    assert points["knobs"][tile_q]["values"][points["rows"][0][tile_q]] == str(first)
    assert set(points["progress"]["baselines"]) == {"flash", "cudnn", "efficient", "math"}
    later = client.get("/api/campaigns/1/points", params={"after": points["id"][69]}).json()
    assert later["position"] == list(range(71, 81))
    assert len(client.get("/api/campaigns/1/trials", params={"after": 69}).json()) == 10
    elites = client.get("/api/elites", params={"base": "phase4"}).json()
    assert [elite["rank"] for elite in elites] == [1, 2, 3]
    variant = client.get(f"/api/variants/{elites[0]['variant_key']}").json()
    assert variant["sources"][""].startswith("// Stand-in")
    assert len(client.get("/api/compare", params={"id": [1, 2]}).json()["curves"]) == 2
    csv_lines = client.get("/api/campaigns/1/trials.csv").text.splitlines()
    assert len(csv_lines) == 81


def test_the_openapi_document_describes_every_address(client: testclient.TestClient) -> None:
    document = client.get("/api/openapi.json").json()
    assert "/api/campaigns/{campaign_id}/points" in document["paths"]
    for path, methods in document["paths"].items():
        assert list(methods) == ["get"], f"{path} can change something"
        assert methods["get"]["summary"]
        assert methods["get"]["description"]
    page = client.get("/api/docs").text
    assert all(path in page for path in document["paths"])
    assert "http" not in page.replace("http-equiv", ""), "the page may not load anything from elsewhere"


@pytest.mark.parametrize("path", ["/api/campaigns/99", "/api/variants/nope", "/api/trials/99999", "/api/nothing"])
def test_unknown_facts_are_404_in_json(client: testclient.TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]


def test_bad_parameters_are_refused_in_one_line(client: testclient.TestClient) -> None:
    answer = client.get("/api/campaigns", params={"limit": 100000})
    assert answer.status_code == 400
    assert "limit" in answer.json()["error"]


# --- access ----------------------------------------------------------------------------------------------------------


def test_pages_forbid_scripts_from_elsewhere(client: testclient.TestClient) -> None:
    answer = client.get("/campaigns/2")
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "<script>alert" not in answer.text
    assert "a|b &lt;script&gt;" in answer.text


def test_another_sites_name_is_not_answered(client: testclient.TestClient) -> None:
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/", headers={"host": "localhost:1234"}).status_code == 200


def test_beyond_loopback_a_token_is_needed(database: Path) -> None:
    with pytest.raises(InputError, match=r"--host 0\.0\.0\.0: others could connect; set --token"):
        serve(database, host="0.0.0.0")
    with pytest.raises(InputError, match="at least 8 characters"):
        serve(database, host="0.0.0.0", token="short")
    with testclient.TestClient(make_app(database, token="a-long-token", loopback=False)) as guarded:
        assert guarded.get("/").status_code == 401
        assert guarded.get("/api/campaigns").status_code == 401
        assert guarded.get("/api/campaigns", headers={"authorization": "Bearer a-long-token"}).status_code == 200


def test_a_taken_port_is_a_user_error(database: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="cannot listen there"):
            serve(database, port=taken.getsockname()[1])


def test_the_server_says_where_it_is_and_ends_cleanly(database: Path) -> None:
    script = f"from evo.dashboard import serve; serve({str(database)!r}, port=0, say=lambda s: print(s, flush=True))"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = process.stdout.readline()
    assert "http://127.0.0.1:" in said
    import signal
    import urllib.request

    assert b"Campaigns" in urllib.request.urlopen(said.split()[3]).read()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert "Traceback" not in errors


# --- a database that cannot be read ----------------------------------------------------------------------------------


def test_an_older_schema_is_offered_its_migration_and_left_alone(database: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    with sqlite3.connect(database) as source, sqlite3.connect(old) as target:
        source.backup(target)
    with sqlite3.connect(old) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    with testclient.TestClient(make_app(old)) as found:
        answer = found.get("/")
        assert answer.status_code == 503
        assert f"evo db upgrade --db {old}" in answer.text
        assert found.get("/api/campaigns").status_code == 503
    with sqlite3.connect(old) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)


def test_a_missing_database_is_found_once_it_is_there(database: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with testclient.TestClient(make_app(path)) as found:
        assert "no such database" in found.get("/").text
        path.write_bytes(b"not a database")
        assert "not a database" in found.get("/").text
        path.unlink()
        with sqlite3.connect(database) as source, sqlite3.connect(path) as target:
            source.backup(target)
        assert found.get("/campaigns/1").status_code == 200
        path.unlink()
        open_record(path).close()
        assert "No campaign yet" in found.get("/").text, "a replaced file is opened again"


def test_a_locked_database_is_said_on_the_page(database: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with sqlite3.connect(database) as source, sqlite3.connect(path) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.MonkeyPatch.context() as patch, testclient.TestClient(make_app(path)) as found:
        patch.setattr("evo.record.open.BUSY_TIMEOUT_MS", 50)
        answer = found.get("/")
        assert answer.status_code == 503
        assert "locked by another program" in answer.text
        holder.execute("ROLLBACK")
        assert found.get("/").status_code == 200
    holder.close()


def test_looking_changes_nothing(client: testclient.TestClient, database: Path) -> None:
    before = database.read_bytes()
    for path in ("/", "/campaigns/1", "/elites", "/api/campaigns/1/analysis", "/compare?a=1&b=2"):
        assert client.get(path).status_code == 200
    assert database.read_bytes() == before


# --- reports ---------------------------------------------------------------------------------------------------------


def test_the_html_report_is_one_file_that_asks_for_nothing(reader: Record, tmp_path: Path) -> None:
    target = write_report(reader, 1, tmp_path / "report.html")
    text = target.read_text(encoding="utf-8")
    markup = text.split("<script>", 2)[0] + text.split("<main", 1)[1].split("<script", 1)[0]
    assert "src=" not in markup
    assert 'href="/' not in markup
    data = text.split('id="points">', 1)[1].split("</script>", 1)[0]
    assert len(json.loads(data)["position"]) == 80


def test_a_hostile_name_cannot_leave_the_reports_data(reader: Record, tmp_path: Path) -> None:
    text = write_report(reader, 2, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "a|b <script>" not in text


def test_the_markdown_report_fits_a_pull_request(reader: Record, tmp_path: Path) -> None:
    text = write_report(reader, 1, tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.startswith("## phase4 on mission: campaign 1")
    assert "| PyTorch flash | 25.00 µs |" in text
    assert "### Knobs" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    hostile = report_markdown(reader, 2)
    assert "a\\|b &lt;script&gt;" in hostile
    assert "> Recorded times of an Example GPU." in hostile
    assert "Nothing was measured" in report_markdown(reader, 3)


def test_reports_refuse_what_cannot_be_written(reader: Record, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no campaign 99"):
        write_report(reader, 99, tmp_path / "report.html")
    with pytest.raises(InputError, match="--format pdf: expected html or md"):
        write_report(reader, 1, tmp_path / "report.pdf", format="pdf")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(reader, 1, tmp_path / "nowhere" / "report.html")


def test_a_sparkline_falls_from_high_to_low() -> None:
    line = sparkline([1, 10, 20], [100.0, 50.0, 10.0], 20)
    assert line[0] == "█"
    assert line[-1] == "▁"
    assert sparkline([1], [5.0], 10) == ""


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


# --- speed without loss ----------------------------------------------------------------------------------------------


def test_points_of_a_watched_campaign_are_those_of_one_read_anew(tmp_path: Path) -> None:
    with open_record(tmp_path / "results.db") as record, open_record(tmp_path / "source.db") as source:
        trials = fill_campaign(source, source.start_campaign(make_spec()), 90)
        campaign_id = record.start_campaign(make_spec())
        for first in range(0, 90, 30):
            record.record_trials(campaign_id, trials[first : first + 30])
            watched = views.points_of(record, record.campaign(campaign_id))
            assert watched == record.points(campaign_id, most=views.POINTS_MOST)
            assert [point.position for point in watched] == list(range(1, first + 31))


def test_the_best_of_equals_is_the_first(tmp_path: Path) -> None:
    with open_record(tmp_path / "results.db") as record:
        campaign_id = record.start_campaign(make_spec())
        trials = fill_campaign(record, campaign_id, 40)
        other = record.start_campaign(make_spec())
        times = {trial.number: trial.outcome.time_us for trial in trials if isinstance(trial.outcome, Measured)}
        best = min(times, key=lambda number: (times[number], number))
        again = next(trial for trial in trials if trial.number == best)
        record.record_trial(campaign_id, replace(again, number=40))
        found, empty = record.campaign(campaign_id), record.campaign(other)
        assert record.trial(found.best_trial_id or 0).number == best
        assert found.evaluated == 41
        assert (empty.evaluated, empty.best_us, empty.best_trial_id) == (0, None, None)


def test_a_spread_is_thinned_from_end_to_end() -> None:
    percents, values = analysis.thinned([float(value) for value in range(1000)], most=50)
    assert len(values) == 50
    assert (values[0], values[-1], percents[-1]) == (0.0, 999.0, 100.0)
    assert analysis.thinned([3.0]) == ([100.0], [3.0])
    assert analysis.thinned([]) == ([], [])


def test_importances_are_those_of_an_ordinary_study() -> None:
    optuna = pytest.importorskip("optuna")
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 4, 200), rng.integers(0, 3, 200)
    times = [float(10 + 5 * a + b + rng.random()) for a, b in zip(x, y, strict=True)]
    points = make_points([*times], x=[int(v) for v in x], y=[int(v) for v in y])
    choices = {"x": (0, 1, 2, 3), "y": (0, 1, 2)}
    ours = analysis.importances([{"name": name, "values": values} for name, values in choices.items()], points)
    study = optuna.create_study()
    distributions = {name: optuna.distributions.CategoricalDistribution(values) for name, values in choices.items()}
    for point in points:
        made = optuna.trial.create_trial(value=point.time_us, params=point.configuration, distributions=distributions)
        study.add_trial(made)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    assert dict(ours) == pytest.approx(optuna.importance.get_param_importances(study, evaluator=evaluator))


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


def test_a_campaigns_promotions_and_events_are_facts_too(client: testclient.TestClient) -> None:
    facts = client.get("/api/campaigns/1").json()
    assert facts["promotions"][0]["promotion"]["place"]["base"] == "phase4"
    assert facts["per_s"] > 0
    assert isinstance(facts["events"], list)


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


@pytest.mark.parametrize("path", ["/campaigns/99999999999999999999", "/trials/99999999999999999999"])
def test_a_number_beyond_all_numbers_is_not_here_either(client: testclient.TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_port_that_cannot_be_is_a_user_error(database: Path, port: int) -> None:
    with pytest.raises(InputError, match=f"--port {port}: expected 0 to 65535"):
        serve(database, port=port)
