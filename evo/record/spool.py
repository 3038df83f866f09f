"""Lines kept beside a database that cannot be written: one JSON line each, one file per campaign."""

from __future__ import annotations

import fcntl
import glob
import json
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from evo.record.lines import Line

log = logging.getLogger("evo.record")


class Spool:
    """Appends lines to PREFIX.spool-<campaign>.jsonl; where even that fails it keeps them in memory."""

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self._memory: list[Line] = []  # newest last; only what no file would take

    def path(self, campaign_id: int) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}.spool-{campaign_id}.jsonl")

    def files(self) -> list[Path]:
        return sorted(self.prefix.parent.glob(f"{glob.escape(self.prefix.name)}.spool-*.jsonl"))

    def __len__(self) -> int:
        """Lines in memory, not in files."""
        return len(self._memory)

    def append(self, lines: Sequence[Line]) -> None:
        """Keep the lines: on disk if it takes them, else in memory."""
        self._memory.extend(lines)
        self.flush()

    def flush(self) -> bool:
        """Move what memory holds into files; False when they did not take it."""
        while self._memory:
            campaign_id = self._memory[0]["campaign"]
            same = [line for line in self._memory if line["campaign"] == campaign_id]
            try:
                _append_whole(self.path(campaign_id), same)
            except OSError:
                return False
            self._memory = [line for line in self._memory if line["campaign"] != campaign_id]
        return True

    def rescue(self) -> Path | None:
        """At the end, when neither database nor spool takes them: lines from memory into the temporary folder."""
        if not self._memory or self.flush():
            return None
        target = Path(tempfile.gettempdir()) / f"{self.prefix.name}.spool-{self._memory[0]['campaign']}.jsonl"
        try:
            _append_whole(target, self._memory)
        except OSError as error:
            log.error("%d results could not be kept anywhere: %s", len(self._memory), error)
            return None
        self._memory.clear()
        return target

    def merge(self, write: Callable[[Sequence[Line]], bool], *, files: Sequence[Path] | None = None) -> int:
        """Hand every spooled line to `write`, file by file, and remove the files; returns how many lines were written.

        An exception from `write` leaves the file as it was; one that it does not take (False) is set aside.
        """
        count = 0
        for path in self.files() if files is None else files:
            count += _drain(path, write)
        if self._memory:
            write(self._memory)
            count += len(self._memory)
            self._memory.clear()
        return count


def _append_whole(path: Path, lines: Sequence[Line]) -> None:
    """Append all lines or none, safe against a merge by another process. Raises: OSError."""
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not _is_current(path, handle):
                continue  # merged and removed between open and lock
            size = os.fstat(handle).st_size
            try:
                written = 0
                while written < len(data):
                    written += os.write(handle, data[written:])
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)
                if size == 0:
                    path.unlink(missing_ok=True)
                raise
            return
        finally:
            os.close(handle)


def _drain(path: Path, write: Callable[[Sequence[Line]], bool]) -> int:
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return 0
    with os.fdopen(handle, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not _is_current(path, file.fileno()):
            return 0
        lines: list[Line] = []
        for raw in file:
            try:
                lines.append(json.loads(raw))
            except ValueError:  # the process was killed while it wrote this line
                log.warning("%s: one broken line was skipped", path)
        if not write(lines):
            aside = path.with_name(f"{path.name}.other-{int(path.stat().st_mtime)}")
            path.rename(aside)
            log.warning("%s holds results of another database of that name; it is set aside as %s", path, aside)
            return 0
        path.unlink(missing_ok=True)
    return len(lines)


def _is_current(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
