"""What each page shows: facts from the record, shaped for templates, charts and the JSON API alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from evo.arms import Arms, arms_of
from evo.dashboard import analysis, family, words
from evo.record import Campaign, Elite, Point, Record, RecordedTrial

POINTS_MOST = 2500  # points drawn: more than a screen can tell apart, few enough to draw at once
FASTEST = 15
WORDS_MOST = 6000  # characters of a compiler's words shown on a campaign's page; the trial's page has all


T = TypeVar("T")
_KEPT_MOST = 2000
_kept: WeakKeyDictionary[Record, dict[tuple[Any, ...], Any]] = WeakKeyDictionary()


def remember(record: Record, key: tuple[Any, ...], make: Callable[[], T]) -> T:
    """The value made once for this record and key; the oldest are forgotten."""
    kept = _kept.setdefault(record, {})
    if key not in kept:
        value = make()
        while len(kept) >= _KEPT_MOST:
            kept.pop(next(iter(kept)), None)
        kept[key] = value
    return cast(T, kept[key])


def replace(record: Record, key: tuple[Any, ...], value: Any) -> None:
    """Remember this value from now on."""
    _kept.setdefault(record, {})[key] = value


def plain(value: Any) -> Any:
    """Values as strict JSON."""
    from evo.record.lines import plain as strict

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return strict(dataclasses.asdict(value))
    return strict(value)


# --- campaigns -------------------------------------------------------------------------------------------------------


def campaign_facts(record: Record, campaign: Campaign) -> dict[str, Any]:
    """One campaign as the JSON API tells it."""
    facts: dict[str, Any] = plain(campaign)
    facts["state"] = words.state(campaign)
    facts["valid_share"] = campaign.valid_share
    facts["seconds"] = words.lasted(campaign)
    low_high = best_interval(record, campaign)
    facts["best_ratio_low"], facts["best_ratio_high"] = low_high or (None, None)
    return facts


def best_interval(record: Record, campaign: Campaign) -> tuple[float, float] | None:
    """95 % interval of the best trial's ratio to the anchor, from its raw samples."""
    if campaign.best_trial_id is None or campaign.best_ratio is None:
        return None
    trial_id = campaign.best_trial_id
    return remember(record, ("interval", trial_id), lambda: analysis.ratio_interval(record.samples(trial_id)))


def rate(record: Record, campaign: Campaign) -> float | None:
    """Variants per second between the first trial's start and the last one's row."""
    span = record.span(campaign.id)
    if span is None or campaign.evaluated < 2:
        return None
    started, recorded = max(span[0], campaign.started_at), span[1]
    return campaign.evaluated / (recorded - started) if recorded > started else None


# --- one campaign ----------------------------------------------------------------------------------------------------


def points_of(record: Record, campaign: Campaign) -> list[Point]:
    """The campaign's trials, thinned; of a campaign that is watched, only what came since the last look is read."""
    key = ("points", campaign.id)
    evaluated, points = remember(record, key, lambda: (-1, list[Point]()))
    if evaluated == campaign.evaluated:
        return points
    if points and len(points) + campaign.evaluated - evaluated <= 1.2 * POINTS_MOST:
        points = points + record.points(campaign.id, after=points[-1].id, most=POINTS_MOST)
    else:
        points = record.points(campaign.id, most=POINTS_MOST)
    replace(record, key, (campaign.evaluated, points))
    return points


def points_table(campaign: Campaign, points: Sequence[Point]) -> dict[str, Any]:
    """Trials as columns for the charts; knob values as indices into each knob's list, -1 where a trial has none."""
    knobs = analysis.knob_table(campaign, points)
    places = [{analysis.typed(value): index for index, value in enumerate(knob["values"])} for knob in knobs]
    names = [knob["name"] for knob in knobs]
    rows = [
        [place.get(analysis.typed(p.configuration.get(name)), -1) for name, place in zip(names, places, strict=True)]
        for p in points
    ]
    return {
        "position": [p.position for p in points],
        "id": [p.id for p in points],
        "number": [p.number for p in points],
        "seconds": [round(max(0.0, p.at - campaign.started_at), 3) for p in points],
        "time_us": [p.time_us for p in points],
        "ratio": [p.ratio for p in points],
        "outcome": [p.stage or "measured" for p in points],
        "reason": [p.reason for p in points],
        "operator": [p.operator for p in points],
        "knobs": [{"name": k["name"], "values": [analysis.value_word(v) for v in k["values"]]} for k in knobs],
        "rows": rows,
        "total": campaign.evaluated,
    }


