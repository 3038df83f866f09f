"""Templates and the scripts that they name: what pages and reports are made with."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path

from jinja2 import Environment, PackageLoader, select_autoescape

from evo import __version__
from evo.dashboard import words
from evo.errors import InputError


def plotly_path() -> Path:
    """Where the installed plotly package keeps its script. Raises: InputError when it is not installed."""
    found = importlib.util.find_spec("plotly")
    if found is None or found.origin is None:
        raise InputError("plotly is not installed; the dashboard's charts need it: pip install plotly")
    return Path(found.origin).parent / "package_data" / "plotly.min.js"


def asset_version() -> str:
    """Changes whenever a script or style of the package changes."""
    folder = Path(__file__).parent / "static"
    newest = max(path.stat().st_mtime_ns for path in folder.iterdir())
    return f"{newest:x}"


def plotly_version() -> str:
    """The installed plotly's version; empty when there is none."""
    try:
        return importlib.metadata.version("plotly")
    except importlib.metadata.PackageNotFoundError:
        return ""


def asset(name: str) -> str:
    """A script or style of this package, whole."""
    return (Path(__file__).parent / "static" / name).read_text(encoding="utf-8")


# In every page's head, so that nothing else has to arrive before the first paint.
HEAD = {"style": asset("style.css"), "theme": asset("theme.js")}
THEME_HASH = base64.b64encode(hashlib.sha256(HEAD["theme"].encode()).digest()).decode()

templates = Environment(
    loader=PackageLoader("evo.dashboard"),
    autoescape=select_autoescape(default=True),
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters.update(words.FILTERS)
templates.globals.update(
    version=__version__, standalone=False, assets=HEAD, asset_version=asset_version(), plotly_version=plotly_version()
)
