"""What pictures are drawn from: curves, quartiles, importances, lineage, occupancy. Numbers in, numbers out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, cast

import numpy as np

from evo.dashboard.family import gain_over_parents
from evo.expression import value_text
from evo.record import Campaign, Interval, Point, RecordedTrial, Samples

RANDOM_OPERATORS = ("random", "control")  # drawn evenly from the space whenever they come
OPENING = ("default", "seed", "stranger")  # operators of a search's opening, where strangers are drawn evenly too
FEWEST_RANDOM = 10  # random trials below which their expectation would be a guess
WORKER_KINDS = ("build", "verify", "measure", "idle")


def best_so_far(points: Sequence[Point]) -> tuple[list[int], list[float]]:
    """Positions at which the best time improved, and the times, in microseconds."""
    positions: list[int] = []
    times: list[float] = []
    for point in points:
        if point.time_us is not None and (not times or point.time_us < times[-1]):
            positions.append(point.position)
            times.append(point.time_us)
    return positions, times


def random_expectation(points: Sequence[Point], *, proposer: str, length: int) -> tuple[list[int], list[float]] | None:
    """Expected best of n random trials from the campaign's own, for n up to `length` or as many as it has of them.

    Failures count as draws that improve nothing. None when fewer than ten random trials were measured.
    """
    drawn = random_trials(points, proposer)
    times = np.sort([p.time_us for p in drawn if p.time_us is not None])
    if len(times) < FEWEST_RANDOM:
        return None
    draws = np.unique(np.geomspace(1, max(2, min(length, len(drawn))), 60).round().astype(int))
    # With replacement: the best of n is the k-th fastest or faster with probability 1 - (1 - k/N)^n.
    share = np.arange(1, len(times) + 1) / len(drawn)
    reached = 1.0 - (1.0 - np.minimum(share, 1.0))[None, :] ** draws[:, None]
    steps = np.diff(reached, axis=1, prepend=0.0)
    expected = (steps * times).sum(axis=1) / reached[:, -1]
    return draws.tolist(), expected.tolist()


def random_trials(points: Sequence[Point], proposer: str) -> list[Point]:
    """Trials that were drawn evenly from the space: later strangers were picked by what had been learnt."""
    if proposer == "random":
        return [p for p in points if p.operator not in ("default", "seed")]
    opening = list(takewhile(lambda p: p.operator in OPENING, points))
    return [p for p in opening if p.operator == "stranger"] + [p for p in points if p.operator in RANDOM_OPERATORS]


def quartiles(times_us: Sequence[float]) -> dict[str, float]:
    """Box of a distribution: fences at the furthest values within 1.5 interquartile ranges."""
    values = np.sort(np.asarray(times_us, dtype=float))
    q1, median, q3 = (float(x) for x in np.percentile(values, [25, 50, 75]))
    reach = 1.5 * (q3 - q1)
    inside = values[(values >= q1 - reach) & (values <= q3 + reach)]
    return {
        "q1": q1,
        "median": median,
        "q3": q3,
        "low": float(inside.min()),
        "high": float(inside.max()),
        "best": float(values[0]),
        "count": len(values),
    }


def knob_table(campaign: Campaign, points: Sequence[Point]) -> list[dict[str, Any]]:
    """Knobs with their values: the space's, and values met besides."""
    values: dict[str, dict[Any, None]] = {
        k["name"]: dict.fromkeys(k["values"]) for k in campaign.space.get("knobs", ())
    }
    for point in points:
        for name, value in point.configuration.items():
            values.setdefault(name, {})[value] = None
    return [{"name": name, "values": list(found)} for name, found in values.items()]


def knob_effects(knobs: Sequence[Mapping[str, Any]], points: Sequence[Point]) -> list[dict[str, Any]]:
    """For each knob the distribution of measured times by value, and how many trials of that value were rejected."""
    effects = []
    for knob in knobs:
        name = knob["name"]
        times: dict[tuple[bool, Any], list[float]] = {}
        tried: Counter[tuple[bool, Any]] = Counter()
        for point in points:
            if name not in point.configuration:
                continue
            value = typed(point.configuration[name])
            tried[value] += 1
            if point.time_us is not None:
                times.setdefault(value, []).append(point.time_us)
        boxes = []
        for value in knob["values"]:
            found = times.get(typed(value), [])
            box = quartiles(found) if found else {"count": 0}
            boxes.append({"value": value_word(value), "rejected": tried[typed(value)] - len(found), **box})
        effects.append({"knob": name, "boxes": boxes})
    return effects


def typed(value: Any) -> tuple[bool, Any]:
    """1 and True are one key of a dictionary; here they are two."""
    return isinstance(value, bool), value


def importances(knobs: Sequence[Mapping[str, Any]], points: Sequence[Point]) -> list[tuple[str, float]]:
    """Share of each knob in being among the fastest tenth, by Optuna's PED-ANOVA; empty with too few trials.

    Source: Watanabe, Bansal and Hutter 2023, PED-ANOVA.
    """
    measured = [p for p in points if p.time_us is not None]
    varied = [k for k in knobs if len({p.configuration.get(k["name"]) for p in measured}) > 1]
    if len(measured) < 20 or not varied:
        return []
    import warnings

    import optuna

    from evo.dashboard.study import study_of

    choices = {k["name"]: tuple(k["values"]) for k in varied}
    complete = [p for p in measured if all(name in p.configuration for name in choices)]
    pairs = [({name: p.configuration[name] for name in choices}, cast(float, p.time_us)) for p in complete]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study_of(choices, pairs), evaluator=evaluator)
    return sorted(((name, float(share)) for name, share in found.items()), key=lambda pair: -pair[1])


