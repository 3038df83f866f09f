"""The record keeps every outcome: on SQLite and PostgreSQL, on full, locked, foreign, old and new databases."""

from __future__ import annotations

import dataclasses
import getpass
import json
import logging
import math
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from evo.errors import InputError
from evo.outcome import Built, CaseError, Measured, Rejected, Resources, Stage
from evo.record import (
    CampaignSpec,
    Environment,
    Event,
    Interval,
    Origin,
    Place,
    Promotion,
    Record,
    Samples,
    Trial,
    VariantRecord,
    is_abandoned,
    open_record,
    upgrade_database,
)
from evo.record import record as record_module
from evo.record.open import _make_engine, database_revision, migrate, parse_url
from evo.record.schema import REVISIONS

PLACE = Place("phase4", "mission", "float16", "sm_90")


def make_spec(base: str = "phase4") -> CampaignSpec:
    return CampaignSpec(
        base=base,
        workload="attention",
        case_name="mission",
        dtype="float16",
        arch="sm_90",
        target="cuda",
        proposer="evo",
        seed=2**40,
        environment=Environment("NVIDIA H200", uuid="GPU-1", driver="580.1", clocks={"sm_mhz": 1980}),
        constants={"head_dim": 64, "causal": False},
        budget=300,
        options={"racing": True},
        space={"knobs": [{"name": "tile_q", "values": [16, 32]}], "size": 1234},
        baselines={"flash": 12.5},
    )


def make_variant(number: int, *, built: bool = True) -> VariantRecord:
    return VariantRecord(
        key=f"key{number}",
        base="phase4",
        configuration={"tile_q": 16 * (number + 1), "swizzle": "xor", "fast_exp": True},
        header=f"#pragma once\nconstexpr int kTileQ = {16 * (number + 1)};\n",
        sources={"": "the template", "softmax.cuh": "shared text"},
        binary_hash=f"binary{number}" if built else "",
        resources=Resources(registers=96 + number) if built else None,
        log="ptxas info" if built else "",
    )


def make_trial(number: int, time_us: float = 10.0) -> Trial:
    outcome = Measured(
        samples_us=(time_us - 1, time_us, time_us + 5),
        anchor_us=(2 * time_us, 2 * time_us, 2 * time_us),
        built=Built(f"key{number}", b"", f"binary{number}", Resources(), "", build_s=0.5),
        errors=(CaseError("mission", 3, 1e-4, 2e-4, 1e-5, 2e-5),),
        anchor="flash",
        verify_s=0.1,
        measure_s=0.2,
        environment={"sm_mhz": 1980},
    )
    origin = Origin("mutate", (number - 1,) if number else ())
    return Trial(number, make_variant(number), outcome, origin, started_at=100.0 + number, cold_us=(time_us * 1.5,))


def make_promotion(number: int, *, accepted: bool = True) -> Promotion:
    return Promotion(
        place=PLACE,
        variant_key=f"key{number}",
        accepted=accepted,
        reason="faster than the incumbent" if accepted else "gain within noise",
        time_us=9.0,
        ratio=1.2,
        ratio_low=1.15,
        ratio_high=1.25,
        gain_low=0.01,
        gain_high=0.03,
        samples=(Samples("variant", (9.0, 9.1)), Samples("anchor", (10.8, 10.9), "cold")),
    )


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def record(database: Path) -> Iterator[Record]:
    with open_record(database) as opened:
        yield opened


# --- what goes in comes out ------------------------------------------------------------------------------------------


