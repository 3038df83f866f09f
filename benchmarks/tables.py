"""Fill the tables of README.md and docs/ from the committed JSON under benchmarks/results.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; what is between is replaced. A test fails when the
text does not say what the JSON says.

    python -m benchmarks.tables          # write
    python -m benchmarks.tables --check  # only say which files are out of date; exit code 1
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import kernel_tables, resources, search_tables
from benchmarks.markdown import RESULTS, Rows, markdown, time_cell
from benchmarks.report import machine_words

ROOT = Path(__file__).resolve().parent.parent
_PLACE = re.compile(r"(<!-- table: ([a-z0-9_]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NOT_YET = "*No measurement is committed yet.*\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    stale = [path for path in documents() if path.read_text(encoding="utf-8") != filled(path)]
    for path in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date' if options.check else 'written'}")
        if not options.check:
            path.write_text(filled(path), encoding="utf-8")
    sys.exit(1 if options.check and stale else 0)


def documents() -> list[Path]:
    """The files that hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(path: Path) -> str:
    """The text of a document with every table made anew."""
    return _PLACE.sub(lambda place: place[1] + table(place[2]) + place[3], path.read_text(encoding="utf-8"))


def table(name: str) -> str:
    """One table in Markdown, or one line that says there is no measurement yet.

    Raises: KeyError for a name that no table has.
    """
    file, make = TABLES[name]
    path = RESULTS / file
    if not path.is_file():
        return _NOT_YET
    return make(json.loads(path.read_text(encoding="utf-8")))


def contest(report: dict[str, Any]) -> str:
    """The final comparison: every contender, warm and cold, with its 95 % interval and its ratio to each backend."""
    contest = report["contest"]
    cold = {row["contender"]: row for row in contest["cold"]}
    backends = [row["contender"] for row in contest["warm"] if row["kind"] == "baseline"]
    heading = ["", "p50, warm L2"] + (["p50, cold L2"] if cold else []) + [f"times as fast as {b}" for b in backends]
    rows: Rows = []
    for row in contest["warm"]:
        cells = [row["contender"], time_cell(row)]
        if cold:
            cells.append(time_cell(cold[row["contender"]]) if row["contender"] in cold else "-")
        cells += [_ratio(row.get("ratios", {}).get(backend)) for backend in backends]
        rows.append(cells)
    words = f"Case {report['case']}, {report['dtype']}; {contest['rounds']} rounds, every round in a new order. "
    return markdown(heading, rows) + "\n" + words + "Intervals: 95 %, bootstrap of the median. " + _origin(report)


def throughput(report: dict[str, Any]) -> str:
    """Variants per second, the share of time that the device worked, and what became of the variants."""
    search, busy = report["search"], report["busy"]
    rows: Rows = [
        ["admissible configurations", f"{search['admissible']:,}"],
        ["evaluated", f"{search['evaluated']}, of them {search['valid']} valid"],
        ["rejected", ", ".join(f"{count} {why}" for why, count in sorted(search["rejected"].items())) or "none"],
        ["variants per second, proposal to recorded row", _number(search["per_s"])],
        ["the same, from the first row on", _number(search["per_s_after_first"])],
        ["first row after", f"{_number(search['first_row_s'])} s"],
        ["device at work", _percent(busy["share"])],
        ["builders at work", f"{_percent(busy['builders_share'])} of {busy['builders']}"],
    ]
    return markdown(["", ""], rows) + "\n" + _origin(report)


def space_construction(report: dict[str, Any]) -> str:
    """How long the largest spaces take to list."""
    rows = [
        [
            f"{result['combinations']:,}",
            f"{result['admissible']:,}",
            f"{result['seconds']:.3f} s",
            f"{result['peak_mib']:.0f} MiB",
        ]
        for result in report["results"]
    ]
    table = markdown(["combinations", "admissible", "time", "peak memory of the process"], rows)
    return table + "\n" + machine_words(report)


