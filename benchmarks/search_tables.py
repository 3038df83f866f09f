"""The tables of search efficiency, made of the summary that `search_efficiency report` writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.markdown import markdown
from benchmarks.report import machine_words

Report = dict[str, Any]
Rows = list[dict[str, Any]]

CHECKPOINTS = ("50", "100", "200", "400")
KERNEL_TUNER = "kernel-tuner "
ABLATED = ("evo-free", "evo-insight", "evo without ", "evo with ")
NAMES = {
    "evo-free": "evo-free: no model of speed",
    "evo-insight": "evo-insight: strangers instead of children",
    "evo without validity": "without the model of failures",
    "evo with a second opinion": "with a second opinion by turns",
    "evo with a bandit": "with a second opinion and a bandit",
    "evo without doubt": "without doubt",
    "evo without identity": "values seen by place only, not by identity",
    "tpe": "Optuna TPE, multivariate, knobs as choices",
    "tpe-ordered": "Optuna TPE, multivariate, knobs as ordered integers",
    "genetic": "genetic algorithm, population 12",
    "differential": "differential evolution, population 12",
    "nsgaii": "Optuna NSGA-II",
    "cmaes": "Optuna CMA-ES",
}


def peers(report: Report) -> str:
    """Every proposer over all spaces without noise, best score first."""
    rows = [r for r in _without_noise(report) if not _is_ablation(r) and not r["proposer"].startswith(KERNEL_TUNER)]
    return _table(_means(rows)) + "\n" + _origin(report)


def kernel_tuner(report: Report) -> str:
    """Kernel Tuner's strategies on the spaces that they were played on, evo and random on the same."""
    rows = _without_noise(report)
    played = {r["space"] for r in rows if r["proposer"].startswith(KERNEL_TUNER)}
    if not played:
        return "*Kernel Tuner's strategies were not played.*\n"
    kept = [
        r
        for r in rows
        if r["space"] in played and (r["proposer"] in ("evo", "random") or r["proposer"].startswith(KERNEL_TUNER))
    ]
    words = f"On {len(played)} spaces{_on_fewer(kept, played)}; {_searches(kept)}.\n"
    return _table(_means(kept)) + "\n" + words


def _on_fewer(rows: Rows, played: set[str]) -> str:
    """What is to be said of strategies that were not played on all of these spaces, with evo on the same."""
    from benchmarks.search_efficiency import mean_of

    words = ""
    for name in sorted({r["proposer"] for r in rows}):
        there = {r["space"] for r in rows if r["proposer"] == name}
        if there == played:
            continue
        both = [
            {"proposer": one, **mean_of([r for r in rows if r["proposer"] == one and r["space"] in there])}
            for one in (name, "evo")
        ]
        (called, *theirs), (_, *ours) = _cells(both, CHECKPOINTS)
        words += (
            f"; {called} on {len(there)} of them, without {' and '.join(sorted(played - there))}, in the same order: "
        )
        words += f"{', '.join(theirs)}; evo there {', '.join(ours)}"
    return words


def noise(report: Report) -> str:
    """With noise on every time told: the truth about what would be promoted after re-timing the finalists."""
    lines = []
    levels = sorted({r["noise"] for r in report["rows"] if r["noise"] > 0})
    if not levels:
        return "*Searches with noise were not played.*\n"
    for level in levels:
        means = _means([r for r in report["rows"] if r["noise"] == level])
        lines += [[f"{100 * level:.0f} %", *cells] for cells in _cells(means, CHECKPOINTS[:3])]
    return markdown(["noise", *_heading(CHECKPOINTS[:3])], lines) + "\n" + _origin(report)


def spaces(report: Report) -> str:
    """evo against the best other proposer on every single space, at each number of evaluations."""
    rows = [r for r in _without_noise(report) if not _is_ablation(r)]
    lines = []
    for space in sorted({r["space"] for r in rows}, key=lambda s: (s.startswith("made-up"), s)):
        here = {r["proposer"]: r["fraction"] for r in rows if r["space"] == space}
        ours = here.pop("evo", {})
        facts = report["spaces"][space]
        cells = [space, f"{facts['configurations']:,}", f"{100 * facts['fail']:.0f} %"]
        for point in CHECKPOINTS:
            others = {name: found[point] for name, found in here.items() if point in found}
            if point not in ours or not others:
                cells.append("-")
                continue
            best = max(others, key=lambda name: others[name])
            cells.append(f"{ours[point]:.3f} ({others[best]:.3f} {best.removeprefix(KERNEL_TUNER)})")
        lines.append(cells)
    heading = ["space", "configurations", "fail", *(f"at {point}" for point in CHECKPOINTS)]
    words = "Mean fraction of the optimum: evo, and in brackets the best of all other proposers there. "
    return markdown(heading, lines) + "\n" + words + _origin(report)


