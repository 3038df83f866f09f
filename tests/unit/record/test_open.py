"""Opening: foreign, old, new and read-only databases are told apart, and none is left half made."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from evo.errors import InputError
from evo.record import Event, Record, database_name, is_missing, open_record, upgrade_database
from evo.record.open import _make_engine, database_revision, migrate, parse_url
from evo.record.schema import REVISIONS
from tests.records import make_spec, make_trial, run_python


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


def test_what_is_no_file_is_refused_at_once(database: Path) -> None:
    os.mkfifo(database)
    with pytest.raises(InputError, match=r"results\.db: --db: is a device or a pipe"):
        open_record(database)
    assert [path.name for path in database.parent.iterdir()] == [database.name]


def test_a_database_that_others_wrote_to_is_called_damaged(database: Path) -> None:
    with open_record(database) as record:
        campaign = record.start_campaign(make_spec())
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE campaigns SET options = '{'")
    with (
        open_record(database) as record,
        pytest.raises(InputError, match=r"results\.db: damaged: expected JSON .* '{'"),
    ):
        record.campaign(campaign)
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM alembic_version")
    with pytest.raises(InputError, match=r"results\.db: alembic_version: expected the schema's revision"):
        open_record(database)


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
    with pytest.raises(InputError, match=r"^postgresql://me:\*\*\*@host:port/x: --db: expected a file or a URL"):
        open_record("postgresql://me:secret@host:port/x")
    with pytest.raises(InputError, match=r"/proc/results.db"):
        open_record("/proc/results.db")


def test_a_file_is_missing_however_it_is_named(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    names = (str(database), f"sqlite:///{database}", f"~/{database.name}")
    assert [is_missing(name) for name in names] == [True] * 3
    open_record(database).close()
    assert [is_missing(name) for name in names] == [False] * 3
    assert not is_missing("postgresql://me@host/x")
    assert database_name("postgresql://me:secret@host/x") == "postgresql://me:***@host/x"


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