def progress_facts(campaign: Campaign, points: Sequence[Point]) -> dict[str, Any]:
    """What is drawn beside the points: baselines, anchor, the expectation of random search."""
    expected = analysis.random_expectation(
        points, proposer=campaign.proposer, length=max(campaign.evaluated, campaign.budget or 0)
    )
    return {
        "baselines": {name: us for name, us in campaign.baselines.items() if isinstance(us, int | float)},
        "anchor": campaign.anchor,
        "expectation": {"position": expected[0], "time_us": expected[1]} if expected else None,
    }


def analysis_facts(record: Record, campaign: Campaign) -> dict[str, Any]:
    """Knob effects and worker occupancy."""
    return remember(record, ("analysis", campaign.id, campaign.evaluated), lambda: _analyse(record, campaign))


def _analyse(record: Record, campaign: Campaign) -> dict[str, Any]:
    points = points_of(record, campaign)
    knobs = analysis.knob_table(campaign, points)
    return {
        "effects": analysis.knob_effects(knobs, points),
        "occupancy": analysis.occupancy(record.intervals(campaign.id)),
        "trials": len(points),
        "of": campaign.evaluated,
    }


def importance_facts(record: Record, campaign: Campaign) -> list[tuple[str, float]]:
    """How much each knob decides who is fast. The slowest fact of a page: while a search runs, once per tenth more."""
    running = words.state(campaign) == "running"
    grown = int(math.log(max(1, campaign.evaluated), 1.1)) if running else campaign.evaluated
    return remember(record, ("importance", campaign.id, running, grown), lambda: _weigh(record, campaign))


def _weigh(record: Record, campaign: Campaign) -> list[tuple[str, float]]:
    points = points_of(record, campaign)
    return analysis.importances(analysis.knob_table(campaign, points), points)


def lineage_steps(record: Record, campaign: Campaign) -> list[dict[str, Any]]:
    """The best trial's ancestors, the best first; empty where nothing was measured."""
    known = _ancestors(record, campaign)
    return analysis.lineage(known[0], known[1]) if known is not None else []


def family_facts(record: Record, campaign: Campaign) -> dict[str, Any] | None:
    """The drawing of where the best came from; None where it has no recorded parents."""
    known = _ancestors(record, campaign)
    return family.family(known[0], known[1]) if known is not None else None


def _ancestors(record: Record, campaign: Campaign) -> tuple[RecordedTrial, dict[int, RecordedTrial]] | None:
    """The best trial, and it and its ancestors by number; None where nothing was measured."""
    best_id = campaign.best_trial_id
    return remember(record, ("lineage", best_id), lambda: _trace(record, campaign, best_id)) if best_id else None


def _trace(record: Record, campaign: Campaign, best_id: int) -> tuple[RecordedTrial, dict[int, RecordedTrial]]:
    best = record.trial(best_id)
    known = {best.number: best}
    wanted = set(best.origin.parents)
    for _ in range(12):  # generations
        missing = wanted - set(known)
        if not missing:
            break
        found = record.trials_numbered(campaign.id, missing)
        known |= {trial.number: trial for trial in found}
        wanted = {number for trial in found for number in trial.origin.parents}
    return best, known


def failure_rows(record: Record, campaign: Campaign) -> list[dict[str, Any]]:
    """Rejections by stage and reason, each with the words of the first trial that met it."""
    rows = []
    for failure in record.failures(campaign.id)[:40]:
        detail = _words_of(record, failure.trial_id)
        rows.append(
            {
                "stage": failure.stage,
                "reason": failure.reason,
                "count": failure.count,
                "trial_id": failure.trial_id,
                "share": failure.count / campaign.evaluated if campaign.evaluated else 0.0,
                "words": detail[:WORDS_MOST],
                "cut": len(detail) > WORDS_MOST,
            }
        )
    return rows


def _words_of(record: Record, trial_id: int) -> str:
    """What the compiler or the device said of a rejected trial."""
    return remember(record, ("words", trial_id), lambda: record.trial(trial_id).detail)


