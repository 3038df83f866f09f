"""A real search on the host target, watched live to its end; then every page of what it recorded."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evo.base import SHIPPED
from evo.record import open_record
from tests.browser.conftest import Visitor, serving

COMPILER = shutil.which("g++")


@pytest.mark.skipif(COMPILER is None, reason="no g++ installed")
@pytest.mark.timeout(900)
def test_a_real_search_is_watched_to_its_end_and_its_header_compiles(
    visit: Callable[..., Visitor], tmp_path: Path
) -> None:
    database = tmp_path / "results.db"
    command = [sys.executable, "-m", "evo.cli", "search", "--base", "cpu_attention", "--case", "tiny"]
    command += ["--budget", "12", "--rounds", "30", "--no-proof", "--db", str(database)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with serving(database) as address, (tmp_path / "log").open("w") as log:
        search = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path, env=environment)
        try:
            visitor = visit()
            seen = watch(visitor, address, search)
            assert search.wait(timeout=300) == 0, (tmp_path / "log").read_text()[-2000:]
        finally:
            if search.poll() is None:
                search.terminate()
                search.wait()
        assert seen, (tmp_path / "log").read_text()[-2000:]
        visitor.problems.clear()  # before the search began there was no database: its 503 is in the console
        with open_record(database, read_only=True) as record:
            campaign = record.campaign(1)
            assert campaign.evaluated == 12
            best = record.trial(campaign.best_trial_id or 0)
        for path in ("/", "/campaigns/1", "/elites", f"/trials/{best.id}", f"/variants/{best.variant_key}", "/compare"):
            assert visitor.open(address + path).status == 200
        assert visitor.problems == []
        visitor.open(f"{address}/elites")
        with visitor.page.expect_download(timeout=60_000) as download:
            visitor.page.get_by_role("link", name="Header of rank 1").click()
        header = tmp_path / download.value.suggested_filename
        download.value.save_as(header)
    assert header.name == "evo_config.hpp"
    kernels = SHIPPED / "kernels"
    kernel = [str(COMPILER), "-std=c++20", "-march=native", "-fsyntax-only", f"-I{tmp_path}", f"-I{kernels / 'common'}"]
    done = subprocess.run(
        [*kernel, str(kernels / "host" / "attention.cpp")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def watch(visitor: Visitor, address: str, search: subprocess.Popen[bytes]) -> list[str]:
    """Open the campaign as soon as it is there and follow it without reloading; the states it showed."""
    deadline = time.monotonic() + 600
    while visitor.page.goto(f"{address}/campaigns/1").status != 200:
        if search.poll() not in (None, 0) or time.monotonic() > deadline:
            return []
        time.sleep(0.3)
    seen: list[str] = []
    while time.monotonic() < deadline and (not seen or seen[-1] != "done"):
        shown = visitor.page.locator("#part-summary .badge").inner_text().strip()
        if not seen or seen[-1] != shown:
            seen.append(shown)
        if shown not in ("running", "done"):
            break
        visitor.page.wait_for_timeout(200)
    assert seen[-1] == "done", seen
    return seen
