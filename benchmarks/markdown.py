"""What every generated table needs: where the measurements are, and Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

Rows = list[list[str]]


def read(name: str) -> dict[str, Any]:
    """A committed measurement, empty if there is none yet."""
    path = RESULTS / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def markdown(heading: list[str], rows: Rows) -> str:
    """A table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def time_cell(row: dict[str, Any]) -> str:
    """A p50 and its interval."""
    return f"{row['p50_us']:.2f} us ({row['low_us']:.2f} to {row['high_us']:.2f})"


def ratio_cell(row: dict[str, Any]) -> str:
    """How many times as fast, and its interval."""
    return f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"


def origin(report: dict[str, Any]) -> str:
    """Device, software, day and commit of a report that holds its environment."""
    facts = report["environment"]
    words = f"{facts['device']} ({facts['arch']}, driver {facts['driver']}), PyTorch {facts['torch']}"
    return f"{words}, {report['date'][:10]}, commit {facts['git_sha'][:12] or 'unknown'}.\n"