def campaign_page(record: Record, campaign: Campaign) -> dict[str, Any]:
    """Everything of a campaign's page that is not a chart."""
    promotions = record.promotions(campaign_id=campaign.id)
    promotions.sort(key=lambda item: (not item.promotion.accepted, item.promotion.time_us or math.inf))
    best = fastest(record, campaign)
    return {
        "campaign": campaign,
        "state": words.state(campaign),
        "interval": best_interval(record, campaign),
        "rate": rate(record, campaign),
        "failures": failure_rows(record, campaign),
        "fastest": best,
        "shared": shared(best),
        "lineage": lineage_steps(record, campaign),
        "arms": arms_facts(record, campaign),
        "family": family_facts(record, campaign),
        "events": record.events(campaign.id)[-30:],
        "promotions": promotions,
        "knobs": campaign.space.get("knobs", []),
    }


def arms_facts(record: Record, campaign: Campaign) -> Arms | None:
    """What evolution gained over the campaign's random arm; None where it had none."""
    if not campaign.control_share:
        return None
    return remember(record, ("arms", campaign.id, campaign.evaluated), lambda: arms_of(record, campaign.id))


def fastest(record: Record, campaign: Campaign) -> list[RecordedTrial]:
    """The fastest programs: trials that share a binary count once."""
    trials = record.trials(campaign.id, by_time=True, details=False, limit=4 * FASTEST)
    return [trial for trial in trials if trial.same_as is None][:FASTEST]


def shared(trials: Sequence[RecordedTrial] | Sequence[Elite]) -> dict[str, Any]:
    """Knobs that have one value in all of at least two configurations."""
    if len(trials) < 2:
        return {}
    first, *others = (trial.configuration for trial in trials)
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


# --- elites, variants, comparison ------------------------------------------------------------------------------------


def places(elites: Iterable[Elite]) -> list[dict[str, Any]]:
    """Elites grouped by place: who reigns, and who held the first rank before."""
    grouped: dict[Any, list[Elite]] = {}
    for elite in elites:
        grouped.setdefault(elite.place, []).append(elite)
    found = []
    for place, members in grouped.items():
        champions = [e for e in members if e.rank == 1]
        reigning = sorted((e for e in members if e.until is None), key=lambda e: e.rank)
        found.append(
            {
                "place": place,
                "reigning": reigning,
                "shared": shared(reigning),
                "champions": sorted(champions, key=lambda e: -e.since),
            }
        )
    return found


def samples_facts(record: Record, elites: Sequence[Elite]) -> list[dict[str, Any]]:
    """Raw samples of elites and of the baselines timed beside the first."""
    series = []
    for elite in elites:
        for item in record.samples(promotion_id=elite.promotion_id):
            own = item.name == "variant"
            if own or elite.rank == 1:
                label = (
                    f"rank {elite.rank}: {elite.variant_key[:10]}" if own else timed(item.name, elite.promotion.anchor)
                )
                series.append({"label": label, "l2": item.l2, "own": own, "values_us": list(item.values_us)})
    return series


def timed(name: str, anchor: str) -> str:
    """What was timed beside a variant, by its name: the anchor is one of PyTorch's backends."""
    return f"{words.backend(anchor)}, the anchor" if name == "anchor" else words.backend(name)


def compare_facts(record: Record, campaigns: Sequence[Campaign]) -> dict[str, Any]:
    """Best-so-far of each campaign against evaluations and seconds, in time and in ratio to its own anchor; and how
    its measured trials are spread, at evenly spaced percents of them."""
    return {"curves": [_curve(campaign, points_of(record, campaign)) for campaign in campaigns]}


def _curve(campaign: Campaign, points: Sequence[Point]) -> dict[str, Any]:
    measured = [p for p in points if p.time_us is not None]
    steps: list[Point] = []
    for point in measured:
        if not steps or (point.time_us or 0) < (steps[-1].time_us or 0):
            steps.append(point)
    times = sorted(p.time_us for p in measured if p.time_us is not None)
    ratios = sorted((p.ratio for p in measured if p.ratio is not None), reverse=True)
    percents, spread_us = analysis.thinned(times)
    ratio_percents, spread_ratio = analysis.thinned(ratios)
    return {
        "id": campaign.id,
        "label": f"{campaign.id}: {campaign.base}, {campaign.proposer}, {campaign.environment.device}",
        "position": [p.position for p in steps],
        "seconds": [round(max(0.0, p.at - campaign.started_at), 3) for p in steps],
        "time_us": [p.time_us for p in steps],
        "ratio": [p.ratio for p in steps],
        "end_position": campaign.evaluated,
        "end_seconds": round(max((p.at - campaign.started_at for p in points), default=0.0), 3),
        "spread_us": {"percent": percents, "value": spread_us},
        "spread_ratio": {"percent": ratio_percents, "value": spread_ratio},
    }
