"""A whole search: find the base, raise the fleet, breed, record, promote. What `evo search` calls."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

from evo.arms import Arms, arms_of
from evo.campaign import Binding, Campaign, Progress, build_all
from evo.errors import InputError, WorkersLost
from evo.measure import HOST_TIMING, Interval, Timing, median_interval
from evo.outcome import Built, Contest
from evo.patience import Patience
from evo.preflight import Say, check_knobs, prove_harness
from evo.promote import Crowning, judge, record_crowning
from evo.provenance import describe_environment
from evo.record import (
    CampaignSpec,
    Environment,
    Event,
    Place,
    Record,
    check_place,
    database_name,
    is_missing,
    open_record,
)
from evo.resume import as_before, find_unfinished, nothing_to_resume, stream_of, to_resume
from evo.search import check_name, make_proposer
from evo.search.control import with_control
from evo.setting import SearchRequest, Setting, check_memory, check_space, resolve
from evo.space import Configuration, SearchSpace
from evo.targets.replay import ReplayFleet
from evo.variant import Variant

FINALISTS = 3


@dataclass(slots=True)
class SearchResult:
    """What came of it."""

    campaign_id: int
    state: str
    reason: str
    progress: Progress
    binding: Binding
    place: Place
    replay: str  # empty, or whose recorded times these are
    contest: Contest | None = None
    crowning: Crowning | None = None
    arms: Arms | None = None  # what evolution gained over the random arm, where there was one
    default_time: Interval | None = None


def search(
    request: SearchRequest,
    *,
    watch: Callable[[Progress], None] = lambda _: None,
    say: Say = lambda _: None,
    warn: Say = lambda _: None,
) -> SearchResult:
    """Search, record and promote. Ctrl-C ends it cleanly with everything so far recorded.

    watch: called often with the progress; say: called with one plain line at each step; warn: with what is to be heard
    even by those who asked for silence.
    Raises: InputError for everything that the user can mend.
    """
    setting = resolve(request)
    check_name(request.proposer)
    check_space(request, setting)
    check_memory(request, setting)
    if request.resume and find_unfinished(request) is None:
        raise nothing_to_resume(database_name(request.db), setting)
    check_place(request.db)
    with contextlib.ExitStack() as held:
        record = None if is_missing(request.db) else held.enter_context(open_record(request.db))
        if setting.replay:
            say(f"No GPU is used: this plays {setting.replay}. Nothing is measured.")
        else:
            say(f"Starting Ray and a {setting.target} worker (a few seconds)")
            if not setting.base.shipped:
                what = "is not one of Evo's own bases: its code is compiled and run here as"
                warn(f"{setting.base.path} {what} {_user()}")
        fleet = held.enter_context(raise_fleet(request, setting))
        binding = bind(setting, fleet)
        if record is None:  # made only now: a base that does not fit the device leaves no empty database behind
            record = held.enter_context(open_record(request.db))
        return search_with(fleet, request, setting, record, watch, say, binding=binding)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"


def raise_fleet(request: SearchRequest, setting: Setting) -> AbstractContextManager[Any]:
    if setting.recording is not None:
        return ReplayFleet(setting.recording)
    from evo.fleet import Fleet
    from evo.seat import WorkerSpec

    timing = HOST_TIMING if setting.target == "host" else Timing()
    spec = WorkerSpec(
        setting.target,
        setting.base.workload,
        setting.case,
        timing,
        verify_s=request.verify_timeout_s,
        measure_s=request.measure_timeout_s,
        contest_s=request.contest_timeout_s,
    )
    return Fleet(spec, address=request.ray_address, gpu_type=request.gpu_type, build_s=request.build_timeout_s)


def bind(setting: Setting, fleet: Any) -> Binding:
    """Bind the base to what the fleet's device is and to the case's constants."""
    facts, recording = fleet.ready.facts, setting.recording
    constants = dict(recording.constants) if recording is not None else setting.case.constants()
    known = {**facts.limits, **constants}
    own = setting.base.space(known) if setting.base.sources[""] else None
    space = recording.space if recording is not None else own
    assert space is not None
    if recording is None:
        setting.base.check_use(space, known, setting.case.dimensions())
    return Binding(
        base=setting.base,
        space=space,
        rules_space=own or space,
        constants=constants,
        facts=dict(facts.limits),
        arch=facts.arch,
        toolchain=fleet.ready.toolchain,
    )


def search_with(
    fleet: Any,
    request: SearchRequest,
    setting: Setting,
    record: Record,
    watch: Callable[[Progress], None] = lambda _: None,
    say: Say = lambda _: None,
    *,
    binding: Binding | None = None,
) -> SearchResult:
    """As `search`, on a fleet that is up and a record that is open: several searches in a row share both."""
    binding = binding or bind(setting, fleet)
    facts = fleet.ready.facts
    place = Place(setting.base.name, setting.case_name, setting.dtype, facts.arch)
    unfinished = to_resume(record, setting, place) if request.resume else None
    if unfinished is not None:
        request = as_before(request, unfinished, record.searched_s(unfinished.id))
    seeds = [binding.space.default] if binding.space.has_default else []
    seeds += _known_elites(record, binding, place)
    stream = stream_of(request.seed, unfinished.evaluated if unfinished is not None else 0)
    proposer = make_proposer(request.proposer, binding.space, stream, budget=request.budget, seeds=seeds)
    if request.control_share is not None:
        proposer = with_control(proposer, request.control_share, stream)
    if unfinished is None:
        campaign_id = _start_campaign(record, request, setting, binding, place, fleet)
    else:
        campaign_id = unfinished.id
        record.resume_campaign(campaign_id)
        record.update_campaign(campaign_id, budget=request.budget)
    campaign = Campaign(
        record, campaign_id, binding, proposer, fleet, request.budget, request.time_limit_s, watch=watch
    )
    if request.patience is not None:
        campaign.patience = Patience(request.patience)
    campaign.progress.anchor = fleet.ready.anchor
    if unfinished is not None:
        if not record.settle(campaign_id):
            raise InputError(f"--resume: {record.name} does not take the results that are spooled beside it")
        campaign.resume()
        left = "" if request.time_limit_s is None else f", {request.time_limit_s:.0f} s of its time limit left"
        say(f"Going on with campaign {campaign_id} after {campaign.progress.evaluated} outcomes{left}")
    where = setting.replay or f"{facts.name} ({facts.arch})"
    size = f"{binding.space.size:,} configurations"
    case = f"{place.case_name} {place.dtype}".strip()  # a recording of others may name no dtype
    say(f"Campaign {campaign_id}: {place.base}, case {case}, {size}, {where}")
    result = SearchResult(campaign_id, "done", "", campaign.progress, binding, place, setting.replay)
    try:
        if request.proof and setting.recording is None:  # after a stop too: it may have come before the proof's end
            allow_dead = request.allow_dead_knobs or campaign.progress.evaluated > 0
            check_knobs(fleet, record, campaign_id, binding, say, allow_dead=allow_dead)
            prove_harness(fleet, record, campaign_id, binding, setting.target, say)
        result.reason = campaign.run()
        result.arms = arms_of(record, campaign_id)
        _crown(fleet, record, result, request, say)
    except KeyboardInterrupt:
        result.state, result.reason = "interrupted", "Ctrl-C; everything so far is recorded"
    except WorkersLost as error:
        result.state, result.reason = "interrupted", str(error)
        raise WorkersLost(f"{error}; everything so far is recorded, --resume goes on") from None
    except InputError as error:
        result.state, result.reason = "failed", str(error)
        raise
    except BaseException as error:
        result.state, result.reason = "failed", f"{type(error).__name__}: {error}"
        raise
    finally:
        record.finish_campaign(campaign_id, result.state, result.reason)
    return result


def _start_campaign(
    record: Record, request: SearchRequest, setting: Setting, binding: Binding, place: Place, fleet: Any
) -> int:
    ready = fleet.ready
    return record.start_campaign(
        CampaignSpec(
            base=place.base,
            workload=binding.base.workload,
            case_name=place.case_name,
            dtype=place.dtype,
            arch=place.arch,
            target=setting.target,
            proposer=request.proposer,
            seed=request.seed,
            environment=_environment(setting, binding, ready),
            constants=dict(binding.constants),
            budget=request.budget,
            patience=request.patience,
            control_share=request.control_share,
            options={
                "time_limit_s": request.time_limit_s,
                "case": asdict(setting.case) if setting.case is not None and setting.recording is None else None,
                "limits": dict(ready.facts.limits),
            },
            space={
                "knobs": [knob.document() for knob in binding.space.knobs],
                "rules": {name: rule.text for name, rule in binding.rules_space.rules.items()},
                "size": binding.space.size,
            },
            replay=setting.replay,
            anchor=ready.anchor,
            baselines=ready.baselines_us,
        )
    )


def _environment(setting: Setting, binding: Binding, ready: Any) -> Environment:
    """Where the times come from; of recorded ones the commit is the recording's."""
    found = describe_environment(ready.facts, ready.toolchain, ready.torch, binding.base.path.parent)
    if setting.recording is None:
        return found
    commit = setting.recording.commit
    return replace(found, git_sha=commit.removesuffix("-dirty"), dirty=commit.endswith("-dirty"), clocks={})


