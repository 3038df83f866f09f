"""Measures the dashboard over 100,000 trials: first paint in a real browser, and what polling costs a search.

python benchmarks/dashboard_speed.py --output benchmarks/results/dashboard_speed.json

The trials are made up, not measured: only the dashboard is timed here. Needs Debian's chromium and playwright.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from evo.record import Interval, Origin, Trial, open_record  # noqa: E402
from tests.synthetic import (  # noqa: E402
    make_base,
    make_space,
    make_spec,
    make_variant_record,
    outcome_of,
    promote_best,
)

TARGETS = {"list_first_paint_ms": 300.0, "campaign_first_paint_ms": 1000.0, "search_slowdown_percent": 2.0}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SIZES = (5000, *(2000,) * 40, *(500,) * 30)  # 100,000 trials in 71 campaigns


def fill(database: Path, sizes: tuple[int, ...]) -> None:
    """Campaigns of these sizes; variants are shared among them, trials and samples are not."""
    rng = np.random.default_rng(0)
    base = make_base()
    distinct = [
        (configuration, make_variant_record(configuration, base=base))
        for configuration in make_space().sample(rng, max(sizes))
    ]
    with open_record(database) as record:
        for number, size in enumerate(sizes):
            campaign_id = record.start_campaign(make_spec(seed=number, budget=size))
            start = time.time() - 0.1 * size
            order = rng.permutation(len(distinct))[:size]
            trials = [
                Trial(
                    number=position,
                    variant=distinct[index][1],
                    outcome=outcome_of(distinct[index][0], rng),
                    origin=Origin("mutate", (position - 1,)) if position > 30 else Origin("random"),
                    started_at=start + 0.1 * position,
                    recorded_at=start + 0.1 * position + 0.08,
                    worker="gpu 0",
                    build_s=0.3,
                )
                for position, index in enumerate(order)
            ]
            for first in range(0, size, 500):
                record.record_trials(campaign_id, trials[first : first + 500])
            record.record_intervals(
                campaign_id,
                [
                    Interval(worker, kind, trial.started_at + begin, trial.started_at + end)
                    for trial in trials
                    for worker, kind, begin, end in (("cpu 0", "build", 0.0, 0.09), ("gpu 0", "measure", 0.0, 0.05))
                ],
            )
            if number == 0:
                promote_best(record, campaign_id, trials)
            record.finish_campaign(campaign_id, "done", "budget spent")


@contextmanager
def serving(database: Path) -> Any:
    """The dashboard in a process of its own, as `evo dashboard` runs it."""
    script = f"from evo.dashboard import serve; serve({str(database)!r}, port=0, say=lambda s: print(s, flush=True))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[3].rstrip("/"), process
    finally:
        process.terminate()
        process.wait()


def paint_times(address: str, path: str, visits: int) -> dict[str, float]:
    """Medians over fresh browser contexts: first byte, first contentful paint, all charts drawn; milliseconds."""
    from playwright.sync_api import expect, sync_playwright

    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    times: dict[str, list[float]] = {"first_byte_ms": [], "first_paint_ms": [], "trials_drawn_ms": []}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=FLAGS)
        for visit in range(visits + 1):
            page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
            page.goto(address + path)
            if path != "/":
                expect(page.locator("#progress.js-plotly-plot")).to_have_count(1, timeout=60_000)
            drawn = page.evaluate("performance.now()")
            page.wait_for_load_state("networkidle")
            while not page.evaluate("performance.getEntriesByName('first-contentful-paint').length"):
                page.wait_for_timeout(20)
            found = page.evaluate(
                "[performance.getEntriesByType('navigation')[0].responseStart, "
                "performance.getEntriesByName('first-contentful-paint')[0].startTime]"
            )
            page.context.close()
            if visit:  # the first visit also starts the browser's own processes
                for name, value in zip(times, (*found, drawn), strict=True):
                    times[name].append(float(value))
        browser.close()
    return {name: round(statistics.median(values), 1) for name, values in times.items()}


POLL = """
import json, sys, time, urllib.request
seen, evaluated, turn = 0, -1, 0
while True:
    time.sleep(1.8)
    turn += 1
    whole = str(turn % 4 == 0).lower()  # as static/page.js asks
    answer = json.load(urllib.request.urlopen(f"{sys.argv[1]}?after={seen}&evaluated={evaluated}&whole={whole}"))
    evaluated = answer["evaluated"]
    seen = max(answer.get("points", {}).get("id", []) or [seen])
