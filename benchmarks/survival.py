"""Does a search survive its variants and its own death? Three studies on the host target, with JSON for the docs.

campaign: every variant of a space of which a tenth is hostile, each accounted for, with the driver's memory watched;
a test plays it too, and writes its report where EVO_SURVIVAL_REPORT names a file.
kills: one search whose driver is killed with SIGKILL at random moments and resumed each time.
seats: how soon a slot is back when a worker, a process above it or the seat itself is killed, with every core busy.

    python -m benchmarks.survival campaign --variants 2000 -o benchmarks/results/survival_campaign.json
    python -m benchmarks.survival kills --times 20 -o benchmarks/results/survival_kills.json
    python -m benchmarks.survival seats --times 10 -o benchmarks/results/survival_seats.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.report import show_report
from evo.fleet import Fleet
from evo.measure import Timing
from evo.outcome import Done, Rejected
from evo.provenance import git_state
from evo.seat import WorkerSpec
from evo.targets.host import HostTarget
from evo.targets.processor import cores
from tests.hostile.kit import CASE, Kit, actor_of, children_of, guard_of, nursery_of
from tests.hostile.searches import ROOT, Ground, ground
from tests.hostile.variants import FATES, SLOW, write_base

BUILD_S, RUN_S = 4, 3  # of quiet cores an honest variant takes a tenth of a second for each
QUICK = ("--case", "tiny", "--proposer", "random", "--no-proof", "--rounds", "30", "--db", "results.db")
KILLED = ("worker", "its parent", "nursery", "seat")
LIMITS = ("--build-timeout", str(BUILD_S), "--run-timeout", str(RUN_S))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("campaign", "kills", "seats"))
    parser.add_argument("--variants", type=int, default=2000)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", "-o", type=Path)
    options = parser.parse_args()
    with ground() as place:
        if options.study == "campaign":
            found = campaign(place, options.variants)
        else:
            found = kills(place, options) if options.study == "kills" else seats(place.folder, options.times)
    show_report(report_of(options.study, found), options.out)


def report_of(study: str, found: dict[str, Any]) -> dict[str, Any]:
    """What a study found, with its name and where it was played."""
    return {"study": f"survival_{study}", **found, "environment": _environment()}


def campaign(place: Ground, variants: int) -> dict[str, Any]:
    """Search a whole space of which a tenth is hostile, and account for every variant of it."""
    counts = shares(variants)
    hostile = sum(counts.values())
    base = write_base(place.folder, honest=variants - hostile, each=counts["crash"], slow=counts[SLOW[0]])
    started = time.time()
    driver = place.start("--base", str(base), *QUICK, *LIMITS, "--budget", str(2 * variants))
    memory: list[tuple[int, float]] = []
    heard: set[str] = set()
    while driver.poll() is None:
        time.sleep(2)
        if len(memory) % 8 == 0:  # a look at every process costs a part of a second
            heard.update(place.listening())
        if place.db.exists() and (used := _resident_mib(driver.pid)) and (done := _evaluated(place)):
            memory.append((done, used))
    settled_s, orphans = place.settle(30)
    trials = place.trials()
    fates: Counter[str] = Counter()
    unexpected: list[str] = []
    for trial in trials:
        hostility = json.loads(trial["configuration"])["hostility"]
        fate = f"{trial['stage']}: {trial['reason']}" if trial["stage"] else "measured"
        expected = ": ".join(FATES[hostility]) if hostility in FATES else "measured"
        fates[f"{hostility} -> {fate}"] += 1
        if fate != expected:
            unexpected.append(f"{trial['configuration']}: {fate}")
    recoveries = _recoveries(place)
    early = [used for done, used in memory if 0.1 * variants <= done <= 0.2 * variants]
    late = [used for done, used in memory if done >= 0.9 * variants]
    return {
        "variants": variants,
        "hostile": hostile,
        "exit_code": driver.returncode,
        "recorded": len(trials),
        "recorded_once": len({trial["configuration"] for trial in trials}),
        "fates": dict(sorted(fates.items())),
        "unexpected": unexpected,
        "seconds": round(time.time() - started),
        "recovery_s": recoveries,
        "driver_memory_mib": {
            "early": round(statistics.median(early), 1) if early else None,
            "late": round(statistics.median(late), 1) if late else None,
            "growth": round(statistics.median(late) / statistics.median(early) - 1, 4) if early and late else None,
            "samples": [[done, round(used, 1)] for done, used in memory[:: max(1, len(memory) // 50)]],
        },
        "longest_s": _longest(place),
        "listening_beyond_loopback": sorted(heard),
        "orphans": list(orphans.values()),
        "settled_s": round(settled_s, 1),
        "temporary_files": place.litter(),
        "integrity": place.rows("PRAGMA integrity_check")[0][0],
        "log_tail": place.log.splitlines()[-3:],
    }


def shares(variants: int) -> dict[str, int]:
    """How many there are of each hostility, a tenth in all: those that cost a time limit are a third of the others."""
    slow = max(1, round(variants / 250))
    each = max(1, (variants // 10 - slow * len(SLOW)) // (len(FATES) - len(SLOW)))
    return {hostility: slow if hostility in SLOW else each for hostility in FATES}


def kills(place: Ground, options: argparse.Namespace) -> dict[str, Any]:
    """Kill one search at random moments, from its first second to its promotion, and resume it every time."""
    rng = random.Random(options.seed)
    base = write_base(place.folder, honest=150, each=2)
    budget = 120
    first = ("--base", str(base), *QUICK, *LIMITS, "--budget", str(budget), "--seed", "3")
    events: list[dict[str, Any]] = []
    recorded: list[Any] = []
    while len(events) < options.times:
        driver = place.start(*first, *(("--resume",) if _unfinished(place) else ()))
        started = time.monotonic()
        _await_moment(place, driver, rng)
        if driver.poll() is not None:  # it was done before its moment came: the next one starts afresh
            recorded = _rows(place)
            continue
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        after_s = time.monotonic() - started
        settled_s, orphans = place.settle(30)
        now = _rows(place)
        events.append(
            {
                "after_s": round(after_s, 2),
                "outcomes": len(now),
                "lost": sum(was != is_now for was, is_now in zip(recorded, now, strict=False))
                + max(0, len(recorded) - len(now)),
                "orphans": list(orphans.values()),
                "settled_s": round(settled_s, 1),
                "temporary_files": place.litter(),
                "integrity": place.rows("PRAGMA integrity_check")[0][0] if place.db.exists() else "no file yet",
            }
        )
        print(events[-1], flush=True)
        recorded = now
    final = place.start(*first, *(("--resume",) if _unfinished(place) else ())).wait()
    settled_s, orphans = place.settle(30)
    counts = Counter((t["campaign_id"], t["configuration"]) for t in _trials(place))
    return {
        "times": options.times,
        "budget": budget,
        "kills": events,
        "final_exit_code": final,
        "campaigns": [list(row) for row in place.rows("SELECT id, state, seed, budget, end_reason FROM campaigns")],
        "outcomes": sum(counts.values()),
        "evaluated_twice": sum(count - 1 for count in counts.values()),
        "orphans": list(orphans.values()),
        "temporary_files": place.litter(),
        "integrity": place.rows("PRAGMA integrity_check")[0][0],
        "recovery_s": _recoveries(place),
    }


def seats(folder: Path, times: int) -> dict[str, Any]:
    """Kill what a run depends on, one kind of process after the other, while as many loops as cores are at work.

    A recovery ends when the next run, which waited behind the lost one, has a worker.
    """
    kit = Kit(folder)
    spec = WorkerSpec("host", "attention", CASE, Timing(launches=1, first_look=2, rounds=2), evaluate_s=600.0)
    hang, honest = kit.variant("hang"), kit.variant()
    binaries = {variant.key: kit.built(variant) for variant in (hang, honest)}
    recoveries: dict[str, list[float]] = {}
    fates: Counter[str] = Counter()
    with _busy(cores()), Fleet(spec, builders=1) as fleet:
        number = 0
        for what in KILLED:
            pause = 40 if what == "seat" else 5  # fifths of a second; a lost seat's standby needs one in its turn
            while len(recoveries.setdefault(what, [])) < times:
                if fleet.running() == 0:
                    fleet.submit_run(number, hang, binaries[hang.key], None)
                number += 1
                fleet.submit_run(number, honest, binaries[honest.key], None)
                for _ in range(pause):
                    fleet.wait(0.2)
                    time.sleep(0.2)
                killed_at = time.time()
                os.kill(_victim(what), signal.SIGKILL)
                while not (done := [d for d in _finished(fleet, fates) if d.number == number]):
                    pass
                recoveries[what].append(round(done[0].started_at - killed_at, 2))
                print(what, recoveries[what][-1], flush=True)
                number += 1
    return {
        "times": times,
        "busy_loops": cores(),
        "recovery_s": {
            what: {"count": len(found), "median": round(statistics.median(found), 2), "max": max(found), "all": found}
            for what, found in recoveries.items()
        },
        "fates": dict(sorted(fates.items())),
    }


def _finished(fleet: Fleet, fates: Counter[str]) -> list[Done]:
    done = fleet.wait(0.1)
    for each in done:
        result = each.result
        fates[result.fate if isinstance(result, Rejected) else "measured"] += 1
    return done


def _victim(what: str) -> int:
    """Pid of the process of the fleet's only seat that is to die."""
    if what == "seat":
        return actor_of()
    nursery = nursery_of()
    guard = guard_of(nursery)
    return {"worker": children_of(guard)[0], "its parent": guard, "nursery": nursery}[what]


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    """As many endless loops beside the fleet, as if others used the machine."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _await_moment(place: Ground, driver: subprocess.Popen[str], rng: random.Random) -> None:
    """A random moment: sometimes of the start, mostly soon after a random number of further outcomes."""
    if rng.random() < 0.25:
        time.sleep(rng.uniform(0.2, 12))
        return
    wanted = _evaluated(place) + rng.randint(1, 12)
    deadline = time.monotonic() + 300
    while driver.poll() is None and _evaluated(place) < wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 1.5))


def _trials(place: Ground) -> list[dict[str, Any]]:
    return place.trials() if _tables(place) else []


def _rows(place: Ground) -> list[Any]:
    """What identifies every recorded outcome."""
    return [(t["campaign_id"], t["number"], t["configuration"], t["time_us"]) for t in _trials(place)]


def _evaluated(place: Ground) -> int:
    return int(place.rows("SELECT count(*) FROM trials")[0][0]) if _tables(place) else 0


def _tables(place: Ground) -> bool:
    return place.db.exists() and bool(place.rows("SELECT 1 FROM sqlite_master WHERE name = 'trials'"))


def _unfinished(place: Ground) -> bool:
    return _tables(place) and bool(place.rows("SELECT 1 FROM campaigns WHERE state != 'done'"))


def _recoveries(place: Ground) -> dict[str, Any]:
    """Seconds until the slot was back, by what took its worker down."""
    by_reason: dict[str, list[float]] = {}
    for (text,) in place.rows("SELECT data FROM events WHERE kind = 'worker_replaced'"):
        data = json.loads(text)
        by_reason.setdefault(data["reason"], []).append(data["recovery_s"])
    return {
        reason: {"count": len(times), "median": round(statistics.median(times), 2), "max": round(max(times), 2)}
        for reason, times in sorted(by_reason.items())
    }


def _longest(place: Ground) -> dict[str, float]:
    """The longest that a measured variant took to build and to verify, to be held against the limits."""
    (longest,) = place.rows("SELECT max(build_s), max(verify_s), max(measure_s) FROM trials WHERE stage IS NULL")
    return {name: round(took_s, 2) for name, took_s in zip(("build", "verify", "measure"), longest, strict=True)}


def _resident_mib(pid: int) -> float | None:
    try:
        match = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match.group(1)) / 1024 if match else None


def _environment() -> dict[str, Any]:
    target, state = HostTarget(), git_state(ROOT)
    return {
        "device": target.facts().name,
        "cores": cores(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "toolchain": target.toolchain(),
        "python": platform.python_version(),
        "commit": state.sha + ("-dirty" if state.dirty else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "build_timeout_s": BUILD_S,
        "run_timeout_s": RUN_S,
    }


if __name__ == "__main__":
    main()
