"""The commands about what a search found: elites, their promotion and what is written from them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from evo.cli_options import (
    FEWEST_ROUNDS,
    NOTHING_VALID,
    ArchOption,
    BaseOption,
    CaseOption,
    CausalOption,
    ContestTimeoutOption,
    DbOption,
    DtypeOption,
    JsonOption,
    MarginOption,
    answer_file,
    check_count,
    check_timeout,
    end_cleanly_on_signals,
    parse_margin,
    print_json,
)


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
        print_json(rows)
    else:
        hint = "No elites yet: a search promotes what holds in its final comparison"
        present.print_rows(
            rows, empty=hint, hide=("configuration", "since", "until") if not history else ("configuration",)
        )


def promote(
    campaign: Annotated[int, typer.Argument(help="A campaign's number.")],
    db: DbOption = "results.db",
    base: Annotated[str, typer.Option("--base", "-b", help="Its base's YAML file, where Evo does not know it.")] = "",
    rounds: Annotated[int, typer.Option(help="Rounds of the comparison.")] = 40,
    margin: MarginOption = 1.0,
    contest_timeout: ContestTimeoutOption = 600.0,
    ray_address: Annotated[str, typer.Option(help="Join this Ray cluster.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Re-measure a campaign's best against the incumbent and the baselines; crown or refuse.

    Example: evo promote 3 --rounds 100
    """
    from evo import present
    from evo.tune import promote_campaign
    from evo.watch import watching

    check_count("--rounds", rounds, FEWEST_ROUNDS)
    check_timeout("--contest-timeout", contest_timeout)
    end_cleanly_on_signals()
    with watching(quiet=as_json) as watcher:
        result = promote_campaign(
            campaign,
            db=db,
            base=base,
            rounds=rounds,
            margin=parse_margin(margin),
            contest_timeout_s=contest_timeout,
            ray_address=ray_address or None,
            say=watcher.say,
        )
    if as_json:
        print_json(present.search_document(result))
    else:
        present.print_crowning(result)
    if result.crowning is None or not result.crowning.reigning:
        sys.exit(NOTHING_VALID)


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
        print_json(document)
        return
    print(f"{out}: {base}, case {campaign.case_name} {campaign.dtype}, {campaign.arch}")
    print(f"{latency_words(champion)}; {ratio_words(champion)}")
    if campaign.replay:
        print(f"replayed, {campaign.replay}: not measured here")


def record(
    campaign: Annotated[int, typer.Argument(help="A campaign's number.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: recordings/<gpu>/<base>.json.gz.")] = None,
    db: DbOption = "results.db",
    as_json: JsonOption = False,
) -> None:
    """Write a measured campaign as a recording that the replay target plays.

    Example: evo record 1
    """
    from evo.interchange import record_campaign

    answer_file(record_campaign(campaign, out=out, db=db), as_json=as_json)
