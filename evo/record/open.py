"""Open a results database: engine, pragmas, schema version. Never leaves a half-made file."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    NotSupportedError,
    ProgrammingError,
)
from sqlalchemy.pool import QueuePool, StaticPool

from evo.errors import InputError
from evo.record.schema import REVISIONS

BUSY_TIMEOUT_MS = 5_000
SQLITE_MAGIC = b"SQLite format 3\x00"
UNUSABLE = (DBAPIError, sqlite3.Error)  # the latter, bare, when a new connection's first pragma fails


def parse_url(database: str | Path) -> sa.URL:
    """A SQLAlchemy URL from a URL or a path; a bare path is an SQLite file.

    Raises: InputError when the URL cannot be parsed.
    """
    text = str(database)
    if "://" not in text:
        return sa.URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        return sa.make_url(text)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        shown = re.sub(r":[^:/@]*@", ":***@", text)  # a password is not for the screen
        raise InputError(f"{shown}: --db: expected a file or a URL such as sqlite:///results.db") from None


def is_missing(database: str) -> bool:
    """Whether it names a file that does not exist; a database on a server is taken to be there. Raises: InputError."""
    path = sqlite_path(parse_url(database))
    return path is not None and not path.exists()


def check_place(database: str) -> None:
    """Whether a database is or could be made there; makes none. Raises: InputError."""
    path = sqlite_path(parse_url(database))
    if path is None:
        return
    _check_file(path, create=True)
    if not path.exists() and not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: --db: folder {path.parent} cannot be written")


def database_name(database: str) -> str:
    """How messages name it: the file, or the URL without its password. Raises: InputError."""
    return display_name(parse_url(database))


def display_name(url: sa.URL) -> str:
    """The database's name for messages: the file, or the URL without its password."""
    return str(url.database or ":memory:") if is_sqlite(url) else url.render_as_string(hide_password=True)


def is_sqlite(url: sa.URL) -> bool:
    return url.get_backend_name() == "sqlite"


def sqlite_path(url: sa.URL) -> Path | None:
    """The file behind the URL, or None for a server or a database in memory."""
    if not is_sqlite(url) or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def open_engine(url: sa.URL, *, create: bool, upgrade: bool, read_only: bool) -> sa.Engine:
    """An engine on a database whose schema is this program's.

    Raises: InputError in one line for whatever the user can mend.
    """
    path = sqlite_path(url)
    if path is not None:
        _check_file(path, create=create and not read_only)
    engine = _make_engine(url, read_only=read_only)
    try:
        if path is not None and not read_only:
            _set_wal(engine)
        _bring_schema(engine, display_name(url), create=create and not read_only, upgrade=upgrade and not read_only)
    except UNUSABLE as error:
        engine.dispose()
        raise InputError(f"{display_name(url)}: {explain(error)}") from None
    except BaseException:
        engine.dispose()
        raise
    return engine


def explain(error: DBAPIError | sqlite3.Error) -> str:
    """The driver's words in one line with what to do, for the failures that users meet."""
    words = " ".join(str(error.orig if isinstance(error, DBAPIError) else error).split())
    hints = (
        ("locked", "locked by another program; wait for it or choose another --db"),
        ("not a database", "not a database; expected a file made by evo"),
        ("malformed", "damaged: expected a whole SQLite file (see `sqlite3 FILE .recover`)"),
        ("readonly", "read-only; expected a database that can be written"),
        ("read-only", "read-only; expected a database that can be written"),
        ("full", "no space left where the database lies"),
        ("unable to open", "cannot be opened; expected a path in a folder that can be written"),
    )
    return next((f"{hint} ({words})" for word, hint in hints if word in words.lower()), words)


def raise_bugs(error: DBAPIError | sqlite3.Error) -> None:
    """Let our own mistakes through: only a database that cannot be used is the user's matter."""
    if isinstance(error, IntegrityError | ProgrammingError | DataError | NotSupportedError):
        raise error
    words_of_driver = str(error.orig if isinstance(error, DBAPIError) else error)
    if any(words in words_of_driver for words in ("no such column", "has no column", "syntax error")):
        raise error


def schema_version(connection: sa.Connection) -> str | None:
    """The database's revision; None when it is empty.

    Raises: InputError when it holds tables but no revision.
    """
    tables = sa.inspect(connection).get_table_names()
    if not tables:
        return None
    name = display_name(connection.engine.url)
    if "alembic_version" not in tables or "campaigns" not in tables:
        raise InputError(f"{name}: not an Evo database: it holds other tables ({', '.join(sorted(tables)[:3])})")
    version = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    if version is None:
        raise InputError(f"{name}: alembic_version: expected the schema's revision, which is gone")
    return str(version)


