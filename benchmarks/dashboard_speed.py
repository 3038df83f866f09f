"""Measures the dashboard over 100,000 trials: first paint in a real browser, and what polling costs a search.

python benchmarks/dashboard_speed.py --output benchmarks/results/dashboard_speed.json

The trials are made up, not measured: only the dashboard is timed here. Needs Debian's chromium and playwright.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from evo.provenance import git_state  # noqa: E402
from evo.record import Interval, Origin, Trial, open_record  # noqa: E402
from evo.targets.host import HostTarget  # noqa: E402
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


# A page that watches a campaign, as static/page.js: new points every 1.8 s, the lists every 6 s, the analysis every
# 8 s or less often if it takes long. "on" begins as a page is opened; the points of that are not polling.
PAGE = """
import json, select, sys, time, urllib.request
site, campaign = sys.argv[1], sys.argv[2]
def get(path):
    return json.load(urllib.request.urlopen(site + path))
watching = False
while True:
    pause = max(0.0, due - time.monotonic()) if watching else None
    if select.select([sys.stdin], [], [], pause)[0]:
        watching = sys.stdin.readline().strip() == "on"
        if watching:
            points = get(f"/api/campaigns/{campaign}/points")
            get(f"/api/campaigns/{campaign}/analysis")
            get(f"/api/campaigns/{campaign}/importance")
            seen, evaluated = points["id"][-1] if points["id"] else 0, -1
            analysed = listed = time.monotonic()
            rest, due = 8.0, time.monotonic() + 1.8
        print("ready", flush=True)
        continue
    begun = time.monotonic()
    whole = begun - listed > 6
    listed = begun if whole else listed
    news = get(f"/campaigns/{campaign}/live?after={seen}&evaluated={evaluated}&whole={str(whole).lower()}")
    evaluated, seen = news["evaluated"], max(news.get("points", {}).get("id") or [seen])
    if time.monotonic() - analysed > rest:
        again = time.monotonic()
        get(f"/api/campaigns/{campaign}/analysis")
        get(f"/api/campaigns/{campaign}/importance")
        analysed = time.monotonic()
        rest = max(8.0, 40 * (analysed - again))
    due = begun + 1.8
"""


def build_forever(results: Any, iterations: int) -> None:
    """A builder's stand-in: a fixed amount of work per variant, for ever."""
    seed = b"variant"
    while True:
        seed = hashlib.pbkdf2_hmac("sha256", seed, b"build", iterations)
        results.put(seed)


def slowdown(database: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """How much slower a search is while a page polls its campaign, in pairs of windows one after the other.

    The stand-in for a search keeps every core busy with builds, as compilers do, and records each variant when it is
    built. The slowdown is the median over pairs of (rate alone / rate watched) - 1, with its bootstrap interval.
    Beside it the processor time that the server takes while it is polled, as a share of the whole machine: what it
    takes, builders cannot have, and it does not depend on what else the machine is doing.
    """
    rng = np.random.default_rng(1)
    cores = os.cpu_count() or 1
    base = make_base()
    variants = [(c, make_variant_record(c, base=base)) for c in make_space().sample(rng, 4000)]
    results: Any = multiprocessing.Queue(maxsize=2 * cores)
    builders = [
        multiprocessing.Process(target=build_forever, args=(results, 120_000), daemon=True) for _ in range(cores)
    ]
    pairs: list[tuple[float, float]] = []
    server_s = watched_s = 0.0
    with open_record(database) as record, serving(database) as (address, server):
        campaign_id = record.start_campaign(make_spec(budget=None))
        page = subprocess.Popen(
            [sys.executable, "-c", PAGE, address, str(campaign_id)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for builder in builders:
            builder.start()
        number = 0

        def window() -> float:
            """Variants recorded per second."""
            nonlocal number
            begun, first = time.perf_counter(), number
            while time.perf_counter() - begun < seconds:
                results.get()
                configuration, variant = variants[number % len(variants)]
                record.record_trial(campaign_id, Trial(number, variant, outcome_of(configuration, rng), worker="gpu 0"))
                number += 1
            return (number - first) / (time.perf_counter() - begun)

        def turn(page_is: str) -> float:
            nonlocal server_s, watched_s
            assert page.stdin is not None
            assert page.stdout is not None
            print(page_is, file=page.stdin, flush=True)
            page.stdout.readline()
            used, begun = processor_s(server), time.perf_counter()
            rate = window()
            if page_is == "on":
                server_s += processor_s(server) - used
                watched_s += time.perf_counter() - begun
            return rate

        window()  # the first also starts what starts once
        turn("on")
        server_s = watched_s = 0.0
        for pair in range(rounds):
            order = ("off", "on") if pair % 2 else ("on", "off")
            rates = {page_is: turn(page_is) for page_is in order}
            pairs.append((rates["off"], rates["on"]))
        for builder in builders:
            builder.terminate()
        page.terminate()
        page.wait()
        record.finish_campaign(campaign_id, "done", "measured")
    ratios = np.array([alone / watched for alone, watched in pairs])
    drawn = np.median(rng.choice(ratios, (4000, len(ratios))), axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    found = {"": np.median(ratios), "_low": low, "_high": high}
    return {
        "pairs": rounds,
        "window_s": seconds,
        "recorded": number,
        "recorded_per_s_alone": round(statistics.median(alone for alone, _ in pairs), 1),
        "recorded_per_s_watched": round(statistics.median(watched for _, watched in pairs), 1),
        **{f"search_slowdown_percent{name}": round(100 * (float(ratio) - 1), 2) for name, ratio in found.items()},
        "server_percent_of_the_machine": round(100 * server_s / watched_s / cores, 2),
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
    parser.add_argument("--rounds", type=int, default=10, help="pairs of windows")
    parser.add_argument("--seconds", type=float, default=12.0, help="of one window")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = arguments.database or Path(folder) / "results.db"
        if not database.exists():
            fill(database, SIZES)
        open_record(database, upgrade=True).close()
        state = git_state(ROOT)
        result: dict[str, Any] = {
            "machine": {"processor": HostTarget().facts().name, "cores": os.cpu_count()},
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "commit": state.sha,
            "dirty": state.dirty,
            "trials": sum(SIZES),
            "campaigns": len(SIZES),
            "database_mib": round(database.stat().st_size / 2**20),
            "load_before": round(os.getloadavg()[0], 2),
        }
        with serving(database) as (address, _):
            result["list"] = paint_times(address, "/", arguments.visits)
            result["campaign_of_5000"] = paint_times(address, "/campaigns/1", arguments.visits)
        result["polling"] = slowdown(database, arguments.rounds, arguments.seconds)
    result["load_after"] = round(os.getloadavg()[0], 2)
    result["targets"] = TARGETS
    found = {
        "list_first_paint_ms": result["list"]["first_paint_ms"],
        "campaign_first_paint_ms": result["campaign_of_5000"]["first_paint_ms"],
        "search_slowdown_percent": result["polling"]["search_slowdown_percent"],
    }
    result["met"] = {name: value < TARGETS[name] for name, value in found.items()}
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if arguments.output:
        arguments.output.write_text(text)
    return 0 if all(result["met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