def survival_campaign(report: dict[str, Any]) -> str:
    """What became of every variant of a campaign of which a tenth is hostile."""
    rows = [[*fate.split(" -> "), str(count)] for fate, count in report["fates"].items()]
    memory = report["driver_memory_mib"]
    words = [
        f"{report['recorded']} of {report['variants']} variants recorded, {report['recorded_once']} of them different",
        f"{len(report['unexpected'])} with another outcome than foreseen",
        f"driver's memory {memory['early']} MiB early, {memory['late']} MiB late ({_change(memory['growth'])})",
        f"{len(report['orphans'])} processes and {len(report['temporary_files'])} temporary files left",
        f"integrity check: {report['integrity']}",
    ]
    table = markdown(["variant", "recorded as", "count"], rows)
    return f"{table}\n{'; '.join(words)}; {report['seconds']} s.\n\n{_recoveries(report)}\n{_ground(report)}"


def survival_seats(report: dict[str, Any]) -> str:
    """How soon a slot is back, by the process that was killed."""
    rows = [
        [what, str(found["count"]), f"{found['median']:.2f} s", f"{found['max']:.2f} s"]
        for what, found in report["recovery_s"].items()
    ]
    return markdown(["killed", "times", "next run after, median", "at most"], rows) + "\n" + _ground(report)


def survival_kills(report: dict[str, Any]) -> str:
    """One search, killed and resumed again and again."""
    kills = report["kills"]
    rows: Rows = [
        ["kills", str(len(kills))],
        ["after", f"{min(k['after_s'] for k in kills):.1f} to {max(k['after_s'] for k in kills):.1f} s"],
        ["outcomes lost", str(sum(k["lost"] for k in kills))],
        ["evaluated twice", str(report["evaluated_twice"])],
        ["integrity checks clean", str(sum(k["integrity"] in ("ok", "no file yet") for k in kills))],
        ["processes left", str(sum(len(k["orphans"]) for k in kills) + len(report["orphans"]))],
        ["temporary files left", str(sum(len(k["temporary_files"]) for k in kills) + len(report["temporary_files"]))],
        ["all processes gone after", f"{max(k['settled_s'] for k in kills):.1f} s at most"],
        ["outcomes in the end", f"{report['outcomes']} of {' + '.join(str(row[3]) for row in report['campaigns'])}"],
    ]
    return markdown(["", ""], rows) + "\n" + _ground(report)


def gpu_trust(report: dict[str, Any]) -> str:
    """Kill rate, null runs and recovery times on a GPU."""
    runs, facts = report["null_run"]["null_runs"], report["environment"]
    rows: Rows = [
        [f"wrong kernels caught, {name}", f"{found['killed']} of {found['killed'] + len(found['survived'])}"]
        for name, found in report["kill_rate"].items()
    ]
    copies = report["null_run"]["copies"]
    for l2 in ("warm", "cold"):
        spreads = ", ".join(f"{100 * run[f'{l2}_spread']:.2f} %" for run in runs)
        rows.append([f"spread of {copies} copies, {l2} L2, {len(runs)} runs", spreads])
    rows.append(["promoted among them", str(sum(len(run["promoted"]) for run in runs))])
    rows += [
        [f"{event['kernel']} ({event['outcome']})", f"next worker ready in {event['recovery_s']:.1f} s"]
        for event in report["recoveries"]
    ]
    rows.append(["the seat's own process is killed", f"next seat ready in {report['killed_seat']['back_s']:.1f} s"])
    words = f"{facts['device']} ({facts['arch']}, driver {facts['driver']}), PyTorch {facts['torch']}"
    return markdown(["", ""], rows) + f"\n{words}, commit {facts['git_sha'][:12] or 'unknown'}.\n"


