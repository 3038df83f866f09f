"""The commands about what is recorded: runs and their exports, reports, the dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evo.cli_options import CampaignArgument, DbOption, JsonOption, answer, answer_file, check_count, print_json
from evo.cli_usage import Group
from evo.errors import InputError

runs_app = typer.Typer(cls=Group, invoke_without_command=True)


@runs_app.callback()
def runs(
    context: typer.Context,
    db: DbOption = "results.db",
    limit: Annotated[int, typer.Option(help="Rows at the most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the recorded campaigns, newest first.

    Example: evo runs --limit 5
    """
    if context.invoked_subcommand is not None:
        return
    from evo import present
    from evo.record import open_record

    check_count("--limit", limit)
    with open_record(db, create=False) as record:
        rows = [present.campaign_row(found) for found in record.campaigns(limit=limit)]
    if as_json:
        print_json(rows)
    else:
        hint = "No campaigns yet: evo search --base cpu_attention --budget 40"
        present.print_rows(rows, empty=hint, hide=("dtype", "proposer"))


@runs_app.command("show")
def runs_show(
    campaign: CampaignArgument,
    db: DbOption = "results.db",
    limit: Annotated[int, typer.Option(help="Rows at the most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show how a campaign ended and its trials, the fastest first; with a random control arm, what evolution gained.

    Example: evo runs show 3 --limit 10
    """
    from evo import present
    from evo.arms import arms_of
    from evo.record import open_record

    check_count("--limit", limit)
    with open_record(db, create=False) as record:
        found = record.campaign(campaign)
        rows = [present.trial_row(trial) for trial in record.trials(campaign, by_time=True, limit=limit)]
        arms = arms_of(record, campaign) if found.control_share else None
    if as_json:
        print_json(rows)
        return
    print(f"Campaign {campaign} {found.state}{': ' if found.end_reason else ''}{found.end_reason}")
    if arms is not None:
        print(arms.sentence)
    present.print_rows(rows, empty="No trials yet", hide=("parents",))


@runs_app.command("export")
def runs_export(
    campaign: CampaignArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="trials.csv, trials.parquet or trials.t4.json.")],
    db: DbOption = "results.db",
    as_json: JsonOption = False,
) -> None:
    """Write a campaign's trials as CSV, Parquet or T4, told by the file's ending.

    Example: evo runs export 3 -o trials.csv
    """
    from evo.export import json_text, write_file
    from evo.interchange import t4_of_campaign, trials_csv, trials_parquet
    from evo.record import open_record

    with open_record(db, create=False) as record:
        record.campaign(campaign)
        content: str | bytes
        if out.suffix == ".csv":
            content = trials_csv(record.trials(campaign))
        elif out.suffix == ".parquet":
            content = trials_parquet(record.trials(campaign))
        elif out.suffix == ".json":
            content = json_text(t4_of_campaign(record, campaign))
        else:
            raise InputError(f"-o {out}: expected a name that ends in .csv, .parquet or .json (T4)")
    write_file(out, content)
    answer_file(out, as_json=as_json)


@runs_app.command("export-optuna")
def runs_export_optuna(
    campaign: CampaignArgument,
    storage: Annotated[str, typer.Option("--storage", help="An Optuna storage URL.")] = "sqlite:///optuna.db",
    db: DbOption = "results.db",
    as_json: JsonOption = False,
) -> None:
    """Write a campaign as an Optuna study, so that optuna-dashboard shows it.

    Example: evo runs export-optuna 3 --storage sqlite:///optuna.db
    """
    from evo.interchange import export_optuna
    from evo.record import open_record

    with open_record(db, create=False) as record:
        study = export_optuna(record, campaign, storage)
    words = f"study {study} in {storage}; optuna-dashboard {storage} shows it"
    answer({"study": study, "storage": storage}, lambda _: print(words), as_json=as_json)


def report(
    campaign: CampaignArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    kind: Annotated[str, typer.Option("--format", help="html or md; empty: by the file's ending.")] = "",
    db: DbOption = "results.db",
    as_json: JsonOption = False,
) -> None:
    """Write a campaign as one self-contained page, or as Markdown for a pull request.

    Example: evo report 3 -o report.html
    """
    from evo.dashboard.report import write_report
    from evo.record import open_record

    with open_record(db, create=False) as record:
        answer_file(write_report(record, campaign, out, format=kind or None), as_json=as_json)


def dashboard(
    db: DbOption = "results.db",
    host: Annotated[str, typer.Option(help="Anything but loopback needs --token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.")] = 8421,
    token: Annotated[str, typer.Option(help="What visitors must show when the host is not loopback.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show results.db in a browser, live while a search runs.

    Example: evo dashboard --db results.db
    """
    from evo.dashboard.server import announce, serve
    from evo.record import database_name

    def say(address: str) -> None:
        answer({"address": address, "database": database_name(db)}, lambda _: announce(address), as_json=as_json)

    serve(db, host, port, token or None, say=say)
