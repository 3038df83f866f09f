"""What was recorded, done again: one trial rebuilt and re-measured, every elite verified on fresh inputs.

Both work from the database alone: a recorded variant holds its sources, its header and its launch.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from evo.errors import InputError
from evo.inspect import device_seat
from evo.measure import Interval, median_interval
from evo.outcome import Built, Measured, Outcome, Rejected, Stage
from evo.record import Elite, Event, Promotion, Record, VariantRecord, open_record
from evo.seat import Seat
from evo.targets import build
from evo.variant import Variant, variant_key
from evo.workloads import find_workload

WITHIN = 0.10  # a median this near to the recorded one is the same time on another day
Say = Callable[[str], None]


def replay_trial(trial_id: int, *, db: str, within: float = WITHIN) -> dict[str, Any]:
    """Rebuild and re-measure one recorded trial and compare key, binary, outcome and time.

    within: how far the median may lie from the recorded one, as a fraction, where the intervals do not overlap.
    Raises: InputError when there is no such trial, it was replayed from a recording, or it is of another device.
    """
    with open_record(db, create=False) as record:
        trial = record.trial(trial_id)
        campaign = record.campaign(trial.campaign_id)
        if campaign.replay:
            raise InputError(f"trial {trial_id} was replayed ({campaign.replay}); there is nothing to measure again")
        saved = record.variant(trial.variant_key)
        samples = {(s.name, s.l2): s.values_us for s in record.samples(trial_id)}
    case = _case(campaign.workload, campaign.case_name, saved)
    with device_seat(saved.language, campaign.workload, case) as seat:
        facts = seat.ready.facts
        if facts.arch != saved.arch:
            raise InputError(f"trial {trial_id} is of {saved.arch}; this device is {facts.arch}")
        variant = _for_this_machine(saved, seat.ready.toolchain)
        built = build(variant)
        outcome = built if isinstance(built, Rejected) else seat.evaluate(variant, built, None)
        toolchain = seat.ready.toolchain
    recorded = samples.get(("variant", "warm"), ())
    checks: dict[str, bool | None] = {
        "key": variant.key == saved.key,
        "binary": built.binary_hash == saved.binary_hash if isinstance(built, Built) and saved.binary_hash else None,
        "outcome": _fate(outcome) == _fate(trial.outcome),
        "time": _same_time(recorded, outcome, within),
    }
    return {
        "trial": trial_id,
        "campaign": campaign.id,
        "base": campaign.base,
        "case": campaign.case_name,
        "variant": saved.key,
        "configuration": dict(saved.configuration),
        "recorded": {
            "device": campaign.environment.device,
            "driver": campaign.environment.driver,
            "toolchain": saved.toolchain,
            "outcome": _fate(trial.outcome),
            **_times(recorded, samples.get(("anchor", "warm"), ())),
        },
        "now": {
            "device": facts.name,
            "driver": facts.driver,
            "toolchain": toolchain,
            "outcome": _fate(outcome),
            "detail": outcome.detail if isinstance(outcome, Rejected) else "",
            **(_times(outcome.samples_us, outcome.anchor_us) if isinstance(outcome, Measured) else _times((), ())),
        },
        "checks": checks,
        "within": within,
        "reproduces": all(held is not False for held in checks.values()),
    }


def _case(workload: str, name: str, saved: VariantRecord) -> Any:
    """The case of that name with the constants that the variant was compiled with."""
    causal = bool(saved.constants.get("causal", False))
    shape = name.removesuffix("-causal") if causal else name
    return find_workload(workload).case(shape, dtype=str(saved.constants["dtype"]), causal=causal)


def _for_this_machine(saved: VariantRecord, toolchain: str) -> Variant:
    """The recorded program as this machine's toolchain builds it; its key is the recorded one if that is the same."""
    key = variant_key(saved.sources, saved.header, saved.entry, saved.arch, toolchain)
    return replace(saved.variant(), key=key, toolchain=toolchain)


def _fate(outcome: Outcome) -> str:
    return outcome.fate if isinstance(outcome, Rejected) else "measured"


def _same_time(recorded: Sequence[float], outcome: Outcome, within: float) -> bool | None:
    """None where there are not two times to compare."""
    if isinstance(outcome, Rejected) or not recorded:
        return None
    then, now = median_interval(recorded), median_interval(outcome.samples_us)
    overlap = then.low <= now.high and now.low <= then.high
    return overlap or abs(now.median / then.median - 1.0) <= within


