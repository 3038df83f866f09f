"""The command line: parse, call, print. Heavy imports happen inside the commands, so that --help is quick."""

from __future__ import annotations

import errno
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from evo import __version__
from evo.cli_bases import bases_app
from evo.cli_elites import elites, export, promote, record
from evo.cli_options import (
    BAD_INPUT,
    DONE,
    FEWEST_ROUNDS,
    INTERRUPTED,
    MOST,
    NOTHING_VALID,
    BaseOption,
    CaseOption,
    CausalOption,
    ContestTimeoutOption,
    DbOption,
    DtypeOption,
    JsonOption,
    MarginOption,
    answer,
    check_count,
    check_timeout,
    end_cleanly_on_signals,
    parse_margin,
    print_json,
)
from evo.cli_runs import dashboard, report, runs_app
from evo.cli_usage import Group, UsageError, usage_words
from evo.cli_variants import bench, build, profile, replay_trial, verify
from evo.errors import InputError

if TYPE_CHECKING:
    from evo.setting import SearchRequest

app = typer.Typer(
    name="evo",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
db_app = typer.Typer(cls=Group, help="Care of results.db.", no_args_is_help=True)


def main() -> None:
    """Run the command line; bad input is one line on stderr and exit code 2."""
    try:
        code = app(prog_name="evo", standalone_mode=False)
    except InputError as error:
        _fail(str(error), BAD_INPUT)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        _fail(f"{str(error.filename)[:80]}...: expected a shorter path", BAD_INPUT)
    except typer.Abort:
        _fail("stopped", INTERRUPTED)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group alone: its help is the answer
            print(error)
            sys.exit(BAD_INPUT)
        _fail(usage_words(error), BAD_INPUT)
    sys.exit(code or DONE)


def _fail(message: str, code: int) -> NoReturn:
    line = "".join(word if word.isprintable() else repr(word)[1:-1] for word in message)  # names may hold anything
    print(f"evo: {line}", file=sys.stderr)
    sys.exit(code)


def parse_duration(text: str) -> float | None:
    """ "90", "90s", "10m", "1.5h" -> seconds; empty -> None. Raises: InputError."""
    if not text:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None:
        raise InputError(f"--time-limit {text}: expected a time such as 90s, 10m or 1h")
    seconds = float(match.group(1)) * {"": 1, "s": 1, "m": 60, "h": 3600}[match.group(2)]
    if not 0 < seconds <= MOST:
        raise InputError(f"--time-limit {text}: expected more than 0 seconds and at most {MOST}")
    return seconds


def _version(asked: bool) -> None:
    if asked:
        print(f"evo {__version__}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Tune templated GPU kernels: breed variants, measure them on a fleet, promote what is provably better."""


@app.command()
def search(
    base: BaseOption = "",
    case: CaseOption = "",
    dtype: DtypeOption = "",
    causal: CausalOption = False,
    target: Annotated[str, typer.Option(help="auto, cuda, host or replay.")] = "auto",
    proposer: Annotated[str, typer.Option(help="evo, random, tpe, cmaes, nsgaii, gp or optuna:NAME.")] = "evo",
    budget: Annotated[int | None, typer.Option(help="Variants to evaluate.", show_default="200")] = None,
    time_limit: Annotated[
        str, typer.Option(help="Stop after this time: 90s, 10m, 1h; with --resume from now on, else what was left.")
    ] = "",
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
    margin: MarginOption = 1.0,
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
    run_timeout: Annotated[float, typer.Option(help="Seconds for one variant's verification, then for timing.")] = 30.0,
    verify_timeout: Annotated[
        float | None, typer.Option(help="Seconds for verification alone.", show_default="--run-timeout")
    ] = None,
    measure_timeout: Annotated[
        float | None, typer.Option(help="Seconds for timing alone.", show_default="--run-timeout")
    ] = None,
    contest_timeout: ContestTimeoutOption = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Search a base for its fastest right variant, and promote the best three.

    Example: evo search --base phase4 --budget 300
    """
    from evo import present
    from evo.setting import SearchRequest
    from evo.tune import search as run
    from evo.watch import watching

    if not base and recording is None:
        raise InputError("--base: expected a base's name; `evo bases list` shows them")
    check_count("--budget", budget)
    check_count("--seed", seed, 0)
    check_count("--patience", patience)
    check_count("--rounds", rounds, FEWEST_ROUNDS)
    check_timeout("--build-timeout", build_timeout)
    check_timeout("--run-timeout", run_timeout)
    check_timeout("--verify-timeout", verify_timeout)
    check_timeout("--measure-timeout", measure_timeout)
    check_timeout("--contest-timeout", contest_timeout)
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
        margin=parse_margin(margin),
        allow_dead_knobs=allow_dead_knobs,
        proof=proof,
        sanitize=sanitize,
        build_timeout_s=build_timeout,
        verify_timeout_s=verify_timeout or run_timeout,
        measure_timeout_s=measure_timeout or run_timeout,
        contest_timeout_s=contest_timeout,
        own_budget=budget is None,
        patience=patience,
        control_share=_parse_control(control, control_share),
    )
    if not resume:
        request = _offer_resume(request, ask=not as_json and sys.stdin.isatty() and sys.stdout.isatty())
    end_cleanly_on_signals()
    with watching(quiet=as_json) as watcher:
        result = run(request, watch=watcher.watch, say=watcher.say, warn=watcher.warn)
    if as_json:
        print_json(present.search_document(result))
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
    from evo.resume import find_unfinished

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


def doctor(db: DbOption = "results.db", as_json: JsonOption = False) -> None:
    """Say what of GPU, driver, compilers, profilers, disk and database is there, and what its absence costs.

    Example: evo doctor
    """
    from evo import present
    from evo.doctor import examine

    findings = examine(db)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        present.print_findings(findings)


@db_app.command("upgrade")
def db_upgrade(db: DbOption = "results.db", as_json: JsonOption = False) -> None:
    """Bring a database of an older Evo to this schema.

    Example: evo db upgrade --db results.db
    """
    from evo.record import database_name, upgrade_database

    before, now = upgrade_database(db)
    document = {"database": database_name(db), "before": before, "schema": now}
    answer(document, lambda _: print(f"{document['database']}: up to date"), as_json=as_json)


for command in (
    elites,
    promote,
    export,
    build,
    verify,
    replay_trial,
    bench,
    profile,
    record,
    doctor,
    report,
    dashboard,
):
    app.command()(command)
app.add_typer(runs_app, name="runs")
app.add_typer(bases_app, name="bases")
app.add_typer(db_app, name="db")


if __name__ == "__main__":
    main()
