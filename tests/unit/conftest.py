"""Shared by the tests of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import evo


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results.db of one replayed search."""
    folder = tmp_path_factory.mktemp("cli")
    words = ("search", "--base", "phase4", "--target", "replay", "--budget", "40", "--json")
    document = json.loads(evo(*words, cwd=folder).stdout)
    assert document["state"] == "done"
    assert document["evaluated"] == 40
    assert document["replay"].startswith("recorded times of ")
    assert document["best_us"] > 0
    assert len(document["reigning"]) == 3
    return folder
