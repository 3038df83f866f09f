"""Finalists against the incumbent and the baselines: crown or refuse, by statistics, with the reason recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evo.measure import Interval, gain_interval, median_interval
from evo.outcome import Contest, Rejected, Stage
from evo.record import Place, Promotion, Record, Samples

ELITES = 3  # kept per place
ERROR = 0.05  # chance that a contest promotes a variant that is no faster
MARGIN = 0.01  # a gain over the incumbent below this is not one


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one finalist."""

    variant_key: str
    accepted: bool
    reason: str
    time: Interval | None = None  # microseconds, warm L2
    ratio: Interval | None = None  # best baseline over this
    gain: Interval | None = None  # incumbent over this; None without incumbent
    proven: bool = False  # that it is faster than one that reigns, by the margin


@dataclass(frozen=True, slots=True)
class Crowning:
    """The outcome of one promotion: a verdict per finalist, and who reigns now, best first."""

    anchor: str
    baselines_us: Mapping[str, Interval]
    verdicts: tuple[Verdict, ...]
    reigning: tuple[str, ...]
    margin: float = MARGIN


def judge(contest: Contest, finalists: Sequence[str], incumbents: Sequence[str], *, margin: float = MARGIN) -> Crowning:
    """Decide from one contest's samples who reigns.

    finalists, incumbents: variant keys, all timed in the contest; incumbents[0] is the champion of before. A finalist
    that reigns already is judged as an incumbent: it keeps its place if it is still right.
    """
    baselines = {
        name.removeprefix("baseline:"): median_interval(samples)
        for name, samples in contest.warm_us.items()
        if name.startswith("baseline:")
    }
    anchor = min(baselines, key=lambda name: baselines[name].median, default="")
    standing = [key for key in incumbents if key in contest.warm_us]
    champion = min(standing, key=lambda key: median_interval(contest.warm_us[key]).median, default=None)
    challengers = [key for key in dict.fromkeys(finalists) if key not in incumbents]
    confidence = 1.0 - ERROR / max(1, len(challengers))  # Bonferroni: many challengers, one chance in all
    verdicts = tuple(
        _judge_one(contest, key, anchor, champion, standing, margin, confidence)
        for key in dict.fromkeys([*finalists, *incumbents])
    )
    accepted = [verdict for verdict in verdicts if verdict.accepted and verdict.time is not None]
    accepted.sort(key=lambda v: (not _leads(v, champion, margin), v.time.median if v.time else 0.0))
    for surplus in _surplus(accepted, standing):
        accepted.remove(surplus)
        verdicts = tuple(_displaced(verdict) if verdict is surplus else verdict for verdict in verdicts)
    return Crowning(anchor, baselines, verdicts, tuple(verdict.variant_key for verdict in accepted), margin)


def _surplus(accepted: Sequence[Verdict], standing: Sequence[str]) -> list[Verdict]:
    """Whom there is no place for, of verdicts in the order of reign: first who has proved nothing, slowest first.

    So nobody who reigns loses a place to a newcomer that only seems faster.
    """
    proved_nothing = [v for v in accepted if not v.proven and v.variant_key not in standing]
    others = [v for v in accepted if v not in proved_nothing]
    return [*reversed(proved_nothing), *reversed(others)][: max(0, len(accepted) - ELITES)]


def _displaced(verdict: Verdict) -> Verdict:
    return replace(verdict, accepted=False, reason=f"{ELITES} others are faster or were there before")


def _leads(verdict: Verdict, champion: str | None, margin: float) -> bool:
    """Whether this one may stand before the champion: proved faster by the margin. The champion leads all others."""
    if champion is None or verdict.variant_key == champion:
        return True
    return verdict.gain is not None and verdict.gain.low > 1.0 + margin