def _times(samples_us: Sequence[float], anchor_us: Sequence[float]) -> dict[str, Any]:
    time: Interval | None = median_interval(samples_us) if samples_us else None
    ratio = statistics.median(anchor_us) / time.median if time is not None and anchor_us else None
    return {"time": asdict(time) if time is not None else None, "ratio": ratio}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one elite."""

    base: str
    case: str
    dtype: str
    arch: str
    rank: int
    variant: str
    fate: str  # holds, demoted, or skipped
    reason: str


def verify_elites(*, db: str, base: str = "", seeds: int = 3, say: Say = lambda _: None) -> list[Verdict]:
    """Build and verify every reigning elite of this device again, on fresh inputs; what fails is demoted.

    Elites of other devices and of replayed campaigns are skipped. Raises: InputError.
    """
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: expected at least 1")
    verdicts: list[Verdict] = []
    with open_record(db, create=False) as record:
        reigning = record.elites(base=base or None)
        for _, group in groupby(reigning, key=lambda elite: elite.place):
            elites = list(group)
            say(f"{elites[0].place.base}, case {elites[0].place.case_name} {elites[0].place.dtype}")
            verdicts += _verify_place(record, elites, seeds)
    return verdicts


def _verify_place(record: Record, elites: Sequence[Elite], seeds: int) -> list[Verdict]:
    place = elites[0].place
    saved = {elite.variant_key: record.variant(elite.variant_key) for elite in elites}
    first = saved[elites[0].variant_key]
    measured = [elite for elite in elites if not elite.replay]
    if not measured or not first.sources:
        return [_verdict(elite, "skipped", f"replayed: {elite.replay}") for elite in elites]
    campaign = record.campaign(measured[0].campaign_id)
    case = _case(campaign.workload, place.case_name, first)
    try:
        with device_seat(first.language, campaign.workload, case) as seat:
            verdicts = [_verify_one(elite, saved[elite.variant_key], seat, seeds) for elite in elites]
    except InputError as error:  # no such device here
        return [_verdict(elite, "skipped", str(error)) for elite in elites]
    _demote(record, elites, verdicts)
    return verdicts


def _verify_one(elite: Elite, saved: VariantRecord, seat: Seat, seeds: int) -> Verdict:
    facts = seat.ready.facts
    if elite.replay:
        return _verdict(elite, "skipped", f"replayed: {elite.replay}")
    if facts.arch != saved.arch:
        return _verdict(elite, "skipped", f"of {saved.arch}; this device is {facts.arch}")
    variant = _for_this_machine(saved, seat.ready.toolchain)
    built = build(variant, timeout_s=300.0)
    outcome = built if isinstance(built, Rejected) else seat.verify(variant, built, seeds)
    if not isinstance(outcome, Rejected):
        return _verdict(elite, "holds", f"right on {len(outcome.errors)} outputs, {facts.name}, driver {facts.driver}")
    if outcome.stage is Stage.TIMEOUT and outcome.reason == "build":
        return _verdict(elite, "skipped", "the compiler took too long to say anything")
    return _verdict(elite, "demoted", f"{outcome.fate}: {outcome.detail}"[:500])


def _verdict(elite: Elite, fate: str, reason: str) -> Verdict:
    place = elite.place
    return Verdict(place.base, place.case_name, place.dtype, place.arch, elite.rank, elite.variant_key, fate, reason)


def _demote(record: Record, elites: Sequence[Elite], verdicts: Iterable[Verdict]) -> None:
    """Record what was found; those who failed leave, those who did not move up."""
    place = elites[0].place
    fallen: set[str] = set()
    for elite, verdict in zip(elites, verdicts, strict=True):
        words = f"verified again: {verdict.fate}: {verdict.reason}"
        record.record_event(elite.campaign_id, Event("verification", words, {"variant": elite.variant_key}))
        if verdict.fate == "demoted":
            fallen.add(elite.variant_key)
            record.record_promotion(
                elite.campaign_id, Promotion(place, elite.variant_key, False, f"verified again: {verdict.reason}")
            )
    if fallen:
        kept = [elite.variant_key for elite in elites if elite.variant_key not in fallen]
        record.crown(elites[0].campaign_id, place, kept)
