"""Where the best came from, as a drawing: trials left to right by generation, lines from parent to child."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evo.record import RecordedTrial

GENERATIONS = 5  # drawn; the list beside the drawing goes further back
MEMBERS = 18
WIDTH, HEIGHT, GAP_X, GAP_Y = 148, 50, 62, 14  # of a trial's box and between boxes, in pixels


def family(best: RecordedTrial, trials: Mapping[int, RecordedTrial]) -> dict[str, Any] | None:
    """Boxes and lines of the best and its ancestors, the oldest at the left; None when it has no recorded parent.

    trials: by number; parents that are not among them are left out. Sizes are in pixels.
    """
    generation = _generations(best, trials)
    if len(generation) < 2:
        return None
    oldest = max(generation.values())
    columns: list[list[RecordedTrial]] = [[] for _ in range(oldest + 1)]
    for number, age in generation.items():
        columns[oldest - age].append(trials[number] if number != best.number else best)
    line = _main_line(best, trials, generation)
    tallest = max(len(column) for column in columns)
    boxes: dict[int, dict[str, Any]] = {}
    for place, column in enumerate(columns):
        column.sort(key=lambda trial: (trial.number not in line, _time(trial), trial.number))
        top = (tallest - len(column)) * (HEIGHT + GAP_Y) / 2
        for row, trial in enumerate(column):
            x, y = place * (WIDTH + GAP_X) + 1, round(top + row * (HEIGHT + GAP_Y)) + 1
            gain = gain_over_parents(trial, trials)
            boxes[trial.number] = {"trial": trial, "x": x, "y": y, "main": trial.number in line, "gain": gain}
    lines = [
        _line(boxes[parent], box)
        for box in boxes.values()
        for parent in dict.fromkeys(box["trial"].origin.parents)
        if parent in boxes and parent != box["trial"].number
    ]
    return {
        "boxes": list(boxes.values()),
        "lines": sorted(lines, key=lambda found: found["main"]),
        "width": len(columns) * (WIDTH + GAP_X) - GAP_X + 2,
        "height": tallest * (HEIGHT + GAP_Y) - GAP_Y + 2,
        "box": (WIDTH, HEIGHT),
        "cut": any(n in trials and n not in boxes for b in boxes.values() for n in b["trial"].origin.parents),
    }


def gain_over_parents(trial: RecordedTrial, trials: Mapping[int, RecordedTrial]) -> float | None:
    """How much less time than its faster parent, as a share of the parent's; None where either has no time."""
    times = [_time(trials[number]) for number in trial.origin.parents if number in trials]
    fastest = min(times, default=math.inf)
    return 1.0 - trial.time_us / fastest if trial.time_us is not None and fastest < math.inf else None


def _time(trial: RecordedTrial) -> float:
    return trial.time_us if trial.time_us is not None else math.inf


def _generations(best: RecordedTrial, trials: Mapping[int, RecordedTrial]) -> dict[int, int]:
    """Trial number -> generations before the best: the longest way, so that every line runs from left to right."""
    generation = {best.number: 0}
    current = [best]
    for age in range(1, GENERATIONS + 1):
        parents = {n: trials[n] for child in current for n in child.origin.parents if n in trials and n != best.number}
        # A child is recorded after its parents: a larger number among them would be a circle.
        parents = {n: t for n, t in parents.items() if any(n < c.number for c in current if n in c.origin.parents)}
        current = sorted(parents.values(), key=_time)[: max(1, MEMBERS - len(generation))]
        generation |= {trial.number: age for trial in current}
        if not current or len(generation) >= MEMBERS:
            break
    return generation


def _main_line(best: RecordedTrial, trials: Mapping[int, RecordedTrial], known: Mapping[int, int]) -> set[int]:
    """Numbers of the best, its faster parent, that one's faster parent and so on."""
    line, current = {best.number}, best
    while True:
        parents = [trials[n] for n in current.origin.parents if n in known and n in trials and n < current.number]
        if not parents:
            return line
        current = min(parents, key=_time)
        line.add(current.number)


def _line(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """From the middle of the parent's right side to the middle of the child's left side, as an SVG path."""
    x1, y1 = parent["x"] + WIDTH, parent["y"] + HEIGHT / 2
    x2, y2 = child["x"], child["y"] + HEIGHT / 2
    bend = min(GAP_X, x2 - x1) / 2
    path = f"M{x1} {y1:g}C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2} {y2:g}"
    return {"path": path, "main": parent["main"] and child["main"]}