def _known_elites(record: Record, binding: Binding, place: Place) -> list[Configuration]:
    """Elites of this base from other cases or devices: where to look first."""
    found: list[Configuration] = []
    for elite in record.elites(base=place.base):
        if _knows(binding.space, elite.configuration):  # one of an older version of the base may not be in it
            configuration = binding.space.configuration(elite.configuration)
            found += [configuration] if configuration not in found else []
    return found[:FINALISTS]


def _crown(fleet: Any, record: Record, result: SearchResult, request: SearchRequest, say: Say) -> None:
    """Re-measure the best against incumbents and baselines and record the verdicts."""
    if not record.settle(result.campaign_id):
        again = f"`evo promote {result.campaign_id}` does it once {record.name} can be written"
        say(f"Nothing was promoted: the results are spooled beside the database; {again}")
        return
    best = record.trials(result.campaign_id, valid_only=True, by_time=True, limit=FINALISTS * 4)
    keys = list(dict.fromkeys(trial.variant_key for trial in best if trial.same_as is None))[:FINALISTS]
    if not keys:
        return
    place, space = result.place, result.binding.space
    reigning = record.elites(base=place.base, case_name=place.case_name, dtype=place.dtype, arch=place.arch)
    reigning = [elite for elite in reigning if bool(elite.replay) == bool(result.replay)]
    # Another recording's elite has no time in this one; a measured one can be measured again, whatever space it is of.
    incumbents = [e.variant_key for e in reigning if not result.replay or _knows(space, e.configuration)]
    if len(incumbents) < len(reigning):
        say(f"{len(reigning) - len(incumbents)} incumbents are not in this recording and are left out")
    default = result.binding.variant(result.binding.space.default).key if result.binding.space.has_default else ""
    reference = [default] if default and record.trials_of(default) else []
    say(
        f"Comparing the best {len(keys)} by their recorded samples"
        if result.replay
        else f"Re-measuring the best {len(keys)} among {len(incumbents)} incumbents and the baselines"
    )
    wanted = list(dict.fromkeys([*keys, *incumbents, *reference]))
    entries = entries_of(fleet, [record.variant(key).variant() for key in wanted])
    contest = fleet.contest(entries, request.rounds, request.sanitize)
    if not isinstance(contest, Contest):
        record.record_event(result.campaign_id, Event("promotion", f"{contest.reason}: {contest.detail}"))
        say(f"Nothing was promoted: {contest.reason}: {contest.detail[:200]}")
        return
    result.contest = contest
    result.crowning = judge(contest, keys, incumbents, margin=request.margin)
    if default in contest.warm_us:
        result.default_time = median_interval(contest.warm_us[default])
    record_crowning(record, result.campaign_id, result.place, contest, result.crowning)


