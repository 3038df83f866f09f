"""A web page over results.db: read-only, self-contained, live while a search runs."""

from __future__ import annotations

from evo.dashboard.report import write_report
from evo.dashboard.server import make_app, serve

__all__ = ["make_app", "serve", "write_report"]
