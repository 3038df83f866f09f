"""Pictures of searches: the best so far against evaluations, median and the middle 80 % of the runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

GREYWOLF = "kernel-tuner adaptive_tabu_greywolf"  # the best of Kernel Tuner's that is played on every space
SHOWN = ("evo", "tpe", GREYWOLF, "genetic", "differential", "random")
COLOURS = {
    "evo": "#c1272d",
    GREYWOLF: "#e08214",
    "tpe": "#2166ac",
    "genetic": "#1b7837",
    "differential": "#7f7f2a",
    "random": "#777777",
}


def draw(runs: list[dict[str, Any]], folder: Path) -> list[Path]:
    """One panel per space; returns the file written, or nothing without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print("no plots: matplotlib is not installed")
        return []
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    spaces = sorted({r["space"] for r in runs}, key=lambda s: (s.startswith("made-up"), s))
    columns = min(4, max(1, len(spaces)))
    rows = -(-len(spaces) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.3 * rows), squeeze=False)
    for axis, space in zip(axes.flat, spaces, strict=False):
        _panel(axis, space, [r for r in runs if r["space"] == space])
    for axis in axes.flat[len(spaces) :]:
        axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("evaluations")
    for axis in axes[:, 0]:
        axis.set_ylabel("fraction of the optimum")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / (3.3 * rows)))
    path = folder / "search_efficiency.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return [path]


def _panel(axis: Any, space: str, runs: list[dict[str, Any]]) -> None:
    for proposer in SHOWN:
        curves = [r["curve"] for r in runs if r["proposer"] == proposer]
        if not curves:
            continue
        length = max(len(c) for c in curves)
        table = np.array([c + [c[-1]] * (length - len(c)) for c in curves])
        evaluations = np.arange(1, length + 1)
        low, middle, high = np.quantile(table, [0.1, 0.5, 0.9], axis=0)
        colour = COLOURS[proposer]
        axis.plot(evaluations, middle, color=colour, lw=1.8 if proposer == "evo" else 1.2, label=proposer)
        if proposer in ("evo", "tpe", "random"):
            axis.fill_between(evaluations, low, high, color=colour, alpha=0.12, lw=0)
    axis.set_xscale("log")
    ticks = [n for n in (5, 10, 25, 50, 100, 200, 400) if n <= max(len(r["curve"]) for r in runs)]
    axis.set_xticks(ticks, labels=[str(n) for n in ticks])
    axis.minorticks_off()
    axis.set_xlim(5, max(len(r["curve"]) for r in runs))
    floor = np.quantile([r["curve"][min(9, len(r["curve"]) - 1)] for r in runs], 0.1)
    axis.set_ylim(max(0.0, float(floor) - 0.02), 1.01)
    axis.set_title(space, fontsize=10)
    axis.grid(alpha=0.25, lw=0.5)
