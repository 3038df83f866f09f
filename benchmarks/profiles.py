"""Where the time of each phase's champion goes, read by Nsight Compute, as JSON.

    python -m benchmarks.profiles --db r.db -o benchmarks/results/profiles_h200.json

Needs a GPU, ncu, and a database with elites of the phases on the mission case.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.report import PHASES, opening, write_report
from evo.errors import InputError
from evo.outcome import Rejected
from evo.profile import Subject, profile
from evo.record import open_record
from evo.targets import build, make_target
from evo.workloads import find_workload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", default="results.db")
    parser.add_argument("--case", default="mission")
    parser.add_argument("--out", "-o", type=Path, required=True)
    options = parser.parse_args()
    case = find_workload("attention").case(options.case, dtype="float16")
    report = opening("profiles", make_target("cuda")) | {"case": options.case, "phases": {}}
    with open_record(options.db, create=False) as record:
        places = {e.place.base: e for e in record.elites() if e.rank == 1 and e.place.case_name == options.case}
        variants = {name: record.variant(places[name].variant_key).variant() for name in PHASES if name in places}
    for name, variant in variants.items():
        built = build(variant)
        if isinstance(built, Rejected):
            print(f"{name}: {built.reason}")
            continue
        try:
            counters = profile(Subject(variant, built, "attention", case))
        except InputError as error:
            raise SystemExit(str(error)) from None
        report["phases"][name] = {"configuration": dict(variant.configuration), "counters": counters}
        print(name, " ".join(f"{word}={value:.2f}" for word, value in counters.items()), flush=True)
    write_report(options.out, report)


if __name__ == "__main__":
    main()