def check_round_trip(record: Record) -> None:
    """One of everything, read back equal; runs on every kind of server."""
    spec = make_spec()
    campaign_id = record.start_campaign(spec)
    campaign = record.campaign(campaign_id)
    for field in dataclasses.fields(CampaignSpec):
        assert getattr(campaign, field.name) == getattr(spec, field.name), field.name
    assert (campaign.state, campaign.evaluated, campaign.best_us, campaign.valid_share) == ("running", 0, None, 0.0)

    trial_ids = record.record_trials(campaign_id, [make_trial(0, 12.0), make_trial(1, 10.0)])
    nan_error = CaseError("mission", 7, math.nan, 1e-3, math.inf, 1e-3)
    wrong = Rejected(Stage.VERIFY, "wrong_output", "NaN at [0, 0, 3, 1] \x00 \ud800")
    record.record_trial(campaign_id, Trial(2, make_variant(2), wrong))
    first = record.trial(trial_ids[0] or 0)
    assert first.outcome == Measured((12.0,), (24.0,), errors=(CaseError("mission", 3, 1e-4, 2e-4, 1e-5, 2e-5),))
    assert (first.time_us, first.ratio, first.build_s, first.verify_s, first.measure_s) == (12.0, 2.0, 0.5, 0.1, 0.2)
    assert first.environment == {"sm_mhz": 1980, "anchor": "flash"}
    assert first.configuration == {"tile_q": 16, "swizzle": "xor", "fast_exp": True}
    samples = {(item.name, item.l2): item.values_us for item in record.samples(trial_ids[0])}
    assert samples == {
        ("variant", "warm"): (11.0, 12.0, 17.0),
        ("anchor", "warm"): (24.0, 24.0, 24.0),
        ("variant", "cold"): (18.0,),
    }
    assert record.variant("key1") == make_variant(1)
    rejected = record.trials(campaign_id)[2]
    assert rejected.stage is Stage.VERIFY
    assert rejected.detail.startswith("NaN at")
    assert rejected.time_us is None
    assert [trial.detail for trial in record.trials(campaign_id, details=False)] == ["", "", ""]
    assert record.trials(campaign_id, after=1)[0].number == 2
    assert [trial.number for trial in record.trials(campaign_id, by_time=True)] == [1, 0]
    assert [(item.stage, item.reason, item.count) for item in record.failures(campaign_id)] == [
        ("verify", "wrong_output", 1)
    ]
    assert record.binaries(campaign_id) == {"binary0": 0, "binary1": 1, "binary2": 2}
    failing = dataclasses.replace(make_trial(3), outcome=Measured((5.0,), errors=(nan_error,)))
    record.record_trial(campaign_id, failing)
    back = record.trials(campaign_id)[3].errors[0]
    assert math.isnan(back.max_error)
    assert back.norm_error == math.inf

    campaign = record.campaign(campaign_id)
    assert (campaign.evaluated, campaign.valid, campaign.best_us, campaign.best_ratio) == (4, 3, 5.0, None)

    promotion_id = record.record_promotion(campaign_id, make_promotion(1))
    record.record_promotion(campaign_id, make_promotion(0, accepted=False))
    record.crown(campaign_id, PLACE, ["key1"])
    (elite,) = record.elites(base="phase4")
    assert (elite.rank, elite.variant_key, elite.promotion_id, elite.until) == (1, "key1", promotion_id, None)
    assert elite.promotion.gain_low == 0.01
    assert elite.configuration["tile_q"] == 32
    assert [item.promotion.accepted for item in record.promotions(campaign_id=campaign_id)] == [False, True]
    assert record.samples(promotion_id=promotion_id) == list(make_promotion(1).samples)

    record.record_event(campaign_id, Event("insight", "tile_q explains 60 %", {"knob": "tile_q"}, at=5.0))
    record.record_intervals(campaign_id, [Interval("gpu0", "measure", 1.0, 2.0), Interval("cpu0", "build", 0.5, 1.0)])
    assert record.events(campaign_id, "insight") == [Event("insight", "tile_q explains 60 %", {"knob": "tile_q"}, 5.0)]
    assert [item.worker for item in record.intervals(campaign_id)] == ["cpu0", "gpu0"]
    record.update_campaign(campaign_id, baselines={"flash": 11.0, "math": 90.0}, kill_rate={"killed": 20, "of": 20})
    record.finish_campaign(campaign_id, "done", "budget spent")
    campaign = record.campaign(campaign_id)
    assert (campaign.state, campaign.end_reason, campaign.baselines["math"]) == ("done", "budget spent", 90.0)
    assert campaign.kill_rate == {"killed": 20, "of": 20}
    assert campaign.ended_at is not None


def test_everything_recorded_is_read_back_equal_on_sqlite(record: Record) -> None:
    check_round_trip(record)


def test_sqlite_is_in_wal_mode_with_foreign_keys(record: Record, database: Path) -> None:
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with pytest.raises(Exception, match="FOREIGN KEY"):
        record.record_trial(999, make_trial(0))


