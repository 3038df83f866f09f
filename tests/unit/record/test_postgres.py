"""The record on a PostgreSQL server, where one is installed."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from evo.record import open_record
from tests.records import check_round_trip, make_spec, make_trial


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A PostgreSQL of our own, or the one that EVO_TEST_POSTGRES_URL names (its tables are dropped)."""
    pytest.importorskip("psycopg", reason="the PostgreSQL driver psycopg is not installed")
    given = os.environ.get("EVO_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
    if programs is None or not (programs / "initdb").exists():
        pytest.skip("no PostgreSQL server installed and EVO_TEST_POSTGRES_URL not set")
    folder = Path("/tmp") / f"evo-postgres-{os.getpid()}"
    folder.mkdir()
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        if subprocess.run(["id", "postgres"], capture_output=True).returncode != 0 or shutil.which("runuser") is None:
            folder.rmdir()
            pytest.skip("PostgreSQL cannot run as root and there is no user postgres")
        shutil.chown(folder, "postgres")
        as_user = ["runuser", "-u", "postgres", "--"]
    data = folder / "data"
    user = "postgres" if as_user else getpass.getuser()
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    try:
        initdb = [str(programs / "initdb"), "-D", str(data), "-A", "trust", "-E", "UTF8"]
        subprocess.run([*as_user, *initdb], check=True, capture_output=True, cwd="/")
        start = [str(programs / "pg_ctl"), "-D", str(data), "-o", options, "-w", "-l", str(folder / "log"), "start"]
        subprocess.run([*as_user, *start], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        yield f"postgresql+psycopg://{user}@/postgres?host={folder}"
    finally:
        stop = [str(programs / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop"]
        subprocess.run([*as_user, *stop], capture_output=True, cwd="/")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.usefixtures("impatient")
def test_everything_recorded_is_read_back_equal_on_postgres(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    monkeypatch.chdir(tmp_path)  # spools of a server's database lie in the working folder
    plain_url = postgres_url.replace("+psycopg", "")
    with psycopg.connect(plain_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    with open_record(postgres_url) as record:
        check_round_trip(record)
        campaign_id = record.start_campaign(make_spec())
        with psycopg.connect(plain_url, autocommit=True) as connection:
            connection.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
            record._engine.dispose()
            assert record.record_trial(campaign_id, make_trial(0)) is None
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("ALTER DATABASE postgres SET default_transaction_read_only = off")
            record._engine.dispose()
        assert record.record_trial(campaign_id, make_trial(1)) is not None
        assert record.campaign(campaign_id).evaluated == 2
    with open_record(postgres_url, create=False, read_only=True) as record:
        assert len(record.campaigns()) == 2