def _knows(space: SearchSpace, configuration: Mapping[str, Any]) -> bool:
    try:
        return space.configuration(configuration) in space
    except InputError:
        return False


def entries_of(fleet: Any, variants: Sequence[Variant]) -> list[tuple[Variant, Built]]:
    """What enters a contest: these variants with their binaries; those that no longer build are left out."""
    outcomes = zip(variants, build_all(fleet, variants), strict=True)
    return [(variant, built) for variant, built in outcomes if isinstance(built, Built)]


def promote_campaign(
    campaign_id: int,
    *,
    db: str,
    base: str = "",
    rounds: int = 40,
    margin: float = 0.01,
    contest_timeout_s: float = 600.0,
    ray_address: str | None = None,
    say: Say = lambda _: None,
) -> SearchResult:
    """Re-measure a recorded campaign's best and crown or refuse, as at the end of a search.

    base: where the campaign's base is to be found, if not by its name. Raises: InputError.
    """
    with open_record(db, create=False) as record:
        campaign = record.campaign(campaign_id)
        if campaign.replay:
            raise InputError(f"campaign {campaign_id} was replayed ({campaign.replay}); there is nothing to re-measure")
        causal = bool(campaign.constants.get("causal", False))
        request = SearchRequest(
            base=base or campaign.base,
            case=campaign.case_name.removesuffix("-causal") if causal else campaign.case_name,
            dtype=campaign.dtype,
            causal=causal,
            target=campaign.target,
            ray_address=ray_address,
            rounds=rounds,
            margin=margin,
            contest_timeout_s=contest_timeout_s,
        )
        setting = resolve(request)
        if setting.base.name != campaign.base:
            raise InputError(f"--base {base}: expected {campaign.base}, the base of campaign {campaign_id}")
        say(f"Starting Ray and a {setting.target} worker (a few seconds)")
        with raise_fleet(request, setting) as fleet:
            binding, facts = bind(setting, fleet), fleet.ready.facts
            if facts.arch != campaign.arch:
                raise InputError(f"campaign {campaign_id} is of {campaign.arch}; this device is {facts.arch}")
            place = Place(campaign.base, campaign.case_name, campaign.dtype, campaign.arch)
            result = SearchResult(campaign_id, campaign.state, campaign.end_reason, Progress(None), binding, place, "")
            _crown(fleet, record, result, request, say)
            return result
