"""Search the phases on the mission case and the last ones on every case; time defaults and champions in one run.

    python -m benchmarks.kernels --phase-budget 200 --case-budget 400 --db r.db -o benchmarks/results/kernels_h200.json

Writes, per case: each default and champion (p50 with interval, warm and cold, ratio to the best backend of PyTorch),
PyTorch's backends, and how the search went. Needs a GPU.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.report import CASES, PHASES, write_report
from evo.errors import InputError
from evo.measure import gain_interval, median_interval
from evo.outcome import Contest, Rejected
from evo.provenance import describe_environment
from evo.record import open_record
from evo.sanitize import sanitize
from evo.setting import SearchRequest, resolve
from evo.tune import bind, entries_of, raise_fleet, search_with
from evo.workloads import find_workload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phases", nargs="*", default=list(PHASES))
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--case-bases", nargs="*", default=["phase5"])
    parser.add_argument("--phase-budget", type=int, default=200)
    parser.add_argument("--case-budget", type=int, default=400)
    parser.add_argument(
        "--budget", action="append", default=[], metavar="NAME=N", help="of one case, or one phase on mission"
    )
    parser.add_argument("--no-sanitize", dest="sanitize", action="store_false", help="no sanitizer on the champions")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--proposer", default="evo")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--db", default="results.db")
    parser.add_argument("--out", "-o", type=Path, required=True)
    options = parser.parse_args()
    own = {case: int(number) for case, _, number in (text.partition("=") for text in options.budget)}
    started = time.time()

    def say(line: str) -> None:
        print(f"[{time.time() - started:6.1f}] {line}", flush=True)

    cases: dict[str, Any] = {}
    champions: dict[str, list[Any]] = {}
    report: dict[str, Any] = {"study": "kernels", "cases": cases}
    first = _request("phase4", "mission", options, options.phase_budget)
    with open_record(options.db) as record, raise_fleet(first, resolve(first)) as fleet:
        ready = fleet.ready
        environment = describe_environment(ready.facts, ready.toolchain, ready.torch, Path(__file__).parent)
        report |= {"environment": asdict(environment), "date": datetime.now(UTC).isoformat(timespec="seconds")}
        for case in options.cases:
            mission = case == "mission"
            bases = options.phases if mission else options.case_bases
            budget = options.phase_budget if mission else options.case_budget
            most = own.get(case, options.case_budget)
            budgets = {base: most if base in options.case_bases else own.get(base, budget) for base in bases}
            fleet.turn_to(resolve(_request(bases[0], case, options, budget)).case)
            cases[case], entries = _one_case(fleet, record, case, budgets, options, say)
            champions |= {case: entries}
            write_report(options.out, report)
    if options.sanitize:
        report["sanitizer"] = _sanitized(champions, say)
        write_report(options.out, report)
    say(f"wrote {options.out}")


def _request(base: str, case: str, options: argparse.Namespace, budget: int) -> SearchRequest:
    causal = case.endswith("-causal")
    return SearchRequest(
        base=base,
        case=case.removesuffix("-causal"),
        causal=causal,
        target="cuda",
        proposer=options.proposer,
        budget=budget,
        seed=options.seed,
        db=options.db,
        rounds=options.rounds,
        proof=base == "phase4" and case == "mission",
        sanitize=False,  # not at every promotion: at the end, on all champions side by side
    )


def _one_case(
    fleet: Any, record: Any, case: str, budgets: dict[str, int], options: argparse.Namespace, say: Any
) -> tuple[dict[str, Any], list[Any]]:
    """Search every base on one case, then time all defaults and champions together; the champions with their builds."""
    labels: dict[str, list[str]] = {}
    variants = {}
    searches: dict[str, Any] = {}
    for base, budget in budgets.items():
        request = _request(base, case, options, budget)
        setting = resolve(request)
        try:
            result = search_with(fleet, request, setting, record)
        except InputError as error:
            say(f"{case} {base}: {error}")
            continue
        progress = result.progress
        searches[base] = {"campaign": result.campaign_id, "evaluated": progress.evaluated, "valid": progress.valid}
        searches[base] |= {"per_s": progress.per_s, "rejected": dict(progress.rejected), "best_us": progress.best_us}
        binding = bind(setting, fleet)
        default = binding.variant(binding.space.default)
        variants[default.key] = default
        labels.setdefault(default.key, []).append(f"{base} default")
        if result.crowning and result.crowning.reigning:
            champion = record.variant(result.crowning.reigning[0]).variant()
            variants[champion.key] = champion
            labels.setdefault(champion.key, []).append(f"{base} champion")
        shown = f"{progress.best_us:.2f} us" if progress.best_us else "nothing valid"
        say(f"{case} {base}: {progress.valid} of {progress.evaluated} valid, {shown}, {progress.per_s:.1f}/s")
    entries = entries_of(fleet, list(variants.values()))
    contest = fleet.contest(entries, options.rounds)
    if not isinstance(contest, Contest):
        say(f"{case}: contest failed: {contest}")
        return {"searches": searches, "failed": asdict(contest)}, []
    for key, rejected in contest.rejected.items():
        say(f"{case} {labels[key]}: {rejected.fate}: {rejected.detail[:200]}")
    rows = _rows(contest, labels, variants, dict(entries_resources(entries)))
    for row in rows:
        say(f"{case:15} {row['l2']:5} {row['contender']:22} {row['p50_us']:9.3f} us  {row['ratio']:.3f}")
    report = {"searches": searches, "times": rows, "rejected": {k: asdict(r) for k, r in contest.rejected.items()}}
    return report, [entry for entry in entries if any("champion" in label for label in labels[entry[0].key])]


def _sanitized(champions: dict[str, list[Any]], say: Any) -> dict[str, dict[str, str]]:
    """What compute-sanitizer says of the champions of each case, by base; all side by side."""

    def one(case: str, variant: Any, built: Any) -> str:
        about = find_workload("attention").case(case.removesuffix("-causal"), causal=case.endswith("-causal"))
        found = sanitize(variant, built, "attention", about)
        return f"{found.reason}: {found.detail}" if isinstance(found, Rejected) else found

    jobs = [(case, *entry) for case, entries in champions.items() for entry in entries]
    words: dict[str, dict[str, str]] = {case: {} for case in champions}
    with ThreadPoolExecutor(len(jobs) or 1) as pool:
        for (case, variant, _), said in zip(jobs, pool.map(lambda job: one(*job), jobs), strict=True):
            words[case][variant.base] = said
            say(f"{case} {variant.base} champion: {said[:300]}")
    return words


def entries_resources(entries: list[tuple[Any, Any]]) -> list[tuple[str, dict[str, int]]]:
    """What the assembler said of each variant, by key."""
    return [(variant.key, asdict(built.resources)) for variant, built in entries]


def _rows(
    contest: Contest, labels: dict[str, list[str]], variants: dict[str, Any], resources: dict[str, Any]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for l2, times in (("warm", contest.warm_us), ("cold", contest.cold_us)):
        theirs = {name: samples for name, samples in times.items() if name.startswith("baseline:")}
        best = min(theirs, key=lambda name: median_interval(theirs[name]).median)
        for name, samples in times.items():
            time_us, ratio = median_interval(samples), gain_interval(samples, theirs[best])
            row = {"l2": l2, "p50_us": time_us.median, "low_us": time_us.low, "high_us": time_us.high}
            row |= {"ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high}
            row |= {"against": best.removeprefix("baseline:")}
            if name in labels:
                row |= {"configuration": dict(variants[name].configuration), "resources": resources[name], "key": name}
            rows += [{"contender": label, **row} for label in labels.get(name, [name.removeprefix("baseline:")])]
    return rows


if __name__ == "__main__":
    main()
