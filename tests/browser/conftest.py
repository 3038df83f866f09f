"""A served dashboard and a headless browser, for tests that look at pages as people do."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from evo.record import open_record
from tests.synthetic import fill_campaign, make_spec, promote_best

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def serving(database: Path, token: str | None = None) -> Iterator[str]:
    """The dashboard over a database on a free port of loopback; yields its address."""
    import uvicorn

    from evo.dashboard import make_app

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_app(database, token=token), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=10)
    listener.close()


@pytest.fixture(scope="session")
def synthetic_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four made-up campaigns: done, interrupted, replayed, and one whose base has a hostile name."""
    path = tmp_path_factory.mktemp("dashboard") / "results.db"
    with open_record(path) as record:
        done = record.start_campaign(make_spec())
        promote_best(record, done, fill_campaign(record, done, 160))
        record.finish_campaign(done, "done", "budget spent")
        stopped = record.start_campaign(make_spec(proposer="random", seed=3))
        promote_best(record, stopped, fill_campaign(record, stopped, 80, seed=3, proposer="random"), seed=4)
        record.finish_campaign(stopped, "interrupted", "Ctrl-C")
        played = record.start_campaign(make_spec(target="replay", replay="Recorded times of an Example GPU, replayed."))
        fill_campaign(record, played, 40, seed=9)
        record.finish_campaign(played, "done", "budget spent")
        hostile = record.start_campaign(make_spec(base=HOSTILE, case_name="<img src=x onerror=alert(2)>"))
        fill_campaign(record, hostile, 30, seed=12)
        record.finish_campaign(hostile, "done", "<b>bold</b>")
    return path


HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="session")
def site(synthetic_database: Path) -> Iterator[str]:
    with serving(synthetic_database) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium, as installed; tests are skipped without it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium installed: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield started
        started.close()


@dataclass
class Visitor:
    """A page and everything that went wrong or left the machine while it was looked at."""

    page: Any
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def hear(self, message: Any) -> None:
        """Keep what the console complains of."""
        if message.type in ("error", "warning"):
            self.problems.append(message.text)

    def open(self, address: str) -> Any:
        """Go there and wait until every chart is drawn."""
        from playwright.sync_api import expect

        answer = self.page.goto(address)
        expect(self.page.locator(".chart.waiting")).to_have_count(0, timeout=30_000)
        return answer


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Visitor]]:
    """Opens visitors: visit(width=390, dark=True)."""
    contexts = []

    def new(*, width: int = 1280, height: int = 900, dark: bool = False) -> Visitor:
        scheme = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        visitor = Visitor(context.new_page())
        visitor.page.on(
            "console", lambda m: visitor.problems.append(m.text) if m.type in ("error", "warning") else None
        )
        visitor.page.on("pageerror", lambda error: visitor.problems.append(str(error)))
        visitor.page.on("dialog", lambda dialog: visitor.problems.append(f"dialog {dialog.message}"))
        visitor.page.on("request", lambda request: visitor.requests.append(request.url))
        return visitor

    yield new
    for context in contexts:
        context.close()
