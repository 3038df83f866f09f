"""The commands about one variant: build, check, time, profile and reproduce it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from evo.cli_options import (
    NOTHING_VALID,
    ArchOption,
    BaseOption,
    CaseOption,
    CausalOption,
    ChosenKnobOption,
    DbOption,
    DtypeOption,
    JsonOption,
    KnobOption,
    answer,
    check_count,
    print_json,
)
from evo.errors import InputError


def build(
    base: BaseOption,
    case: CaseOption = "",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    arch: ArchOption = "",
    knob: KnobOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build one variant and show registers, spills and shared memory. Needs no GPU.

    Example: evo build --base phase4 --arch sm_89 -k tile_q=64
    """
    from evo import present
    from evo.inspect import build_one

    document = build_one(base, case=case, dtype=dtype, causal=causal, arch=arch, knobs=knob or [])
    answer(document, present.print_build, as_json=as_json)
    if document["rejected"]:
        sys.exit(NOTHING_VALID)


def verify(
    base: BaseOption = "",
    case: CaseOption = "",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    knob: KnobOption = None,
    seeds: Annotated[int, typer.Option(help="Fresh seeds per case.")] = 3,
    elites: Annotated[
        bool, typer.Option("--elites", help="Every promoted variant instead, as after a new driver; demote what fails.")
    ] = False,
    db: DbOption = "results.db",
    as_json: JsonOption = False,
) -> None:
    """Check one variant, or all promoted ones, against the float64 oracle on every case, fresh inputs each time.

    Example: evo verify --base cpu_attention -k exp=polynomial
    """
    from evo import present
    from evo.inspect import verify_one

    check_count("--seeds", seeds)
    if elites:
        _verify_elites(base, seeds=seeds, db=db, as_json=as_json)
        return
    if not base:
        raise InputError("--base: expected a base's name, or --elites")
    document = verify_one(base, case=case, dtype=dtype, causal=causal, knobs=knob or [], seeds=seeds)
    answer(document, present.print_verification, as_json=as_json)
    if document["rejected"]:
        sys.exit(NOTHING_VALID)


def _verify_elites(base: str, *, seeds: int, db: str, as_json: bool) -> None:
    from evo import present
    from evo.recheck import verify_elites
    from evo.watch import watching

    with watching(quiet=as_json) as watcher:
        verdicts = [asdict(verdict) for verdict in verify_elites(db=db, base=base, seeds=seeds, say=watcher.say)]
    if as_json:
        print_json(verdicts)
    else:
        present.print_rows([{**row, "variant": row["variant"][:12]} for row in verdicts], empty="No elites")
    if any(verdict["fate"] == "demoted" for verdict in verdicts):
        sys.exit(NOTHING_VALID)


def replay_trial(
    trial: Annotated[int, typer.Argument(help="A trial's id, as `evo runs CAMPAIGN` lists them.")],
    within: Annotated[float, typer.Option(help="Largest change of the median, in percent, that still counts.")] = 10.0,
    db: DbOption = "results.db",
    as_json: JsonOption = False,
) -> None:
    """Rebuild and re-measure one recorded variant from the database alone: does it reproduce?

    Example: evo replay-trial 17
    """
    from evo import present
    from evo.recheck import replay_trial as run

    if not 0 <= within <= 1000:
        raise InputError(f"--within {within:g}: expected 0 to 1000 percent")
    document = run(trial, db=db, within=within / 100)
    answer(document, present.print_reproduction, as_json=as_json)
    if not document["reproduces"]:
        sys.exit(NOTHING_VALID)


def bench(
    base: BaseOption,
    case: CaseOption = "mission",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    iters: Annotated[int, typer.Option(help="Rounds; each times every contender once.")] = 100,
    knob: ChosenKnobOption = None,
    db: DbOption = "results.db",
    as_json: JsonOption = False,
) -> None:
    """Time one variant beside PyTorch's backends: p50 with its interval.

    Example: evo bench --base phase4 --shape mission --iters 100
    """
    from evo import present
    from evo.inspect import bench_one

    check_count("--iters", iters, 5)
    document = bench_one(base, case=case, dtype=dtype, causal=causal, knobs=knob or [], iters=iters, db=db)
    answer(document, present.print_bench, as_json=as_json)
    if document["rejected"]:
        sys.exit(NOTHING_VALID)


def profile(
    base: BaseOption,
    case: CaseOption = "mission",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    knob: ChosenKnobOption = None,
    db: DbOption = "results.db",
    as_json: JsonOption = False,
) -> None:
    """Read Nsight Compute's counters of one variant: tensor pipe, stalls, bank conflicts, occupancy, bandwidth.

    Example: evo profile --base phase5
    """
    from evo import present
    from evo.inspect import profile_one

    document = profile_one(base, case=case, dtype=dtype, causal=causal, knobs=knob or [], db=db)
    answer(document, present.print_profile, as_json=as_json)
