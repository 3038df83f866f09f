"""What the command line prints: tables, verdicts, one JSON document per command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from evo.live import LiveReport
    from evo.measure import Interval
    from evo.record import Campaign, Elite, RecordedTrial
    from evo.tune import SearchResult

_WIDTH = 160  # of tables in files and pipes, where nobody's window sets it

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _WIDTH)


def print_rows(rows: Sequence[dict[str, Any]], *, empty: str = "nothing", hide: Sequence[str] = ()) -> None:
    """Rows of one shape as a table, without the columns in `hide` (too wide for a terminal; --json has them)."""
    if not rows:
        console.print(empty, markup=False)
        return
    rows = [{name: value for name, value in row.items() if name not in hide} for row in rows]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows[0]:
        numeric = all(isinstance(row[name], int | float) for row in rows if row[name] is not None)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(_cell(value)) for value in row.values()))
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        if 0 < abs(value) < 0.01:
            return f"{value:.2e}"
        return f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
    if isinstance(value, dict):
        return " ".join(f"{name}={_cell(item)}" for name, item in value.items())
    return str(value)


def _when(at: float | None) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M") if at else "-"


def _interval(low: float | None, high: float | None) -> str:
    return f"{low:.3f} .. {high:.3f}" if low is not None and high is not None else "-"


def campaign_row(campaign: Campaign) -> dict[str, Any]:
    return {
        "id": campaign.id,
        "base": campaign.base,
        "case": campaign.case_name,
        "dtype": campaign.dtype,
        "device": campaign.environment.device,
        "proposer": campaign.proposer,
        "evaluated": campaign.evaluated,
        "valid": campaign.valid,
        "best_us": campaign.best_us,
        "ratio": campaign.best_ratio,
        "state": campaign.state,
        "times": "replayed" if campaign.replay else "measured",
        "started": _when(campaign.started_at),
    }


def trial_row(trial: RecordedTrial) -> dict[str, Any]:
    return {
        "id": trial.id,
        "number": trial.number,
        "time_us": trial.time_us,
        "ratio": trial.ratio,
        "outcome": f"{trial.stage}: {trial.reason}" if trial.stage else "valid",
        "operator": trial.origin.operator,
        "parents": list(trial.origin.parents),
        "configuration": dict(trial.configuration),
        "variant": trial.variant_key[:12],
    }


def elite_row(elite: Elite) -> dict[str, Any]:
    promotion = elite.promotion
    return {
        "base": elite.place.base,
        "case": elite.place.case_name,
        "dtype": elite.place.dtype,
        "arch": elite.place.arch,
        "rank": elite.rank,
        "time_us": promotion.time_us,
        "interval_us": _interval(promotion.time_low_us, promotion.time_high_us),
        "ratio": promotion.ratio,
        "ratio_interval": _interval(promotion.ratio_low, promotion.ratio_high),
        "against": promotion.anchor,
        "times": "replayed" if elite.replay else "measured",
        "since": _when(elite.since),
        "until": _when(elite.until),
        "configuration": dict(elite.configuration),
        "variant": elite.variant_key[:12],
    }


def search_document(result: SearchResult) -> dict[str, Any]:
    """A search's outcome for machines."""
    progress = result.progress
    return {
        "campaign": result.campaign_id,
        "state": result.state,
        "reason": result.reason,
        "base": result.place.base,
        "case": result.place.case_name,
        "dtype": result.place.dtype,
        "arch": result.place.arch,
        "replay": result.replay or None,
        "evaluated": progress.evaluated,
        "valid": progress.valid,
        "rejected": dict(progress.rejected),
        "per_s": progress.per_s,
        "elapsed_s": progress.elapsed_s,
        "best_us": progress.best_us,
        "best_ratio": progress.best_ratio,
        "anchor": progress.anchor,
        "default_us": result.default_time.median if result.default_time else None,
        "finalists": [asdict(verdict) for verdict in result.crowning.verdicts] if result.crowning else [],
        "reigning": list(result.crowning.reigning) if result.crowning else [],
        "baselines_us": {n: asdict(t) for n, t in result.crowning.baselines_us.items()} if result.crowning else {},
        "arms": result.arms.document() if result.arms else None,
    }


def print_search(result: SearchResult) -> None:
    """A search's outcome for people."""
    progress = result.progress
    print(f"\nCampaign {result.campaign_id} {result.state}: {result.reason}")
    print(f"{progress.evaluated} evaluated, {progress.valid} valid, {progress.per_s:.1f} variants/s")
    for reason, count in progress.rejected.most_common(6):
        print(f"  {count:5d}  {reason}")
    if progress.valid == 0:
        print("Nothing valid was found.")
        return
    if result.arms is not None:
        print(result.arms.sentence)
    print_crowning(result)


def print_crowning(result: SearchResult) -> None:
    """Who reigns, beside the baselines."""
    crowning, contest = result.crowning, result.contest
    if crowning is None or contest is None:
        return
    rows = []
    for verdict in crowning.verdicts:
        reigns = verdict.variant_key in crowning.reigning
        name = f"elite {crowning.reigning.index(verdict.variant_key) + 1}" if reigns else "refused"
        ratio = verdict.ratio.median if verdict.ratio else None
        rows.append(_contender(name, verdict.time, ratio, verdict.reason, verdict.variant_key[:12]))
    if result.default_time is not None:
        rows.append(_contender("default", result.default_time))
    rows += [_contender(name, time_us) for name, time_us in crowning.baselines_us.items()]
    rows.sort(key=lambda row: row["time_us"] or float("inf"))
    place, kind = result.place, f"replayed, {result.replay}" if result.replay else "re-measured"
    print(f"\n{place.base}, case {place.case_name} {place.dtype}, {place.arch} ({kind}; 95 % intervals)")
    print_rows(rows)
    if crowning.reigning:
        print(f"\nNext: evo export --base {place.base} -o {place.base}.h")