def _judge_one(
    contest: Contest,
    key: str,
    anchor: str,
    champion: str | None,
    standing: Sequence[str],
    margin: float,
    confidence: float,
) -> Verdict:
    if key in contest.rejected:
        rejected: Rejected = contest.rejected[key]
        return Verdict(key, False, f"{rejected.fate}: {rejected.detail}"[:500])
    if key not in contest.warm_us:
        return Verdict(key, False, "was not timed")
    samples = contest.warm_us[key]
    time = median_interval(samples)
    ratio = gain_interval(samples, contest.warm_us[f"baseline:{anchor}"]) if anchor else None
    if key in standing:
        return Verdict(key, True, "holds its place", time, ratio)
    if champion is None:
        return Verdict(key, True, "first of its place", time, ratio)
    gain = gain_interval(samples, contest.warm_us[champion], confidence=confidence)
    if gain.low > 1.0 + margin:
        words = f"faster than the champion by {100 * (gain.low - 1):.1f} % or more"
        return Verdict(key, True, words, time, ratio, gain, proven=True)
    slowest = max(standing, key=lambda other: median_interval(contest.warm_us[other]).median)
    over_slowest = gain_interval(samples, contest.warm_us[slowest], confidence=confidence)
    proven = over_slowest.low > 1.0 + margin
    if len(standing) < ELITES or proven:
        return Verdict(key, True, "among the best three", time, ratio, gain, proven)
    shown = f"{100 * (gain.low - 1):+.1f} to {100 * (gain.high - 1):+.1f} %"
    return Verdict(key, False, f"gain over the champion {shown}: not above {100 * margin:g} %", time, ratio, gain)


def record_crowning(record: Record, campaign_id: int, place: Place, contest: Contest, crowning: Crowning) -> None:
    """Write every verdict with its raw samples, then the elites of the place."""
    for verdict in crowning.verdicts:
        key = verdict.variant_key
        samples = [Samples("variant", contest.warm_us[key])] if key in contest.warm_us else []
        if key in contest.cold_us:
            samples.append(Samples("variant", contest.cold_us[key], l2="cold"))
        for l2, times in (("warm", contest.warm_us), ("cold", contest.cold_us)):
            samples += [
                Samples(_sample_name(name, crowning.anchor), values, l2=l2)
                for name, values in times.items()
                if name.startswith("baseline:")
            ]
        cold = _cold_statistics(contest, key)
        record.record_promotion(
            campaign_id,
            Promotion(
                place=place,
                variant_key=key,
                accepted=verdict.accepted,
                reason=verdict.reason,
                time_us=verdict.time.median if verdict.time else None,
                time_low_us=verdict.time.low if verdict.time else None,
                time_high_us=verdict.time.high if verdict.time else None,
                ratio=verdict.ratio.median if verdict.ratio else None,
                ratio_low=verdict.ratio.low if verdict.ratio else None,
                ratio_high=verdict.ratio.high if verdict.ratio else None,
                gain_low=verdict.gain.low - 1 if verdict.gain else None,
                gain_high=verdict.gain.high - 1 if verdict.gain else None,
                anchor=crowning.anchor,
                statistics={
                    "rounds": len(contest.warm_us.get(key, ())),
                    "margin": crowning.margin,
                    "baselines_us": {name: time.median for name, time in crowning.baselines_us.items()},
                    "environment": dict(contest.environment),
                    **({"sanitizer": contest.sanitizer[key]} if key in contest.sanitizer else {}),
                    **cold,
                },
                samples=tuple(samples),
            ),
        )
    standing = record.elites(base=place.base, case_name=place.case_name, dtype=place.dtype, arch=place.arch)
    fates = [contest.rejected.get(elite.variant_key) for elite in standing]
    all_wrong = bool(fates) and all(fate is not None and fate.stage != Stage.TIMEOUT for fate in fates)
    if crowning.reigning or all_wrong:  # a place may be left empty rather than to a wrong kernel
        record.crown(campaign_id, place, crowning.reigning)


def _sample_name(contender: str, anchor: str) -> str:
    backend = contender.removeprefix("baseline:")
    return "anchor" if backend == anchor else backend


def _cold_statistics(contest: Contest, key: str) -> dict[str, object]:
    """Median and ratio with a cold L2, where that was timed."""
    if key not in contest.cold_us:
        return {}
    theirs = {n: s for n, s in contest.cold_us.items() if n.startswith("baseline:")}
    time = median_interval(contest.cold_us[key])
    found: dict[str, object] = {"cold_us": time.median, "cold_low_us": time.low, "cold_high_us": time.high}
    if theirs:
        best = min(theirs, key=lambda name: median_interval(theirs[name]).median)
        ratio = gain_interval(contest.cold_us[key], theirs[best])
        found |= {"cold_ratio": ratio.median, "cold_ratio_low": ratio.low, "cold_ratio_high": ratio.high}
        found["cold_anchor"] = best.removeprefix("baseline:")
    return found
