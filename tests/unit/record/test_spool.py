"""When the database fails: on full, locked and deleted ones and under kills, no outcome is lost."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from evo.errors import InputError
from evo.record import Record, Trial, open_record
from tests.records import integrity, make_promotion, make_spec, make_trial, make_variant, start_python

LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
print("released", flush=True)
"""


@pytest.mark.usefixtures("impatient")
def test_outcomes_wait_beside_a_locked_database(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_record(database) as record:
        campaign_id = record.start_campaign(make_spec())
        command = [sys.executable, "-c", LOCKER, str(database)]
        other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with caplog.at_level(logging.WARNING, "evo.record"):
            assert record.record_trial(campaign_id, make_trial(0)) is None
            assert record.record_trial(campaign_id, make_trial(1)) is None
        assert len(caplog.messages) == 1
        assert "locked by another program" in caplog.messages[0]
        spool = database.with_name("results.db.spool-1.jsonl")
        assert len(spool.read_text().splitlines()) == 2
        with pytest.raises(InputError, match="locked by another program"):
            record.start_campaign(make_spec())
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "released\n"
        assert record.record_trial(campaign_id, make_trial(2)) is not None
        assert [trial.number for trial in record.trials(campaign_id)] == [0, 1, 2]
        assert record.samples(record.trials(campaign_id)[0].id)[0].values_us == (9.0, 10.0, 15.0)
        assert not spool.exists()
        other.wait(timeout=10)


@pytest.mark.usefixtures("impatient")
def test_a_full_database_spools_and_the_next_open_merges(database: Path) -> None:
    record = open_record(database)
    campaign_id = record.start_campaign(make_spec())
    count = record_until_full(record, campaign_id)
    record.record_promotion(campaign_id, make_promotion(0))
    record.finish_campaign(campaign_id, "done", "budget spent")
    record.close()
    spool = database.with_name("results.db.spool-1.jsonl")
    assert [json.loads(line)["kind"] for line in spool.read_text().splitlines()] == ["trial", "promotion", "update"]
    with open_record(database) as again:
        assert [trial.number for trial in again.trials(campaign_id)] == list(range(count + 1))
        assert again.campaign(campaign_id).state == "done"
        assert len(again.promotions()) == 1
    assert not spool.exists()
    assert integrity(database) == "ok"


def record_until_full(record: Record, campaign_id: int) -> int:
    """Record large trials until one goes to the spool; returns how many the database took."""
    limit_growth(record)
    count = 0
    while record.record_trial(campaign_id, big_trial(count)) is not None:
        count += 1
        assert count < 500, "the database never got full"
    return count


def limit_growth(record: Record) -> None:
    """Let the database's file grow by no more than a few pages: SQLite then answers SQLITE_FULL."""
    from sqlalchemy import event

    def limit(connection: sqlite3.Connection, _: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 40}")

    record._engine.dispose()
    event.listen(record._engine, "connect", limit)


def big_trial(number: int) -> Trial:
    noise = os.urandom(20_000).hex()
    return dataclasses.replace(make_trial(number), variant=dataclasses.replace(make_variant(number), log=noise))


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="a tiny file system needs root")
@pytest.mark.usefixtures("impatient")
def test_a_full_disk_loses_nothing_once_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        record = open_record(disk / "results.db")
        campaign_id = record.start_campaign(make_spec())
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 150_000)
        recorded = [record.record_trial(campaign_id, big_trial(number)) for number in range(30)]
        assert recorded[0] is not None
        assert recorded[-1] is None, "the disk never got full"
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert record.record_trial(campaign_id, big_trial(30)) is not None
        assert [trial.number for trial in record.trials(campaign_id)] == list(range(31))
        record.close()
        assert integrity(disk / "results.db") == "ok"
        assert not list(disk.glob("*spool*"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.usefixtures("impatient")
def test_what_no_file_takes_is_rescued_at_the_end(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, lines: object) -> None:
        if path.parent == database.parent:
            raise OSError(28, "No space left on device")
        append(path, lines)  # type: ignore[arg-type]

    from evo.record import spool

    append = spool._append_whole
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(spool, "_append_whole", refuse)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(elsewhere))
    record = open_record(database)
    campaign_id = record.start_campaign(make_spec())
    count = record_until_full(record, campaign_id)
    record.close()
    (rescued,) = elsewhere.iterdir()
    with open_record(database) as again:
        assert again.merge_spool([rescued]) == 1
        assert again.campaign(campaign_id).evaluated == count + 1


def test_a_broken_last_line_and_a_repeated_merge_do_no_harm(database: Path) -> None:
    with open_record(database) as record:
        campaign_id = record.start_campaign(make_spec())
    from evo.record.lines import trial_line

    line = json.dumps(trial_line(campaign_id, make_trial(0)))
    spool = database.with_name("results.db.spool-1.jsonl")
    for _ in range(2):
        spool.write_text(f"{line}\n{line[:50]}")
        with open_record(database) as record:
            assert record.campaign(campaign_id).evaluated == 1
        assert not spool.exists()


@pytest.mark.usefixtures("impatient")
def test_what_is_read_as_a_whole_waits_for_what_is_spooled(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evo.record.record.SETTLE_S", 0.5)
    with open_record(database) as record:
        campaign_id = record.start_campaign(make_spec())
        assert record.settle(campaign_id)
        other = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN EXCLUSIVE")
        assert record.record_trial(campaign_id, make_trial(0)) is None
        assert not record.settle(campaign_id), "locked still"
        threading.Timer(0.3, lambda: (other.execute("ROLLBACK"), other.close())).start()
        monkeypatch.setattr("evo.record.record.SETTLE_S", 30.0)
        assert record.settle(campaign_id)
        assert [trial.number for trial in record.trials(campaign_id)] == [0]


@pytest.mark.usefixtures("impatient")
def test_the_spool_of_a_database_that_was_deleted_is_set_aside(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = open_record(database)
    campaign_id = record.start_campaign(make_spec())
    record_until_full(record, campaign_id)
    record._engine.dispose()  # as if killed
    for path in database.parent.glob("results.db*"):
        if "spool" not in path.name:
            path.unlink()
    with caplog.at_level(logging.WARNING, "evo.record"), open_record(database) as new:
        assert "set aside" in caplog.text
        assert new.start_campaign(make_spec()) == campaign_id
        assert new.campaign(campaign_id).evaluated == 0
    (aside,) = database.parent.glob("results.db.spool-1.jsonl.other-*")
    aside.rename(database.with_name("results.db.spool-1.jsonl"))
    with open_record(database) as again:  # a campaign of that number is not enough
        assert again.campaign(campaign_id).evaluated == 0


def test_two_searches_may_write_to_one_database(database: Path) -> None:
    open_record(database).close()
    script = f"""
        from tests.records import make_spec, make_trial
        from evo.record import open_record
        with open_record({str(database)!r}) as record:
            campaign_id = record.start_campaign(make_spec())
            for number in range(60):
                assert record.record_trial(campaign_id, make_trial(number)) is not None
    """
    started = [start_python(script) for _ in range(2)]
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    with open_record(database) as record:
        assert [campaign.evaluated for campaign in record.campaigns()] == [60, 60]
    assert integrity(database) == "ok"


def test_kills_at_any_moment_leave_whole_trials(database: Path) -> None:
    open_record(database).close()
    script = f"""
        from tests.records import make_spec, make_trial
        from evo.record import open_record
        record = open_record({str(database)!r})
        campaign_id = record.start_campaign(make_spec())
        print("go", flush=True)
        for number in range(100_000):
            record.record_trial(campaign_id, make_trial(number))
    """
    for delay_s in (0.01, 0.05, 0.123):
        process = start_python(script)
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        time.sleep(delay_s)
        process.kill()
        process.wait()
    assert integrity(database) == "ok"
    with open_record(database) as record:
        for campaign in record.campaigns():
            trials = record.trials(campaign.id)
            assert [trial.number for trial in trials] == list(range(campaign.evaluated))
            assert all(len(record.samples(trial.id)) == 3 for trial in trials[-2:])
