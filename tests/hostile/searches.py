"""Real searches in processes of their own, and what they leave behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Ground:
    """A folder for a base, a database and the temporary files of searches, which must be empty when all is over."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))  # short, for the names of sockets
        self.temporary = self.folder / "t"
        self.temporary.mkdir()
        self.db = self.folder / "results.db"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A search under way; its output goes to the folder's log."""
        environment = {
            **os.environ,
            "TMPDIR": str(self.temporary),  # also marks its processes
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PYTHONPATH": str(ROOT),
        }
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "evo.cli", "search", *arguments],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def processes(self) -> dict[int, str]:
        """Every living process of these searches: pid -> command line."""
        found: dict[int, str] = {}
        mark = str(self.temporary).encode()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (path / "environ").read_bytes() or self._has_open(path / "fd"):
                    words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if words and int(path.name) != os.getpid():
                        found[int(path.name)] = words[:200]
        return found

    def _has_open(self, descriptors: Path) -> bool:
        """Whether a process has a temporary file open: some overwrite their environment with a title."""
        with contextlib.suppress(OSError):
            for link in descriptors.iterdir():
                with contextlib.suppress(OSError):
                    if str(link.readlink()).startswith(str(self.temporary)):
                        return True
        return False

    def settle(self, limit_s: float = 20.0) -> tuple[float, dict[int, str]]:
        """Wait until no process is left; returns the seconds that took and those that are there still."""
        started = time.monotonic()
        while (left := self.processes()) and time.monotonic() - started < limit_s:
            time.sleep(0.2)
        return time.monotonic() - started, left

    def litter(self) -> list[str]:
        """Temporary files that are left."""
        return sorted(str(path.relative_to(self.temporary)) for path in self.temporary.iterdir())

    def listening(self) -> list[str]:
        """Addresses other than loopback that a process of these searches listens on."""
        inodes = {}
        for table, loopback in (("tcp", ("0100007F",)), ("tcp6", ("00000000000000000000000001000000", _MAPPED))):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and not fields[1].startswith(loopback):
                    inodes[f"socket:[{fields[9]}]"] = fields[1]
        found = []
        for pid, words in self.processes().items():
            with contextlib.suppress(OSError):
                for link in Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(OSError):
                        if (target := str(link.readlink())) in inodes:
                            found.append(f"{inodes[target]} {words}")
        return found

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.db)) as connection:
            return connection.execute(query, values).fetchall()

    def trials(self) -> list[dict[str, Any]]:
        """Every recorded outcome, oldest first."""
        names = ("campaign_id", "number", "configuration", "stage", "reason", "time_us")
        query = f"SELECT {', '.join(names)} FROM trials JOIN variants ON key = variant_key ORDER BY trials.id"
        return [dict(zip(names, row, strict=True)) for row in self.rows(query)]

    def remove(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


_MAPPED = "0000000000000000FFFF00000100007F"  # 127.0.0.1 as an IPv6 address


@contextlib.contextmanager
def ground() -> Iterator[Ground]:
    made = Ground()
    try:
        yield made
    finally:
        made.remove()