def pairs(report: Report) -> str:
    """What each change to evo, a part taken away or an idea added, gains on the same spaces and seeds."""
    lines = [
        [
            NAMES.get(r["proposer"], r["proposer"]),
            f"{r['pairs']} on {r['spaces']} spaces",
            f"{r['gain']:+.3f} ± {r['error']:.3f}",
            f"{100 * r['within_1_evo']:.0f} % / {100 * r['within_1_other']:.0f} %",
            f"{100 * r['within_5_evo']:.0f} % / {100 * r['within_5_other']:.0f} %",
        ]
        for r in report["rows"]
    ]
    heading = [
        "evo",
        "pairs of searches",
        "gain in score",
        "within 1 % at 200: as it is / so",
        "within 5 %: as it is / so",
    ]
    return markdown(heading, lines) + f"\n{report['date']}, commit {report['commit'][:12]}.\n"


def overhead(report: Report) -> str:
    """CPU time of ask and tell per trial."""
    lines = [
        [
            r["proposer"],
            f"{r['told']:,}",
            str(r["batch"]),
            f"{r['ms_per_trial']:.1f} ms",
            f"{r['longest_ask_ms']:.0f} ms",
        ]
        for r in report["results"]
    ]
    heading = ["proposer", "trials told before", "asked at once", "ask and tell, per trial", "longest ask"]
    return markdown(heading, lines) + f"\nOne core, {report['space']}; {machine_words(report)}"


def _without_noise(report: Report) -> Rows:
    return [r for r in report["rows"] if r["noise"] == 0]


def _is_ablation(row: dict[str, Any]) -> bool:
    return str(row["proposer"]).startswith(ABLATED)


def _means(rows: Rows) -> Rows:
    """Each proposer that was played on every space, all spaces weighing the same; best score first."""
    from benchmarks.search_efficiency import mean_of

    of_name: dict[str, Rows] = {}
    for row in rows:
        of_name.setdefault(row["proposer"], []).append(row)
    every = {r["space"] for r in rows}
    means = [
        {"proposer": name, **mean_of(found)} for name, found in of_name.items() if {r["space"] for r in found} == every
    ]
    return sorted(means, key=lambda m: -m["score"])


def _heading(points: Sequence[str]) -> list[str]:
    return ["proposer", "score", f"of the optimum at {' / '.join(points)}", "within 1 % at 200", "within 5 %", "CPU s"]


def _cells(means: Rows, points: Sequence[str]) -> Iterable[list[str]]:
    for mean in means:
        reached = [mean["fraction"].get(point) for point in points]
        name = NAMES.get(mean["proposer"], mean["proposer"].replace(KERNEL_TUNER, "Kernel Tuner "))
        yield [
            name,
            f"{mean['score']:.2f} ± {mean['score_error']:.2f}",
            " / ".join("-" if f is None else f"{f:.3f}" for f in reached),
            f"{100 * mean['within_1_at_200']:.0f} %",
            f"{100 * mean['within_5_at_200']:.0f} %",
            f"{mean['cpu_s']:.1f}",
        ]


def _table(means: Rows, points: Sequence[str] = CHECKPOINTS) -> str:
    return markdown(_heading(points), list(_cells(means, points)))


def _searches(rows: Rows) -> str:
    counts = sorted(r["runs"] for r in rows)
    each = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return f"{each} searches per proposer and space, {sum(counts):,} in all"


def _origin(report: Report) -> str:
    words = f"{len(report['spaces'])} spaces, {_searches(report['rows'])}"
    return f"{words}; {report['date']}, commit {report['commit'][:12]}{_older(report)}.\n"


def _older(report: Report) -> str:
    """Which commits the rows are of that an earlier report had."""
    older: dict[str, int] = {}
    for row in report["rows"]:
        if "commit" in row:
            older[row["commit"]] = older.get(row["commit"], 0) + row["runs"]
    return "".join(f", {count:,} of them {commit[:12]}" for commit, count in sorted(older.items()))