def test_sources_and_environments_are_stored_once(record: Record, database: Path) -> None:
    for _ in range(2):
        campaign_id = record.start_campaign(make_spec())
        record.record_trials(campaign_id, [make_trial(number) for number in range(5)])
    with sqlite3.connect(database) as connection:
        counts = {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in ("sources", "environments", "variants", "trials")
        }
    assert counts == {"sources": 2, "environments": 1, "variants": 5, "trials": 10}


def test_a_variant_first_seen_before_its_build_is_completed_later(record: Record) -> None:
    campaign_id = record.start_campaign(make_spec())
    bare = VariantRecord("key0", "phase4", make_variant(0).configuration)
    record.record_trial(campaign_id, Trial(0, bare, Rejected(Stage.TIMEOUT, "build")))
    record.record_trial(campaign_id, dataclasses.replace(make_trial(0), number=1))
    stored = record.variant("key0")
    assert stored.binary_hash == "binary0"
    assert stored.resources == Resources(registers=96)
    assert stored.header == make_variant(0).header
    assert stored.sources == make_variant(0).sources


def test_a_number_is_recorded_once(record: Record) -> None:
    campaign_id = record.start_campaign(make_spec())
    record.record_trial(campaign_id, make_trial(0))
    with pytest.raises(ValueError, match=r"trial \[0\]"):
        record.record_trial(campaign_id, make_trial(0))
    assert record.campaign(campaign_id).evaluated == 1


def test_long_compiler_output_is_cut_with_a_note(record: Record) -> None:
    campaign_id = record.start_campaign(make_spec())
    trial_id = record.record_trial(
        campaign_id, Trial(0, make_variant(0), Rejected(Stage.BUILD, "compile", "x" * 10**6))
    )
    detail = record.trial(trial_id or 0).detail
    assert len(detail) < 100_000
    assert "more characters not kept" in detail


def test_unknown_ids_are_user_errors(record: Record) -> None:
    for query in (lambda: record.campaign(7), lambda: record.trial(7), lambda: record.variant("nope")):
        with pytest.raises(InputError, match=r"results.db: no "):
            query()


# --- elites ----------------------------------------------------------------------------------------------------------


def test_crowning_keeps_the_best_three_and_their_history(record: Record) -> None:
    campaign_id = record.start_campaign(make_spec())
    record.record_trials(campaign_id, [make_trial(number) for number in range(5)])
    for number in range(5):
        record.record_promotion(campaign_id, make_promotion(number))
    record.crown(campaign_id, PLACE, ["key0", "key1", "key2"], at=10.0)
    record.crown(campaign_id, PLACE, ["key3", "key0", "key1", "key2"], at=20.0)
    assert [(elite.rank, elite.variant_key, elite.since) for elite in record.elites()] == [
        (1, "key3", 20.0),
        (2, "key0", 20.0),
        (3, "key1", 20.0),
    ]
    champions = [
        (elite.variant_key, elite.since, elite.until) for elite in record.elites(history=True) if elite.rank == 1
    ]
    assert champions == [("key3", 20.0, None), ("key0", 10.0, 20.0)]
    record.crown(campaign_id, PLACE, ["key3", "key0", "key1"], at=30.0)
    assert all(elite.since == 20.0 for elite in record.elites()), "who keeps a rank keeps its date"
    record.crown(campaign_id, PLACE, ["key0"], at=40.0)
    assert [elite.variant_key for elite in record.elites()] == ["key0"]
    assert record.elites(base="phase3") == []


def test_only_an_accepted_promotion_can_be_crowned(record: Record) -> None:
    campaign_id = record.start_campaign(make_spec())
    record.record_trial(campaign_id, make_trial(0))
    record.record_promotion(campaign_id, make_promotion(0, accepted=False))
    with pytest.raises(ValueError, match="no accepted promotion"):
        record.crown(campaign_id, PLACE, ["key0"])


# --- campaigns left behind -------------------------------------------------------------------------------------------


