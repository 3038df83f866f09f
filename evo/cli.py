"""The command line: parse, call, print. Heavy imports happen inside the commands, so that --help is quick."""

from __future__ import annotations

import json
import re
import signal
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from evo.cli_runs import dashboard, report, runs_app
from evo.errors import InputError

if TYPE_CHECKING:
    from evo.tune import SearchRequest

app = typer.Typer(
    name="evo",
    help="Tune templated GPU kernels: breed variants, measure them on a fleet, promote what is provably better.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
)
bases_app = typer.Typer(help="The kernels that can be tuned.", no_args_is_help=True)
db_app = typer.Typer(help="Care of results.db.", no_args_is_help=True)
app.add_typer(bases_app, name="bases")
app.add_typer(db_app, name="db")
app.add_typer(runs_app, name="runs")
app.command()(dashboard)
app.command()(report)

DONE, NOTHING_VALID, BAD_INPUT = 0, 1, 2

BaseOption = Annotated[str, typer.Option("--base", "-b", help="A base by name (`evo bases list`) or its YAML file.")]
CaseOption = Annotated[str, typer.Option("--case", "--shape", help="mission, tiny, ... or BxHxSxD, BxHxSq:SkvxD.")]
DtypeOption = Annotated[str, typer.Option(help="float16, bfloat16 or float32; empty: the base's first.")]
CausalOption = Annotated[bool, typer.Option("--causal", help="With the causal mask.")]
DbOption = Annotated[str, typer.Option("--db", help="Results: a SQLite file or any SQLAlchemy URL.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
ArchOption = Annotated[str, typer.Option(help="Build for this architecture, e.g. sm_89; empty: this device's.")]


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    try:
        app(standalone_mode=True)
    except InputError as error:
        _fail(str(error), BAD_INPUT)


def _fail(message: str, code: int) -> None:
    print(f"evo: {message}", file=sys.stderr)
    sys.exit(code)


def _end_cleanly(*_: object) -> NoReturn:
    """Ctrl-C or a request to terminate, once: what is under way is then finished and recorded undisturbed."""
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_cleanly_on_signals() -> None:
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, _end_cleanly)


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, default=str))


def parse_duration(text: str) -> float | None:
    """ "90", "90s", "10m", "1.5h" -> seconds; empty -> None. Raises: InputError."""
    if not text:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None:
        raise InputError(f"--time-limit {text}: expected a time such as 90s, 10m or 1h")
    seconds = float(match.group(1)) * {"": 1, "s": 1, "m": 60, "h": 3600}[match.group(2)]
    if seconds <= 0:
        raise InputError(f"--time-limit {text}: expected more than 0 seconds")
    return seconds