def dashboard_speed(report: dict[str, Any]) -> str:
    """First paints in a browser, and what a page that polls costs a search."""
    targets, polling, machine = report["targets"], report["polling"], report["machine"]
    listed, campaign = report["list"], report["campaign_of_5000"]
    low, high = polling["search_slowdown_percent_low"], polling["search_slowdown_percent_high"]
    slowed = f"{polling['search_slowdown_percent']:+.1f} % ({low:+.1f} to {high:+.1f} %)"
    asked = {name: f"{value:.0f}" for name, value in targets.items()}
    rows: Rows = [
        ["campaign list, first paint", f"{listed['first_paint_ms']:.0f} ms", f"{asked['list_first_paint_ms']} ms"],
        ["5,000 trials, first paint", f"{campaign['first_paint_ms']:.0f} ms", f"{asked['campaign_first_paint_ms']} ms"],
        ["5,000 trials, charts of them drawn", f"{campaign['trials_drawn_ms']:.0f} ms", "-"],
        ["a watched search is slower by", slowed, f"{asked['search_slowdown_percent']} %"],
        ["the server takes of the machine", f"{polling['server_percent_of_the_machine']:.1f} %", "-"],
    ]
    words = [
        f"Medians; {report['trials']:,} made-up trials in {report['campaigns']} campaigns, a fresh browser context for "
        f"every visit. The watched search: {machine['cores']} builders that keep every core busy, "
        f"{polling['recorded_per_s_alone']:.0f} variants recorded per second; {polling['pairs']} pairs of windows of "
        f"{polling['window_s']:.0f} s, watched and not, with the 95 % interval of the median.",
        f"{machine['processor']}, {machine['cores']} cores, load {report['load_before']:.1f} before",
    ]
    table = markdown(["", "", "asked for: below"], rows)
    return f"{table}\n{words[0]} {words[1]}, {report['date']}, commit {_commit(report)}.\n"


def _change(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f} %"


def _recoveries(report: dict[str, Any]) -> str:
    rows = [
        [reason, str(found["count"]), f"{found['median']:.2f} s", f"{found['max']:.2f} s"]
        for reason, found in report["recovery_s"].items()
    ]
    return markdown(["what took a worker down", "times", "next ready after, median", "at most"], rows)


def _ground(report: dict[str, Any]) -> str:
    facts = report["environment"]
    load = f"load {facts['load'][1]:.0f}"
    words = f"{facts['device']}, {facts['cores']} cores, {load}, Python {facts['python']}, {facts['date'][:10]}"
    return f"{words}, commit {facts['commit'][:12]}.\n"


def _ratio(found: dict[str, float] | None) -> str:
    return f"{found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f})" if found else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _commit(report: dict[str, Any]) -> str:
    return f"{report['commit'][:12] or 'unknown'}{' with uncommitted changes' if report['dirty'] else ''}"


def _origin(report: dict[str, Any]) -> str:
    """Where the numbers come from."""
    driver = f", driver {report['driver']}" if report["driver"] else ""
    machine = f"{report['device']} ({report['arch']}{driver}), {report['cores']} CPU cores"
    return f"{machine}, PyTorch {report['torch']}, {report['date']}, commit {_commit(report)}.\n"


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "phase4_h200": ("phase4_h200.json", contest),
    "phase4_h200_throughput": ("phase4_h200.json", throughput),
    "phases": ("kernels_h200.json", kernel_tables.phases),
    "phase_reasons": ("profiles_h200.json", kernel_tables.reasons),
    "cases": ("cases_h200.json", kernel_tables.cases),
    "eager": ("eager_h200.json", kernel_tables.eager),
    "correctness": ("correctness_h200.json", kernel_tables.correctness),
    "resources": ("resources.json", lambda report: resources.table(report) + "\n"),
    "cpu_attention": ("cpu_attention.json", contest),
    "survival_campaign": ("survival_campaign.json", survival_campaign),
    "survival_seats": ("survival_seats.json", survival_seats),
    "survival_kills": ("survival_kills.json", survival_kills),
    "gpu_trust": ("gpu_trust_h200.json", gpu_trust),
    "dashboard_speed": ("dashboard_speed.json", dashboard_speed),
    "space_construction": ("space_construction.json", space_construction),
    "search_peers": ("search_efficiency.json", search_tables.peers),
    "search_ablations": ("search_ablations.json", search_tables.pairs),
    "search_kernel_tuner": ("search_efficiency.json", search_tables.kernel_tuner),
    "search_noise": ("search_efficiency.json", search_tables.noise),
    "search_spaces": ("search_efficiency.json", search_tables.spaces),
    "search_ideas": ("search_ideas.json", search_tables.pairs),
    "search_overhead": ("search_overhead.json", search_tables.overhead),
}

if __name__ == "__main__":
    main()
