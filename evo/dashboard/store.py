"""The database behind the pages: opened when first asked for, again when its file was replaced, never written."""

from __future__ import annotations

import threading
from pathlib import Path

from evo.errors import InputError
from evo.record import Record, open_record


class Store:
    """Hands out one read-only Record. Raises InputError, at each request, for as long as it cannot be opened."""

    def __init__(self, url: str | Path) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._record: Record | None = None
        self._identity: tuple[int, int] | None = None

    def record(self) -> Record:
        """The record as of now."""
        with self._lock:
            identity = self._file_identity()
            if self._record is None or identity != self._identity:
                if self._record is not None:
                    self._record.close()
                    self._record = None
                self._record = open_record(self.url, create=False, read_only=True)
                self._identity = identity
            return self._record

    def close(self) -> None:
        with self._lock:
            if self._record is not None:
                self._record.close()
                self._record = None

    def _file_identity(self) -> tuple[int, int] | None:
        """Device and inode of the database's file; None for a server."""
        if "://" in str(self.url) and not str(self.url).startswith("sqlite:///"):
            return None
        path = Path(str(self.url).removeprefix("sqlite:///"))
        try:
            found = path.stat()
        except FileNotFoundError:
            raise InputError(f"{path}: no such database; `evo search` makes one, --db names another") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        return found.st_dev, found.st_ino
