"""Binaries kept between searches by their variant's key: what never changes need not be built again."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path

from evo.outcome import Built, Resources
from evo.variant import Variant


def cache_folder() -> Path:
    """Where Evo keeps what it can make again ($XDG_CACHE_HOME/evo or ~/.cache/evo)."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "evo"


def load_build(variant: Variant) -> Built | None:
    """The binary of this very variant, or None. A damaged entry is none."""
    path = cache_folder() / "builds" / variant.key
    try:
        facts = json.loads(path.with_suffix(".json").read_text())
        binary = path.with_suffix(".bin").read_bytes()
        if hashlib.sha256(binary).hexdigest() != facts["sha256"]:
            return None
        resources = Resources(**facts["resources"])
        return Built(variant.key, binary, facts["binary_hash"], resources, facts["log"], facts["build_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_build(built: Built) -> None:
    """Keep a binary; a cache that cannot be written is no reason to stop."""
    path = cache_folder() / "builds" / built.key
    facts = {
        "sha256": hashlib.sha256(built.binary).hexdigest(),
        "binary_hash": built.binary_hash,
        "resources": dataclasses.asdict(built.resources),
        "log": built.log,
        "build_s": built.build_s,
    }
    with contextlib.suppress(OSError):
        write_whole(path.with_suffix(".bin"), built.binary)
        write_whole(path.with_suffix(".json"), json.dumps(facts).encode())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; its folder is made if need be. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:  # a full disk, Ctrl-C
        Path(temporary).unlink(missing_ok=True)
        raise
