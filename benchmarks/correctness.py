"""Is every phase right on this GPU? Defaults, champions and random configurations against float64, as JSON.

    python -m benchmarks.correctness --db r.db -o benchmarks/results/correctness_h200.json

Each phase is built for head sizes 64 and 128, fp16 and bf16, causal and full, and run on the plan's five shapes, on
lengths at which tiles overhang, on S_q != S_kv, large logits, constant rows and tiny values; three fresh seeds each.
The phases run side by side, each in a process of its own. Needs a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import secrets
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.report import PHASES, opening, write_report
from evo.base import find_base
from evo.inspect import bind_variant
from evo.outcome import Rejected
from evo.record import open_record
from evo.targets import LaunchError, build, make_target
from evo.variant import Variant
from evo.verify import Oracle, verify
from evo.workloads import find_workload

PLAN_SHAPES = ("tiny", "small", "medium", "mission", "multi_batch")
SEEDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phases", nargs="*", default=list(PHASES))
    parser.add_argument("--random", type=int, default=3, help="random configurations of each build, beside the default")
    parser.add_argument("--db", help="also the champions in this database")
    parser.add_argument("--out", "-o", type=Path, required=True)
    parser.add_argument("--only", help=argparse.SUPPRESS)  # the process of one phase
    options = parser.parse_args()
    if options.only:
        torch.set_num_threads(2)  # six of these processes run side by side
        print(json.dumps(check(options.only, options.random, options.db)))
        return
    command = [sys.executable, "-m", "benchmarks.correctness", "-o", str(options.out), "--random", str(options.random)]
    command += ["--db", options.db] if options.db else []
    running = [
        subprocess.Popen([*command, "--only", name], stdout=subprocess.PIPE, text=True) for name in options.phases
    ]
    report = opening("correctness", make_target("cuda")) | {"seeds": SEEDS, "phases": []}
    for name, process in zip(options.phases, running, strict=True):
        text = process.communicate()[0]
        line = text.strip().splitlines()[-1] if process.returncode == 0 and text.strip() else ""
        found = json.loads(line) if line else {"phase": name, "died": process.returncode}
        report["phases"].append(found)
        print({key: value for key, value in found.items() if key != "wrong"}, flush=True)
        for wrong in found.get("wrong", []):
            print("  WRONG", wrong, flush=True)
        write_report(options.out, report)


def check(name: str, random_count: int, db: str | None) -> dict[str, Any]:
    """One phase: how many builds were right on how many checks, the worst error as a share of what is allowed."""
    target, workload, rng = make_target("cuda"), find_workload("attention"), np.random.default_rng(secrets.randbits(32))
    facts, base = target.facts(), find_base(name)
    jobs: list[tuple[Any, str, Variant]] = []
    for head_dim, causal, dtype in itertools.product((64, 128), (False, True), base.dtypes):
        case = workload.case(f"1x2x64x{head_dim}", dtype=dtype, causal=causal)
        space = base.space({**facts.limits, **case.constants()})
        for kind, configuration in [
            ("default", space.default),
            *(("random", c) for c in space.sample(rng, random_count)),
        ]:
            variant = bind_variant(base, space, configuration, case, facts, target.toolchain())
            jobs.append((case, kind, variant))
    for variant in champions(name, db) if db else ():
        head_dim, dtype, causal = (variant.constants[key] for key in ("head_dim", "dtype", "causal"))
        jobs.append((workload.case(f"1x2x64x{head_dim}", dtype=dtype, causal=causal), "champion", variant))
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(build, [variant for *_, variant in jobs]))
    oracles: dict[Any, tuple[Oracle, list[int]]] = {}  # one set of fresh inputs for all builds of one kind
    started = time.perf_counter()
    report: dict[str, Any] = {"phase": name, "right": 0, "checks": 0, "worst": 0.0, "rejected": {}, "wrong": []}
    report["kinds"] = {kind: sum(job[1] == kind for job in jobs) for kind in ("default", "random", "champion")}
    for (case, kind, variant), built in zip(jobs, outcomes, strict=True):
        if isinstance(built, Rejected):
            key = f"{kind}: {built.reason}"
            report["rejected"][key] = report["rejected"].get(key, 0) + 1
            continue
        program = target.load(built, variant, workload)
        fresh = (Oracle(workload, "cuda", kept=100), [secrets.randbits(31) for _ in range(SEEDS)])
        oracle, seeds = oracles.setdefault(tuple(case.constants().items()), fresh)
        try:
            found = verify(program, built, oracle, matrix(workload, case), seeds)
        except LaunchError as error:
            raise SystemExit(f"{name}: {dict(variant.configuration)}: {error}") from None
        if isinstance(found, Rejected):
            about = {**case.constants(), **variant.configuration}
            report["wrong"].append({"kind": kind, "about": about, "reason": found.reason, "detail": found.detail})
            continue
        report["right"] += 1
        report["checks"] += len(found.errors)
        shares = [e.norm_error / e.norm_bound for e in found.errors if e.norm_bound > 0]
        report["worst"] = max(report["worst"], *shares)
    report["seconds"] = round(time.perf_counter() - started, 1)
    return report


def matrix(workload: Any, case: Any) -> list[tuple[Any, str]]:
    """The plan's shapes, then every trial and final case, in the dtype, head size and mask of `case`."""
    plan = []
    for shape in PLAN_SHAPES:
        named = workload.case(shape, dtype=case.dtype, causal=case.causal)
        plan.append((replace(named, head_dim=case.head_dim), "normal"))
    return [*plan, *workload.trial_cases(case)[1:], *workload.final_cases(case)]


def champions(name: str, db: str) -> list[Variant]:
    """First places of a phase in a database."""
    with open_record(db, create=False) as record:
        return [
            record.variant(elite.variant_key).variant()
            for elite in record.elites()
            if elite.place.base == name and elite.rank == 1
        ]


if __name__ == "__main__":
    main()
