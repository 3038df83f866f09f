"""The record as one object: what it reads (`evo.record.reader`), and writes that never lose a result."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from evo.errors import InputError
from evo.record import lines
from evo.record.apply import apply_line, apply_spooled
from evo.record.drivers import is_abandoned
from evo.record.lines import Line
from evo.record.open import UNUSABLE, database_revision, explain, open_engine, parse_url, raise_bugs, sqlite_path
from evo.record.reader import Reader
from evo.record.schema import REVISIONS, CampaignRow, EnvironmentRow, ProfileRow
from evo.record.spool import Spool
from evo.record.values import CampaignSpec, Event, Interval, Place, Profile, Promotion, Trial

log = logging.getLogger("evo.record")

RETRY_S = 2.0  # how often a failed database is tried again while results go to the spool
RETRY_TIMEOUT_MS = 100  # and how long such a try waits for another writer
SETTLE_S = 10.0  # how long a database may be awaited whose results are needed as a whole
STATES = ("done", "interrupted", "failed")


def open_record(
    url: str | Path = "results.db", *, create: bool = True, upgrade: bool = False, read_only: bool = False
) -> Record:
    """Open a results database, made if it is new; merges what an earlier run had to spool beside it.

    url: a file, or any SQLAlchemy URL.
    Raises: InputError in one line: not a database, unwritable, missing (create=False), schema older or newer.
    """
    parsed = parse_url(url)
    record = Record(open_engine(parsed, create=create, upgrade=upgrade, read_only=read_only), read_only=read_only)
    if not read_only:
        record.merge_spool()
    return record


def upgrade_database(url: str | Path) -> tuple[str, str]:
    """Bring an older database to this program's schema; returns the revisions before and after.

    Raises: InputError.
    """
    before = database_revision(url)
    open_record(url, create=False, upgrade=True).close()
    return before, REVISIONS[-1]


class Record(Reader):
    """A results database. One process writes; any number read."""

    def __init__(self, engine: sa.Engine, *, read_only: bool = False) -> None:
        super().__init__(engine)
        self._writer = engine.execution_options(writes=True)
        self._hasty = engine.execution_options(writes=True, busy_timeout_ms=RETRY_TIMEOUT_MS)
        self.read_only = read_only
        path = sqlite_path(engine.url)
        self._spool = Spool(path if path is not None else Path(f"{engine.url.database or 'evo'}.results"))
        self._failed_at: float | None = None  # since when lines go to the spool
        self._warned = False
        self._started: dict[int, float] = {}  # campaigns that this process runs: when they began tells databases apart

    def __enter__(self) -> Record:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Merge what is spooled if the database takes it, and let go of the file."""
        if not self.read_only and (self._failed_at is not None or len(self._spool)):
            self.merge_spool()
            rescued = self._spool.rescue()
            if rescued is not None:
                log.warning("results were kept in %s; move it beside %s to merge them", rescued, self.name)
        self._engine.dispose()

    def start_campaign(self, spec: CampaignSpec) -> int:
        """Record that a search starts now in this process; returns its id. Raises: InputError."""
        columns = lines.campaign_columns(spec)
        environment = lines.plain(dataclasses.asdict(spec.environment))
        with self._user_errors(), self._writer.begin() as connection:
            where = [c == environment[c.key] for c in EnvironmentRow.__table__.c if c.key not in {"id", "clocks"}]
            known = connection.execute(sa.select(EnvironmentRow.id, EnvironmentRow.clocks).where(*where)).all()
            same = [row.id for row in known if row.clocks == environment["clocks"]]
            if not same:
                insert = sa.insert(EnvironmentRow).values(**environment).returning(EnvironmentRow.id)
                same = [connection.execute(insert).scalar_one()]
            insert = sa.insert(CampaignRow).values(environment_id=same[0], **columns).returning(CampaignRow.id)
            campaign_id = int(connection.execute(insert).scalar_one())
        self._started[campaign_id] = columns["started_at"]
        return campaign_id

    def resume_campaign(self, campaign_id: int) -> None:
        """Make an unfinished campaign this process's own.

        Raises: InputError when there is none of that id or another living process runs it.
        """
        campaign = self.campaign(campaign_id)
        if campaign.state == "running" and campaign.pid != os.getpid() and not is_abandoned(campaign):
            raise InputError(f"{self.name}: campaign {campaign_id} is being run by process {campaign.pid}")
        now = time.time()
        columns = {"state": "running", "end_reason": "", "ended_at": None, "heartbeat_at": now}
        columns |= {"pid": os.getpid(), "host": socket.gethostname()}
        with self._user_errors(), self._writer.begin() as connection:
            mine = sa.update(CampaignRow).where(CampaignRow.id == campaign_id, CampaignRow.pid == campaign.pid)
            changed = connection.execute(
                mine.where(CampaignRow.heartbeat_at == campaign.heartbeat_at).values(**columns)
            )
        if changed.rowcount != 1:
            raise InputError(f"{self.name}: campaign {campaign_id} has just been taken up by another process")
        self._started[campaign_id] = campaign.started_at

    def record_trial(self, campaign_id: int, trial: Trial) -> int | None:
        """Record one outcome; returns its id, or None when it went to the spool.

        Raises: ValueError when that number is recorded already.
        """
        return self._write([lines.trial_line(campaign_id, trial)])[0]

    def record_trials(self, campaign_id: int, trials: Sequence[Trial]) -> list[int | None]:
        """Record several outcomes in one transaction."""
        return self._write([lines.trial_line(campaign_id, trial) for trial in trials])

    def record_promotion(self, campaign_id: int, promotion: Promotion) -> int | None:
        """Record a finalist's verdict; its variant must have been recorded in a trial."""
        return self._write([lines.promotion_line(campaign_id, promotion)])[0]

    def crown(self, campaign_id: int, place: Place, variant_keys: Sequence[str], at: float = 0.0) -> None:
        """Make these variants the elites of the place, best first; at most three, fewer demote, none clears.

        Each must have an accepted promotion there. Those who leave stay in the history.
        Raises: ValueError when one has none.
        """
        self._write([lines.crown_line(campaign_id, place, variant_keys, at)])

    def record_event(self, campaign_id: int, event: Event) -> None:
        """Record an insight, a warning or an incident."""
        self._write([lines.event_line(campaign_id, event)])

    def record_profile(self, profile: Profile) -> None:
        """Keep a profiler's counters with their variant. Raises: InputError when that variant is not recorded."""
        self.variant(profile.variant_key)
        row = dataclasses.asdict(profile) | {"at": profile.at or time.time()}
        with self._user_errors(), self._writer.begin() as connection:
            connection.execute(sa.insert(ProfileRow).values(**row))

    def record_intervals(self, campaign_id: int, intervals: Sequence[Interval]) -> None:
        """Record what workers did and when."""
        self._write([lines.intervals_line(campaign_id, intervals)])

    def update_campaign(
        self,
        campaign_id: int,
        *,
        baselines: Mapping[str, float] | None = None,
        kill_rate: Mapping[str, Any] | None = None,
        budget: int | None = None,
    ) -> None:
        """Record facts that are known only while the campaign runs; None leaves a fact as it is."""
        given = {"baselines": baselines, "kill_rate": kill_rate, "budget": budget}
        columns = {name: value for name, value in given.items() if value is not None}
        if columns:
            self._write([lines.update_line(campaign_id, columns)])

    def heartbeat(self, campaign_id: int) -> None:
        """Say that the driver lives; says nothing when the database cannot be written."""
        if self._failed_at is not None:
            self._try_merge()
            return
        with contextlib.suppress(*UNUSABLE), self._writer.begin() as connection:
            statement = sa.update(CampaignRow).where(CampaignRow.id == campaign_id)
            connection.execute(statement.values(heartbeat_at=time.time()))

    def finish_campaign(self, campaign_id: int, state: str, reason: str = "") -> None:
        """Record the end: state is done, interrupted or failed."""
        if state not in STATES:
            raise ValueError(f"state {state!r}: expected one of {STATES}")
        now = time.time()
        columns = {"state": state, "end_reason": reason, "ended_at": now, "heartbeat_at": now}
        self._write([lines.update_line(campaign_id, columns)])

    def merge_spool(self, files: Sequence[Path] | None = None) -> int:
        """Write what was spooled into the database; returns how many lines. What cannot be written stays spooled."""
        if files is None and not self._spool.files() and not len(self._spool):
            return 0
        try:
            count = self._spool.merge(self._write_spooled, files=files)
        except UNUSABLE as error:
            raise_bugs(error)
            log.warning("%s: %s; spooled results stay beside it", self.name, explain(error))
            return 0
        if count:
            log.warning("%s: %d spooled results merged", self.name, count)
        return count

    def settle(self, campaign_id: int) -> bool:
        """Merge what is spooled of a campaign, before it is read as a whole; False if the database does not take it."""
        deadline = time.monotonic() + SETTLE_S
        while self._failed_at is not None or len(self._spool) or self._spool.path(campaign_id).exists():
            try:
                self._spool.merge(self._write_spooled)
                self._failed_at, self._warned = None, False
            except UNUSABLE as error:
                raise_bugs(error)
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.2)
        return True

    def _write(self, batch: Sequence[Line]) -> list[int | None]:
        """Write lines in one transaction, or spool them when the database cannot take them."""
        if self.read_only:
            raise RuntimeError(f"{self.name} was opened to be read only")
        if self._failed_at is not None and not self._try_merge():
            return self._keep(batch)
        try:
            with self._writer.begin() as connection:
                return [apply_line(connection, line) for line in batch]
        except IntegrityError as error:
            if "trials" in str(error.orig):
                numbers = [line["trial"]["number"] for line in batch if line["kind"] == "trial"]
                raise ValueError(f"trial {numbers} of campaign {batch[0]['campaign']}: {error.orig}") from error
            raise
        except UNUSABLE as error:
            raise_bugs(error)
            self._fail(error)
            return self._keep(batch)

    def _keep(self, batch: Sequence[Line]) -> list[int | None]:
        """Spool lines, each with the beginning of its campaign."""
        self._spool.append([{**line, "since": self._started.get(line["campaign"])} for line in batch])
        return [None] * len(batch)

    def _write_spooled(self, batch: Sequence[Line]) -> bool:
        """Write lines from a spool; False when they are of another database that had this name."""
        writer = self._writer if self._failed_at is None else self._hasty
        with writer.begin() as connection:
            campaigns = connection.execute(sa.select(CampaignRow.id, CampaignRow.started_at))
            begun = {row.id: row.started_at for row in campaigns}
            for line in batch:
                here = begun.get(line["campaign"])
                if here is None or line.get("since") not in (here, None):
                    return False
            for line in batch:
                apply_spooled(connection, {name: value for name, value in line.items() if name != "since"})
        return True

    def _fail(self, error: DBAPIError | sqlite3.Error) -> None:
        self._failed_at = time.monotonic()
        if not self._warned:
            self._warned = True
            place = self._spool.prefix.with_name(f"{self._spool.prefix.name}.spool-*.jsonl")
            log.warning("%s: %s. Results go to %s until it works again", self.name, explain(error), place)

    def _try_merge(self) -> bool:
        """Try the failed database again, seldom enough not to hold up the search; True when all is written."""
        assert self._failed_at is not None
        if time.monotonic() - self._failed_at < RETRY_S:
            return False
        try:
            count = self._spool.merge(self._write_spooled)
        except UNUSABLE as error:
            raise_bugs(error)
            self._failed_at = time.monotonic()
            return False
        self._failed_at, self._warned = None, False
        log.warning("%s works again: %d spooled results merged", self.name, count)
        return True