def _contender(
    name: str, time_us: Interval | None, ratio: float | None = None, verdict: str = "", variant: str = ""
) -> dict[str, Any]:
    return {
        "contender": name,
        "time_us": time_us.median if time_us else None,
        "interval_us": _interval(time_us.low, time_us.high) if time_us else "-",
        "ratio": ratio,
        "verdict": verdict,
        "variant": variant,
    }


def _rejection(rejected: dict[str, str]) -> str:
    return f"{rejected['stage']}: {rejected['reason']}: {rejected['detail']}"


def print_base(document: dict[str, Any]) -> None:
    print(f"{document['name']}: {document['doc']}")
    print(f"{document['file']}  (template {document['template']}, target {document['target']})")
    size = f"{document['admissible']:,} admissible of {document['combinations']:,} combinations"
    print(f"{size} for case {document['case']} on {document['arch']}\n")
    rows = [
        {
            "knob": k["name"],
            "values": " ".join(_cell(v) for v in k["values"]),
            "default": _cell(k["default"]),
            "doc": k["doc"],
        }
        for k in document["knobs"]
    ]
    print_rows(rows)
    for kind in ("rules", "gates"):
        if document[kind]:
            print()
            print_rows([{kind[:-1]: name, "must hold": text} for name, text in document[kind].items()])


def print_live(report: LiveReport) -> None:
    """Which knobs are dead and which values are twins."""
    print(f"{report.base}: {report.builds} builds, {report.programs} programs{' (kept)' if report.cached else ''}")
    for name in report.dead:
        print(f"dead: {name} changes nothing")
    for same in report.duplicates:
        print(f"same program: {same.knob} = {same.values[0]} and {same.values[1]}, compared {same.compared} times")
    for text in report.untried:
        print(f"never alone: {text} (no two admissible configurations differ in it only)")
    for reason, count in report.failed.items():
        print(f"{count} builds stopped: {reason}")
    if report.holds:
        print("every knob is live")


def print_build(document: dict[str, Any]) -> None:
    print(f"{document['base']} for {document['arch']}, {document['toolchain']}")
    print(_cell(document["configuration"]))
    if document["rejected"]:
        print(f"rejected at {document['rejected']['stage']}: {document['rejected']['reason']}")
        print(document["rejected"]["detail"][:4000])
        return
    print_rows([{**document["resources"], "build_s": document["build_s"]}])


def print_verification(document: dict[str, Any]) -> None:
    print(f"{document['base']}, case {document['case']}, on {document['device']}")
    print(_cell(document["configuration"]))
    if document["rejected"]:
        print(f"wrong: {_rejection(document['rejected'])}")
        return
    print_rows(document["errors"])
    print(f"right on {len(document['errors'])} outputs")


def print_reproduction(document: dict[str, Any]) -> None:
    """A recorded trial beside itself, measured again."""
    print(f"trial {document['trial']}: {document['base']}, case {document['case']}, variant {document['variant'][:12]}")
    print(_cell(document["configuration"]))
    rows = []
    for when in ("recorded", "now"):
        side = document[when]
        time = side["time"]
        rows.append(
            {
                "": when,
                "outcome": side["outcome"],
                "time_us": time["median"] if time else None,
                "interval_us": _interval(time["low"], time["high"]) if time else "-",
                "ratio": side["ratio"],
                "device": side["device"],
                "driver": side["driver"],
            }
        )
    print_rows(rows)
    words = {True: "same", False: "differs", None: "not to be compared"}
    print(", ".join(f"{name}: {words[held]}" for name, held in document["checks"].items()))
    print("reproduces" if document["reproduces"] else "does not reproduce")


def print_bench(document: dict[str, Any]) -> None:
    print(f"{document['base']} ({document['variant']}), case {document['case']}, {document['device']}")
    print(_cell(document["configuration"]))
    if document["rejected"]:
        print(f"rejected at {_rejection(document['rejected'])}")
        return
    print(f"p50 of {document['rounds']} rounds, 95 % interval; ratio: how many times as fast this variant is")
    print_rows(document["times"])


def print_profile(document: dict[str, Any]) -> None:
    print(f"{document['base']} ({document['variant']}), case {document['case']}, {document['device']}")
    print(_cell(document["configuration"]))
    print_rows([{"counter": name, "value": value} for name, value in document["counters"].items()])
    print("kept with the variant" if document["kept"] else "not kept: this variant is not in the database")


def print_findings(findings: Sequence[Any]) -> None:
    """A doctor's findings, what is missing last."""
    for finding in findings:
        mark, style = ("ok", "green") if finding.ok else ("missing", "yellow")
        console.print(f"[{style}]{mark:8}[/{style}] [bold]{escape(finding.name):18}[/bold] {escape(finding.found)}")
        if not finding.ok and finding.cost:
            console.print(f"         {'':18} [dim]{escape(finding.cost)}[/dim]")