"""


def slowdown(database: Path, rounds: int, seconds: float) -> dict[str, float]:
    """How much slower outcomes are recorded while a page of the running campaign polls, in interleaved rounds.

    The stand-in for a search only computes made-up outcomes and records them one by one as fast as it can. Beside
    the rates, the processor time that the server takes per second of being polled: it does not depend on what else
    the machine is doing.
    """
    rng = np.random.default_rng(1)
    base = make_base()
    configurations = make_space().sample(rng, 4000)
    rates: dict[bool, list[float]] = {False: [], True: []}
    server_s = watched_s = 0.0
    with open_record(database) as record, serving(database) as (address, server):
        campaign_id = record.start_campaign(make_spec(budget=None))
        number = 0
        for turn in range(2 * rounds):
            watched = turn % 2 == 1
            url = f"{address}/campaigns/{campaign_id}/live"
            poller = subprocess.Popen([sys.executable, "-c", POLL, url]) if watched else None
            time.sleep(1.0)
            used, begun, done = processor_s(server), time.perf_counter(), 0
            while time.perf_counter() - begun < seconds:
                configuration = configurations[number % len(configurations)]
                trial = Trial(number, make_variant_record(configuration, base=base), outcome_of(configuration, rng))
                record.record_trial(campaign_id, replace(trial, worker="gpu 0"))
                number, done = number + 1, done + 1
            took = time.perf_counter() - begun
            rates[watched].append(done / took)
            if poller is not None:
                server_s, watched_s = server_s + processor_s(server) - used, watched_s + took
                poller.terminate()
                poller.wait()
        record.finish_campaign(campaign_id, "done", "measured")
    alone, watched_rate = statistics.median(rates[False]), statistics.median(rates[True])
    return {
        "recorded_per_s_alone": round(alone, 1),
        "recorded_per_s_watched": round(watched_rate, 1),
        "search_slowdown_percent": round(100 * (alone / watched_rate - 1), 2),
        "server_percent_of_one_core": round(100 * server_s / watched_s, 2),
    }


def processor_s(process: subprocess.Popen[str]) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--database", type=Path, help="keep the filled database here and use it if it exists")
    parser.add_argument("--visits", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = arguments.database or Path(folder) / "results.db"
        if not database.exists():
            fill(database, SIZES)
        open_record(database, upgrade=True).close()
        result: dict[str, Any] = {
            "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "trials": sum(SIZES),
            "campaigns": len(SIZES),
            "database_mib": round(database.stat().st_size / 2**20),
            "load_before": round(os.getloadavg()[0], 2),
        }
        with serving(database) as (address, _):
            result["list"] = paint_times(address, "/", arguments.visits)
            result["campaign_of_5000"] = paint_times(address, "/campaigns/1", arguments.visits)
        result["polling"] = slowdown(database, arguments.rounds, arguments.seconds)
    result["targets"] = TARGETS
    result["met"] = {
        "list_first_paint_ms": result["list"]["first_paint_ms"] < TARGETS["list_first_paint_ms"],
        "campaign_first_paint_ms": result["campaign_of_5000"]["first_paint_ms"] < TARGETS["campaign_first_paint_ms"],
        "search_slowdown_percent": result["polling"]["search_slowdown_percent"] < TARGETS["search_slowdown_percent"],
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if arguments.output:
        arguments.output.write_text(text)
    return 0 if all(result["met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