def thinned(ordered: Sequence[float], most: int = 200) -> tuple[list[float], list[float]]:
    """(percent of the values up to here, value) at no more than `most` evenly spaced ranks, first and last included."""
    ranks = [int(r) for r in np.unique(np.linspace(0, len(ordered) - 1, min(most, len(ordered))).round())]
    return [round(100 * (rank + 1) / len(ordered), 2) for rank in ranks], [ordered[rank] for rank in ranks]


def occupancy(intervals: Sequence[Interval], *, bins: int = 120) -> dict[str, Any] | None:
    """Mean number of workers busy with each kind of work over time; the rest of the workers is idle.

    seconds: middle of each bin, counted from the first interval.
    """
    work = [item for item in intervals if item.ended_at > item.started_at]
    if not work:
        return None
    start = min(item.started_at for item in work)
    end = max(item.ended_at for item in work)
    width = (end - start) / bins
    starts = (np.array([item.started_at for item in work]) - start) / width
    ends = (np.array([item.ended_at for item in work]) - start) / width
    kinds = np.array([item.kind for item in work])
    series = {kind: _busy(starts[kinds == kind], ends[kinds == kind], bins) for kind in WORKER_KINDS}
    workers = len({item.worker for item in work})
    busy = sum((series[kind] for kind in WORKER_KINDS[:3]), np.zeros(bins))
    if not (kinds == "idle").any():
        series["idle"] = np.maximum(0.0, workers - busy)
    seats = {item.worker for item in work if item.kind in ("verify", "measure")}
    seat_share = _union_share([i for i in work if i.worker in seats and i.kind != "idle"], start, end, len(seats))
    return {
        "seconds": [(index + 0.5) * width for index in range(bins)],
        "kinds": {kind: [round(float(x), 4) for x in series[kind]] for kind in WORKER_KINDS},
        "workers": workers,
        "seats": len(seats),
        "seat_busy_share": seat_share,
    }


def _busy(starts: np.ndarray[Any, Any], ends: np.ndarray[Any, Any], bins: int) -> np.ndarray[Any, Any]:
    """How much of each unit bin the intervals cover, summed: exact, by differences of the covered length."""
    edges = np.arange(bins + 1, dtype=float)
    # Length of all intervals left of an edge: sum over intervals of min(edge, end) - start where the edge is beyond.
    s, e = np.sort(starts), np.sort(ends)
    s_sum, e_sum = np.concatenate([[0.0], np.cumsum(s)]), np.concatenate([[0.0], np.cumsum(e)])
    begun, done = np.searchsorted(s, edges), np.searchsorted(e, edges)
    covered = (begun * edges - s_sum[begun]) - (done * edges - e_sum[done])
    return np.diff(covered)


def _union_share(intervals: Sequence[Interval], start: float, end: float, workers: int) -> float | None:
    """Share of the time that these workers were busy."""
    if not workers or end <= start:
        return None
    return min(1.0, sum(item.ended_at - item.started_at for item in intervals) / (workers * (end - start)))


def lineage(best: RecordedTrial, trials: Mapping[int, RecordedTrial], *, most: int = 12) -> list[dict[str, Any]]:
    """The best and its ancestors along the faster parent of each, with what changed from parent to child."""
    steps: list[dict[str, Any]] = []
    current: RecordedTrial | None = best
    seen: set[int] = set()
    while current is not None and current.number not in seen and len(steps) < most:
        seen.add(current.number)
        parents = [trials[number] for number in current.origin.parents if number in trials]
        parent = min(parents, key=lambda t: t.time_us if t.time_us is not None else math.inf, default=None)
        changed = changes(parent.configuration, current.configuration) if parent is not None else []
        gain = gain_over_parents(current, trials)
        steps.append({"trial": current, "parents": list(current.origin.parents), "changed": changed, "gain": gain})
        current = parent
    return steps


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(knob, old, new) for the knobs whose value differs."""
    names = list(dict.fromkeys([*before, *after]))
    pairs = ((name, value_word(before.get(name)), value_word(after.get(name))) for name in names)
    return [(name, old, new) for name, old, new in pairs if old != new]


def value_word(value: Any) -> str:
    """A knob's value as it is written in YAML."""
    return "unset" if value is None else value_text(value)


def ratio_interval(samples: Sequence[Samples]) -> tuple[float, float] | None:
    """95 % bootstrap interval of the ratio to the anchor from paired warm samples; None without pairs."""
    from evo.measure import gain_interval

    warm = {item.name: item.values_us for item in samples if item.l2 == "warm"}
    ours, anchor = warm.get("variant", ()), warm.get("anchor", ())
    if len(ours) < 3 or len(ours) != len(anchor):
        return None
    found = gain_interval(ours, anchor, draws=300)
    return found.low, found.high