@app.command()
def search(
    base: BaseOption = "",
    case: CaseOption = "",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    target: Annotated[str, typer.Option(help="auto, cuda, host or replay.")] = "auto",
    proposer: Annotated[str, typer.Option(help="evo, random, tpe, cmaes, nsgaii, gp or optuna:NAME.")] = "evo",
    budget: Annotated[int | None, typer.Option(help="Variants to evaluate.", show_default="200")] = None,
    time_limit: Annotated[str, typer.Option(help="Stop after this time: 90s, 10m, 1h.")] = "",
    seed: Annotated[int, typer.Option(help="Of the proposer: the same seed and outcomes, the same proposals.")] = 0,
    db: DbOption = "results.db",
    recording: Annotated[Path | None, typer.Option(help="Play this recording (ours, Kernel Tuner's, T4).")] = None,
    ray_address: Annotated[str, typer.Option(help="Join this Ray cluster instead of starting one here.")] = "",
    gpu_type: Annotated[str, typer.Option(help="Use only GPUs of this type in the cluster, e.g. L4.")] = "",
    patience: Annotated[
        int | None, typer.Option(help="End after so many evaluations that promise no gain above the noise.")
    ] = None,
    control: Annotated[str, typer.Option(help="random: a share of the trials is random, to compare with.")] = "",
    control_share: Annotated[
        float | None, typer.Option(help="Share of the trials for --control.", show_default="0.2")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this base's unfinished campaign: its budget, proposer, seed.")
    ] = False,
    rounds: Annotated[int, typer.Option(help="Rounds of the final comparison.")] = 40,
    allow_dead_knobs: Annotated[
        bool, typer.Option("--allow-dead-knobs", help="Search even if a knob changes nothing.")
    ] = False,
    proof: Annotated[
        bool, typer.Option(help="First prove that every knob is live and that wrong kernels are caught.")
    ] = True,
    sanitize: Annotated[
        bool, typer.Option(help="Run compute-sanitizer on what is to be promoted, where it is installed.")
    ] = True,
    build_timeout: Annotated[float, typer.Option(help="Seconds for one compilation.")] = 60.0,
    run_timeout: Annotated[float, typer.Option(help="Seconds for one variant's verification and timing.")] = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Search a base for its fastest right variant, and promote the best three.

    Example: evo search --base phase4 --budget 300
    """
    from evo import present
    from evo.tune import SearchRequest
    from evo.tune import search as run

    if not base and recording is None:
        raise InputError("--base: expected a base's name; `evo bases list` shows them")
    if budget is not None and budget < 1:
        raise InputError(f"--budget {budget}: expected at least 1")
    if seed < 0:
        raise InputError(f"--seed {seed}: expected 0 or more")
    if patience is not None and patience < 1:
        raise InputError(f"--patience {patience}: expected at least 1")
    if rounds < 5:
        raise InputError(f"--rounds {rounds}: expected at least 5")
    for option, seconds in (("--build-timeout", build_timeout), ("--run-timeout", run_timeout)):
        if not 0 < seconds < 86400:
            raise InputError(f"{option} {seconds:g}: expected more than 0 seconds and less than a day")
    request = SearchRequest(
        base=base,
        case=case,
        dtype=dtype,
        causal=causal,
        target=target,
        proposer=proposer,
        budget=200 if budget is None else budget,
        time_limit_s=parse_duration(time_limit),
        seed=seed,
        db=db,
        recording=recording,
        ray_address=ray_address or None,
        gpu_type=gpu_type or None,
        resume=resume,
        rounds=rounds,
        allow_dead_knobs=allow_dead_knobs,
        proof=proof,
        sanitize=sanitize,
        build_timeout_s=build_timeout,
        run_timeout_s=run_timeout,
        own_budget=budget is None,
        patience=patience,
        control_share=_parse_control(control, control_share),
    )
    if not resume:
        request = _offer_resume(request, ask=not as_json and sys.stdin.isatty() and sys.stdout.isatty())
    _end_cleanly_on_signals()
    with present.watcher(quiet=as_json) as watcher:
        result = run(request, watch=watcher.watch, say=watcher.say)
    if as_json:
        _print_json(present.search_document(result))
    else:
        present.print_search(result)
    if result.progress.valid == 0:
        sys.exit(NOTHING_VALID)


def _parse_control(control: str, share: float | None) -> float | None:
    """The share of the trials that random search proposes; None without a control arm. Raises: InputError."""
    if control not in ("", "random"):
        raise InputError(f"--control {control}: expected random")
    if share is not None and not control:
        raise InputError(f"--control-share {share:g}: expected --control random with it")
    if share is not None and not 0 < share < 1:
        raise InputError(f"--control-share {share:g}: expected more than 0 and less than 1")
    return (0.2 if share is None else share) if control else None


def _offer_resume(request: SearchRequest, *, ask: bool) -> SearchRequest:
    """An unfinished campaign of the same base and case: ask whether to go on with it, or say how to."""
    from evo.tune import find_unfinished

    found = find_unfinished(request)
    if found is None:
        return request
    of = f" of {found.budget}" if found.budget else ""
    words = (
        f"campaign {found.id} of {found.base}, case {found.case_name}, is unfinished ({found.evaluated}{of} evaluated)"
    )
    if not ask:
        print(f"evo: {words}; the same command with --resume goes on with it", file=sys.stderr)
        return request
    return replace(request, resume=typer.confirm(f"{words[0].upper()}{words[1:]}. Go on with it?", default=True))


@bases_app.command("list")
def bases_list(as_json: JsonOption = False) -> None:
    """List the bases.

    Example: evo bases list
    """
    from evo import present
    from evo.base import base_paths, load_base

    rows = []
    for name, path in base_paths().items():
        base = load_base(path)
        rows.append(
            {
                "name": name,
                "target": base.language,
                "workload": base.workload,
                "knobs": len(base.knobs),
                "doc": base.doc,
            }
        )
    if as_json:
        _print_json(rows)
    else:
        present.print_rows(rows)


@bases_app.command("show")
def bases_show(
    name: Annotated[str, typer.Argument(help="A base's name or YAML.")],
    case: CaseOption = "",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    arch: Annotated[str, typer.Option(help="Device facts for the rules.")] = "sm_89",
    as_json: JsonOption = False,
) -> None:
    """Show a base's knobs, rules and number of admissible configurations.

    Example: evo bases show phase4 --arch sm_90
    """
    from evo import present
    from evo.inspect import describe_base

    document = describe_base(name, case=case, dtype=dtype, causal=causal, arch=arch)
    if as_json:
        _print_json(document)
    else:
        present.print_base(document)


@bases_app.command("check")
def bases_check(
    name: Annotated[str, typer.Argument(help="A base's name or YAML.")],
    case: CaseOption = "",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    arch: Annotated[str, typer.Option(help="Build for this architecture.")] = "sm_89",
    places: Annotated[int, typer.Option(help="Configurations around which values are compared.")] = 6,
    as_json: JsonOption = False,
) -> None:
    """Prove that every value of every knob changes the binary; name dead knobs and duplicate programs.

    Example: evo bases check phase4 --arch sm_90
    """
    from evo import present
    from evo.inspect import check_base

    report = check_base(name, case=case, dtype=dtype, causal=causal, arch=arch, places=places)
    if as_json:
        _print_json(asdict(report))
    else:
        present.print_live(report)
    if not report.holds:
        sys.exit(NOTHING_VALID)


@app.command()
def build(
    base: BaseOption,
    case: CaseOption = "",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    arch: ArchOption = "",
    knob: Annotated[list[str] | None, typer.Option("--knob", "-k", help="name=value; the rest keep defaults.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Build one variant and show registers, spills and shared memory. Needs no GPU.

    Example: evo build --base phase4 --arch sm_89 -k tile_q=64
    """
    from evo import present
    from evo.inspect import build_one

    document = build_one(base, case=case, dtype=dtype, causal=causal, arch=arch, knobs=knob or [])
    if as_json:
        _print_json(document)
    else:
        present.print_build(document)
    if document["rejected"]:
        sys.exit(NOTHING_VALID)


@app.command()
def elites(
    base: Annotated[str, typer.Option("--base", "-b", help="Only this base.")] = "",
    db: DbOption = "results.db",
    history: Annotated[bool, typer.Option("--history", help="Also those of before.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the promoted variants, the best three per base, case, dtype and architecture.

    Example: evo elites --base phase4
    """
    from evo import present
    from evo.record import open_record

    with open_record(db, create=False) as record:
        rows = [present.elite_row(elite) for elite in record.elites(base=base or None, history=history)]
    if as_json:
        _print_json(rows)
    else:
        hint = "No elites yet: a search promotes what holds in its final comparison"
        present.print_rows(
            rows, empty=hint, hide=("configuration", "since", "until") if not history else ("configuration",)
        )


@app.command()
def promote(
    campaign: Annotated[int, typer.Argument(help="A campaign's number.")],
    db: DbOption = "results.db",
    rounds: Annotated[int, typer.Option(help="Rounds of the comparison.")] = 40,
    ray_address: Annotated[str, typer.Option(help="Join this Ray cluster.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Re-measure a campaign's best against the incumbent and the baselines; crown or refuse.

    Example: evo promote 3 --rounds 100
    """
    from evo import present
    from evo.tune import promote_campaign

    if rounds < 5:
        raise InputError(f"--rounds {rounds}: expected at least 5")
    _end_cleanly_on_signals()
    with present.watcher(quiet=as_json) as watcher:
        result = promote_campaign(campaign, db=db, rounds=rounds, ray_address=ray_address or None, say=watcher.say)
    if as_json:
        _print_json(present.search_document(result))
    else:
        present.print_crowning(result)
    if result.crowning is None or not result.crowning.reigning:
        sys.exit(NOTHING_VALID)


@app.command()
def export(
    base: BaseOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    case: CaseOption = "",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    arch: ArchOption = "",
    kind: Annotated[str, typer.Option("--format", help="header, json or t4.")] = "header",
    db: DbOption = "results.db",
    as_json: JsonOption = False,
) -> None:
    """Write the champion of a base as a kernel header, a JSON artifact or a T4 file.

    Example: evo export --base phase4 -o attention_config.h
    """
    from evo.export import find_champion, latency_words, ratio_words, write_file
    from evo.interchange import champion_file
    from evo.record import open_record

    case_name = f"{case}-causal" if case and causal else case
    with open_record(db, create=False) as record:
        champion = find_champion(record, base, case_name=case_name or None, dtype=dtype or None, arch=arch or None)
        text = champion_file(record, champion, kind)
    write_file(out, text)
    campaign = champion.campaign
    document: dict[str, Any] = {
        "file": str(out),
        "format": kind,
        "base": base,
        "case": campaign.case_name,
        "dtype": campaign.dtype,
    }
    document |= {"arch": campaign.arch, "variant": champion.variant.key, "time_us": champion.time_us}
    document |= {"ratio": champion.ratio, "anchor": champion.anchor, "replay": campaign.replay or None}
    if as_json:
        _print_json(document)
        return
    print(f"{out}: {base}, case {campaign.case_name} {campaign.dtype}, {campaign.arch}")
    print(f"{latency_words(champion)}; {ratio_words(champion)}")
    if campaign.replay:
        print(f"replayed, {campaign.replay}: not measured here")


@app.command()
def verify(
    base: BaseOption = "",
    case: CaseOption = "",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    knob: Annotated[list[str] | None, typer.Option("--knob", "-k", help="name=value; the rest keep defaults.")] = None,
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

    if elites:
        _verify_elites(base, seeds=seeds, db=db, as_json=as_json)
        return
    if not base:
        raise InputError("--base: expected a base's name, or --elites")
    document = verify_one(base, case=case, dtype=dtype, causal=causal, knobs=knob or [], seeds=seeds)
    if as_json:
        _print_json(document)
    else:
        present.print_verification(document)
    if document["rejected"]:
        sys.exit(NOTHING_VALID)


def _verify_elites(base: str, *, seeds: int, db: str, as_json: bool) -> None:
    from evo import present
    from evo.recheck import verify_elites

    with present.watcher(quiet=as_json) as watcher:
        verdicts = [asdict(verdict) for verdict in verify_elites(db=db, base=base, seeds=seeds, say=watcher.say)]
    if as_json:
        _print_json(verdicts)
    else:
        present.print_rows([{**row, "variant": row["variant"][:12]} for row in verdicts], empty="No elites")
    if any(verdict["fate"] == "demoted" for verdict in verdicts):
        sys.exit(NOTHING_VALID)


@app.command("replay-trial")
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
    if as_json:
        _print_json(document)
    else:
        present.print_reproduction(document)
    if not document["reproduces"]:
        sys.exit(NOTHING_VALID)


@app.command()
def bench(
    base: BaseOption,
    case: CaseOption = "mission",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    iters: Annotated[int, typer.Option(help="Rounds; each times every contender once.")] = 100,
    knob: Annotated[
        list[str] | None, typer.Option("--knob", "-k", help="name=value; else champion, else default.")
    ] = None,
    db: DbOption = "results.db",
    as_json: JsonOption = False,
) -> None:
    """Time one variant beside PyTorch's backends: p50 with its interval.

    Example: evo bench --base phase4 --shape mission --iters 100
    """
    from evo import present
    from evo.inspect import bench_one

    document = bench_one(base, case=case, dtype=dtype, causal=causal, knobs=knob or [], iters=iters, db=db)
    if as_json:
        _print_json(document)
    else:
        present.print_bench(document)
    if document["rejected"]:
        sys.exit(NOTHING_VALID)


@app.command()
def profile(
    base: BaseOption,
    case: CaseOption = "mission",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    knob: Annotated[
        list[str] | None, typer.Option("--knob", "-k", help="name=value; else champion, else default.")
    ] = None,
    db: DbOption = "results.db",
    as_json: JsonOption = False,
) -> None:
    """Read Nsight Compute's counters of one variant: tensor pipe, stalls, bank conflicts, occupancy, bandwidth.

    Example: evo profile --base phase5
    """
    from evo import present
    from evo.inspect import profile_one

    document = profile_one(base, case=case, dtype=dtype, causal=causal, knobs=knob or [], db=db)
    if as_json:
        _print_json(document)
    else:
        present.print_profile(document)


@app.command()
def record(
    campaign: Annotated[int, typer.Argument(help="A campaign's number.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: recordings/<gpu>/<base>.json.gz.")] = None,
    db: DbOption = "results.db",
) -> None:
    """Write a measured campaign as a recording that the replay target plays.

    Example: evo record 1
    """
    from evo.tune import record_campaign

    print(record_campaign(campaign, out=out, db=db))


@app.command()
def doctor(db: DbOption = "results.db", as_json: JsonOption = False) -> None:
    """Say what of GPU, driver, compilers, profilers, disk and database is there, and what its absence costs.

    Example: evo doctor
    """
    from evo import present
    from evo.doctor import examine

    findings = examine(db)
    if as_json:
        _print_json([asdict(finding) for finding in findings])
    else:
        present.print_findings(findings)


@db_app.command("upgrade")
def db_upgrade(db: DbOption = "results.db") -> None:
    """Bring a database of an older Evo to this schema.

    Example: evo db upgrade --db results.db
    """
    from evo.record import upgrade_database

    upgrade_database(db)
    print(f"{db}: up to date")


if __name__ == "__main__":
    main()