def test_a_campaign_whose_driver_was_killed_is_unfinished(record: Record, database: Path) -> None:
    script = f"""
        import os, signal
        from tests.unit.test_record import make_spec, make_trial
        from evo.record import open_record
        record = open_record({str(database)!r})
        campaign_id = record.start_campaign(make_spec())
        record.record_trial(campaign_id, make_trial(0))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = run_python(script)
    assert done.returncode == -signal.SIGKILL, done.stderr
    own = record.start_campaign(make_spec())
    (left,) = record.unfinished_campaigns("phase4")
    assert left.id != own
    assert left.evaluated == 1
    assert record.unfinished_campaigns("phase3") == []
    record.resume_campaign(left.id)
    assert record.campaign(left.id).pid == os.getpid()
    assert record.unfinished_campaigns() == []
    record.finish_campaign(left.id, "interrupted", "Ctrl-C")
    assert [campaign.id for campaign in record.unfinished_campaigns()] == [left.id]


def test_a_campaign_run_by_a_living_process_cannot_be_taken(record: Record, database: Path) -> None:
    campaign_id = record.start_campaign(make_spec())
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE campaigns SET pid = ?", (os.getppid(),))
    with pytest.raises(InputError, match="is being run by process"):
        record.resume_campaign(campaign_id)


def test_a_silent_driver_on_another_host_counts_as_gone(record: Record) -> None:
    campaign = record.campaign(record.start_campaign(make_spec()))
    elsewhere = dataclasses.replace(campaign, host="another")
    assert not is_abandoned(elsewhere, now=campaign.heartbeat_at + 5)
    assert is_abandoned(elsewhere, now=campaign.heartbeat_at + 600)


# --- opening ---------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_not_made_unless_asked(database: Path) -> None:
    with pytest.raises(InputError, match="no such database"):
        open_record(database, create=False)
    with pytest.raises(InputError, match="no such database"):
        open_record(database, read_only=True)
    assert not database.exists()


@pytest.mark.parametrize("content", [b"not a database at all, only text", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_refused_and_left_alone(database: Path, content: bytes) -> None:
    database.write_bytes(content)
    with pytest.raises(InputError, match=r"results\.db: .*(not a database|damaged)") as caught:
        open_record(database)
    assert "\n" not in str(caught.value)
    assert database.read_bytes() == content


def test_another_programs_database_is_refused(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(InputError, match=r"not an Evo database.*recipes"):
        open_record(database)


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder .*nowhere does not exist"):
        open_record(tmp_path / "nowhere" / "results.db")
    with pytest.raises(InputError, match="is a folder"):
        open_record(tmp_path)
    with pytest.raises(InputError, match="--db"):
        open_record("nonsense://x")
    with pytest.raises(InputError, match=r"/proc/results.db"):
        open_record("/proc/results.db")


def test_two_processes_may_create_the_same_database(database: Path) -> None:
    script = f"from evo.record import open_record; open_record({str(database)!r}).close()"
    started = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    with open_record(database, create=False) as record:
        assert record.campaigns() == []


def test_an_older_schema_is_kept_until_its_upgrade_is_asked_for(database: Path) -> None:
    make_old_database(database)
    before = database.read_bytes()
    for read_only in (False, True):
        with pytest.raises(InputError, match=r"schema 0001 is older .*evo db upgrade --db .*results\.db"):
            open_record(database, read_only=read_only)
    assert database_revision(database) == "0001"
    assert database.read_bytes()[100:] == before[100:], "looking at an old database changed it"
    assert upgrade_database(database) == ("0001", REVISIONS[-1])
    with open_record(database, create=False) as record:
        assert record.campaign(1).base == "old"
        record.record_event(1, Event("insight", "works"))


def make_old_database(path: Path) -> None:
    """A database of revision 0001 with one campaign in it."""
    engine = _make_engine(parse_url(path), read_only=False)
    migrate(engine, "0001")
    engine.dispose()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO environments VALUES (1,'d','','','','','','','','',0,'','{}')")
        connection.execute(
            "INSERT INTO campaigns VALUES (1,1,'old','w','c','float16','sm_90','cuda','evo',1,'{}',1,NULL,'{}','{}',"
            "'','','{}',NULL,NULL,'done','',1.0,2.0,2.0,'h',1)"
        )


def test_a_newer_schema_is_left_alone(database: Path) -> None:
    open_record(database).close()
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(InputError, match="schema 9999 is newer than this program's"):
        open_record(database, upgrade=True)


def test_migrations_lead_to_the_tables_of_the_program(record: Record) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from evo.record.schema import Base

    with record._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_last_revision_of_the_migrations_is_the_programs() -> None:
    from alembic.script import ScriptDirectory

    import evo.migrations
    from evo.record.schema import REVISIONS

    folder = Path(str(evo.migrations.__file__)).parent
    script = ScriptDirectory(str(folder))
    assert tuple(item.revision for item in reversed(list(script.walk_revisions()))) == REVISIONS


def test_a_failed_creation_leaves_nothing_half_made(database: Path) -> None:
    script = f"""
        import os, signal, sqlalchemy as sa
        from sqlalchemy import event
        from evo.record import open_record
        seen = []
        @event.listens_for(sa.Engine, "before_cursor_execute")
        def kill(conn, cursor, statement, *rest):
            if "CREATE TABLE" in statement:
                seen.append(statement)
            if len(seen) == 6:
                os.kill(os.getpid(), signal.SIGKILL)
        open_record({str(database)!r})
    """
    assert run_python(script).returncode == -signal.SIGKILL
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    with open_record(database) as record:
        assert record.campaigns() == []


def test_importing_the_record_imports_neither_torch_nor_ray() -> None:
    done = run_python("import sys, evo.record; print(sorted({'torch', 'ray', 'alembic'} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stderr


# --- when the database fails -----------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try a failed database again at every write, and wait only briefly for its lock."""
    monkeypatch.setattr(record_module, "RETRY_S", 0.0)
    monkeypatch.setattr("evo.record.open.BUSY_TIMEOUT_MS", 50)


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
    fill_up(record)
    count = 0
    while (record.record_trial(campaign_id, big_trial(count))) is not None:
        count += 1
        assert count < 500, "the database never got full"
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


