"""Who is let in, and what a visitor is told when the database cannot be read."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from evo import cli_runs
from evo.dashboard import make_app, serve
from evo.errors import InputError
from evo.record import open_record

testclient = pytest.importorskip("fastapi.testclient", reason="httpx is not installed")


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


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_port_that_cannot_be_is_a_user_error(database: Path, port: int) -> None:
    with pytest.raises(InputError, match=f"--port {port}: expected 0 to 65535"):
        serve(database, port=port)


def test_the_server_says_where_it_is_and_ends_cleanly(database: Path) -> None:
    script = f"from evo.dashboard import serve; serve({str(database)!r}, port=0)"
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


def test_a_program_is_told_the_address_in_json(
    database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("evo.dashboard.server.serve", lambda *_, say: say("http://127.0.0.1:1/"))
    cli_runs.dashboard(str(database), as_json=True)
    assert json.loads(capsys.readouterr().out) == {"address": "http://127.0.0.1:1/", "database": str(database)}


@pytest.mark.parametrize("path", ["/campaigns/99999999999999999999", "/trials/99999999999999999999"])
def test_a_number_beyond_all_numbers_is_not_here_either(client: testclient.TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


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