def database_revision(database: str | Path) -> str:
    """The revision of an existing database, whatever this program's; "" when it is empty. Changes nothing.

    Raises: InputError when there is no Evo database.
    """
    url = parse_url(database)
    path = sqlite_path(url)
    if path is not None:
        _check_file(path, create=False)
    engine = _make_engine(url, read_only=True)
    try:
        with engine.connect() as connection:
            return schema_version(connection) or ""
    except UNUSABLE as error:
        raise InputError(f"{display_name(url)}: {explain(error)}") from None
    finally:
        engine.dispose()


def _check_file(path: Path, *, create: bool) -> None:
    """Look at the file before SQLite does, which would make one and say less."""
    if path.is_dir():
        raise InputError(f"{path}: --db: is a folder; expected a database file")
    if not path.exists():
        if not create:
            raise InputError(f"{path}: no such database; `evo search` makes one, --db names another")
        if not path.parent.is_dir():
            raise InputError(f"{path}: --db: folder {path.parent} does not exist")
        return
    if not path.is_file():  # a pipe would be waited for, and SQLite leaves its journal beside a device
        raise InputError(f"{path}: --db: is a device or a pipe; expected a database file")
    try:
        with path.open("rb") as file:
            start = file.read(len(SQLITE_MAGIC))
    except OSError as error:
        raise InputError(f"{path}: --db: cannot be read: {error.strerror}") from None
    if start and start != SQLITE_MAGIC:
        raise InputError(f"{path}: not a database; expected an SQLite file made by evo")


def _make_engine(url: sa.URL, *, read_only: bool) -> sa.Engine:
    options: dict[str, Any] = {
        "json_serializer": _dump_json,
        "json_deserializer": partial(_load_json, display_name(url)),
    }
    path = sqlite_path(url)
    if path is not None:
        # The size of a pool bounds connections, not threads: a web page's threads wait for one another briefly.
        options |= {"poolclass": QueuePool, "pool_size": 8, "max_overflow": 24}
        if read_only:
            location = path.resolve().as_uri()
            options["creator"] = lambda: _connect_read_only(location)
        else:
            options["connect_args"] = {"check_same_thread": False}
    elif is_sqlite(url):
        options |= {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    else:
        options |= {"pool_pre_ping": True}
    try:
        engine = sa.create_engine(url, **options)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise InputError(f"{display_name(url)}: --db: {error}; expected an installed SQLAlchemy driver") from None
    if is_sqlite(url):
        _listen_sqlite(engine, read_only=read_only)
    return engine


def _connect_read_only(location: str) -> sqlite3.Connection:
    """A connection that cannot write; on a read-only file system as of now, without the write-ahead log's lock."""
    patience_s = BUSY_TIMEOUT_MS / 1e3
    connection = sqlite3.connect(f"{location}?mode=ro", uri=True, check_same_thread=False, timeout=patience_s)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        return connection
    except sqlite3.OperationalError as error:
        connection.close()
        if "locked" in str(error) or "busy" in str(error):
            raise
    return sqlite3.connect(f"{location}?immutable=1", uri=True, check_same_thread=False)


def _listen_sqlite(engine: sa.Engine, *, read_only: bool) -> None:
    """Take transactions away from the driver, which begins them too late for a read before a write."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA foreign_keys = ON")
        if read_only:
            cursor.execute("PRAGMA query_only = ON")
        else:
            cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        writes = options.get("writes", False)
        if writes:
            patience_ms = options.get("busy_timeout_ms", BUSY_TIMEOUT_MS)
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience_ms}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _set_wal(engine: sa.Engine) -> None:
    """Readers then never wait for the writer."""
    raw = engine.raw_connection()
    try:
        mode = raw.cursor().execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            raw.cursor().execute("PRAGMA journal_mode = WAL")
    finally:
        raw.close()


def _bring_schema(engine: sa.Engine, name: str, *, create: bool, upgrade: bool) -> None:
    """Check the schema's version, and make or migrate it in one transaction where that was asked for."""
    with engine.connect() as connection:
        version = schema_version(connection)
    if version == REVISIONS[-1]:
        return
    if version is None and not create:
        raise InputError(f"{name}: empty; expected a database made by `evo search`")
    if version is not None and version not in REVISIONS:
        raise InputError(
            f"{name}: schema {version} is newer than this program's ({REVISIONS[-1]}); "
            "update Evo (pip install -U) or choose another --db"
        )
    if version is not None and not upgrade:
        raise InputError(
            f"{name}: schema {version} is older than this program's ({REVISIONS[-1]}); run: evo db upgrade --db {name}"
        )
    migrate(engine)


def migrate(engine: sa.Engine, revision: str = "head") -> None:
    """Bring the schema to a revision, all or nothing."""
    from alembic import command
    from alembic.config import Config

    with engine.execution_options(writes=True).begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent.parent / "migrations").replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _dump_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _load_json(name: str, text: str | bytes) -> Any:
    """Raises: InputError when somebody else wrote there."""
    try:
        return json.loads(text)
    except ValueError:
        raise InputError(f"{name}: damaged: expected JSON where it holds {text[:40]!r}") from None