def fill_up(record: Record) -> None:
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
    fill_up(record)
    count = 0
    while (record.record_trial(campaign_id, big_trial(count))) is not None:
        count += 1
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
    fill_up(record)
    while record.record_trial(campaign_id, big_trial(record.campaign(campaign_id).evaluated)) is not None:
        pass
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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write read-only files")
def test_a_read_only_file_can_be_looked_at(database: Path) -> None:
    with open_record(database) as record:
        campaign_id = record.start_campaign(make_spec())
    database.chmod(stat.S_IRUSR)
    with open_record(database, read_only=True) as record:
        assert record.campaign(campaign_id).base == "phase4"
    with pytest.raises(InputError, match="read-only"), open_record(database) as record:
        record.start_campaign(make_spec())


def test_a_read_only_record_cannot_write(record: Record, database: Path) -> None:
    campaign_id = record.start_campaign(make_spec())
    with open_record(database, read_only=True) as reader:
        assert reader.campaign(campaign_id).evaluated == 0
        record.record_trial(campaign_id, make_trial(0))
        assert reader.campaign(campaign_id).evaluated == 1, "readers see what is written while they are open"
        with pytest.raises(RuntimeError, match="read only"):
            reader.record_trial(campaign_id, make_trial(1))


def test_a_read_only_file_system_can_be_read(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        with open_record(disk / "results.db") as record:
            record.start_campaign(make_spec())
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with open_record(disk / "results.db", read_only=True) as reader:
            assert len(reader.campaigns()) == 1
        with pytest.raises(InputError, match=r"read-only|can be written"), open_record(disk / "results.db") as writer:
            writer.start_campaign(make_spec())
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_two_searches_may_write_to_one_database(database: Path) -> None:
    open_record(database).close()
    script = f"""
        from tests.unit.test_record import make_spec, make_trial
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
        from tests.unit.test_record import make_spec, make_trial
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


def integrity(database: Path) -> str:
    with sqlite3.connect(database) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def start_python(script: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(script)]
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, env=environment
    )


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    process = start_python(script)
    out, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


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


# --- charts ----------------------------------------------------------------------------------------------------------


def test_points_are_thinned_but_keep_every_improvement(record: Record) -> None:
    campaign_id = record.start_campaign(make_spec())
    record.record_trials(record.start_campaign(make_spec()), [make_trial(number) for number in range(3)])
    times = [100.0 - number if number in {0, 37, 55, 83} else 150.0 for number in range(100)]
    record.record_trials(campaign_id, [make_trial(number, time_us) for number, time_us in enumerate(times)])
    everything = record.points(campaign_id)
    assert [point.position for point in everything] == list(range(1, 101))
    assert everything[37].configuration == make_variant(37).configuration
    thinned = record.points(campaign_id, most=10)
    assert 10 <= len(thinned) <= 14
    assert {0, 37, 55, 83} <= {point.number for point in thinned}
    later = record.points(campaign_id, after=everything[89].id)
    assert [point.position for point in later] == list(range(91, 101))
