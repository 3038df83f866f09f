"""The JSON API: the facts that the pages show."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from evo.dashboard import views
from evo.export import champion_of_elite, champion_of_trial, header_text, json_artifact, json_text
from evo.interchange import t4_of_campaign, trials_csv
from evo.record import Campaign, Record

router = APIRouter(tags=["facts"])


def record_of(request: Request) -> Record:
    found: Record = request.app.state.store.record()
    return found


@router.get("/campaigns", summary="Campaigns, newest first")
def list_campaigns(
    request: Request,
    base: Annotated[str | None, Query(description="only this base")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> JSONResponse:
    """Every campaign's facts with its counts, best time (microseconds) and ratio to its anchor with interval."""
    record = record_of(request)
    found = record.campaigns(base=base, limit=limit, offset=offset)
    return JSONResponse([views.campaign_facts(record, campaign) for campaign in found])


@router.get("/campaigns/{campaign_id}", summary="One campaign")
def get_campaign(request: Request, campaign_id: int) -> JSONResponse:
    """The campaign's facts, rejections by stage and reason, its fastest trials, the ancestry of the best, and what
    evolution gained over the random control arm, where it had one."""
    record = record_of(request)
    campaign = record.campaign(campaign_id)
    facts = views.campaign_facts(record, campaign)
    facts["per_s"] = views.rate(record, campaign)
    facts["promotions"] = [views.plain(item) for item in record.promotions(campaign_id=campaign_id)]
    facts["events"] = [views.plain(event) for event in record.events(campaign_id)]
    facts["failures"] = [
        {name: row[name] for name in ("stage", "reason", "count", "trial_id")}
        for row in views.failure_rows(record, campaign)
    ]
    facts["fastest"] = [views.plain(trial) for trial in views.fastest(record, campaign)]
    arms = views.arms_facts(record, campaign)
    facts["arms"] = arms.document() if arms is not None else None
    facts["lineage"] = [
        {"id": step["trial"].id, "number": step["trial"].number, "operator": step["trial"].origin.operator}
        | {"time_us": step["trial"].time_us, "parents": step["parents"], "changed": step["changed"]}
        for step in views.lineage_steps(record, campaign)
    ]
    return JSONResponse(facts)


@router.get("/campaigns/{campaign_id}/points", summary="Trials as columns for charts")
def get_points(
    request: Request,
    campaign_id: int,
    after: Annotated[int, Query(ge=0, description="only trials with an id above this")] = 0,
) -> JSONResponse:
    """Thinned to about 2,500 trials; every improvement is kept. Knob values are indices into `knobs`."""
    record = record_of(request)
    campaign = record.campaign(campaign_id)
    points = (
        record.points(campaign_id, after=after, most=views.POINTS_MOST) if after else views.points_of(record, campaign)
    )
    facts: dict[str, Any] = views.points_table(campaign, points)
    if not after:
        facts["progress"] = views.progress_facts(campaign, points)
    return JSONResponse(facts)


@router.get("/campaigns/{campaign_id}/analysis", summary="Knob effects and worker occupancy")
def get_analysis(request: Request, campaign_id: int) -> JSONResponse:
    """Quartiles of time by knob value, mean busy workers over time."""
    record = record_of(request)
    return JSONResponse(views.analysis_facts(record, record.campaign(campaign_id)))


@router.get("/campaigns/{campaign_id}/importance", summary="Knob importances")
def get_importance(request: Request, campaign_id: int) -> JSONResponse:
    """Pairs of knob and share, by PED-ANOVA; empty below 20 measured trials. Takes seconds the first time."""
    record = record_of(request)
    return JSONResponse(views.importance_facts(record, record.campaign(campaign_id)))


@router.get("/campaigns/{campaign_id}/trials", summary="Trials, whole")
def list_trials(
    request: Request,
    campaign_id: int,
    after: Annotated[int, Query(ge=-1, description="only numbers above this")] = -1,
    limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
) -> JSONResponse:
    """Trials in order of their number, with configuration, outcome, times and origin."""
    record = record_of(request)
    record.campaign(campaign_id)
    return JSONResponse([views.plain(trial) for trial in record.trials(campaign_id, after=after, limit=limit)])


@router.get("/campaigns/{campaign_id}/t4.json", summary="The campaign in the T4 results format")
def get_t4(request: Request, campaign_id: int) -> Response:
    """All trials with their samples, in milliseconds, as other tuners read them."""
    text = json_text(t4_of_campaign(record_of(request), campaign_id))
    return download(text, f"evo-campaign-{campaign_id}.t4.json", "application/json")


@router.get("/campaigns/{campaign_id}/trials.csv", summary="The campaign's trials as CSV")
def get_csv(request: Request, campaign_id: int) -> Response:
    """One line per trial, knobs as columns."""
    record = record_of(request)
    record.campaign(campaign_id)
    text = trials_csv(record.trials(campaign_id, details=False))
    return download(text, f"evo-campaign-{campaign_id}.csv", "text/csv; charset=utf-8")


@router.get("/trials/{trial_id}", summary="One trial with its raw samples")
def get_trial(request: Request, trial_id: int) -> JSONResponse:
    """Configuration, outcome in the compiler's or the device's own words, errors, samples in microseconds."""
    record = record_of(request)
    facts = views.plain(record.trial(trial_id))
    facts["samples"] = [views.plain(item) for item in record.samples(trial_id)]
    return JSONResponse(facts)


@router.get("/elites", summary="Elites by base, case, dtype and arch")
def list_elites(
    request: Request,
    base: Annotated[str | None, Query(description="only this base")] = None,
    history: Annotated[bool, Query(description="also those of before")] = False,
) -> JSONResponse:
    """Who holds the three ranks of each place, with time, ratio and gain intervals."""
    return JSONResponse([views.plain(elite) for elite in record_of(request).elites(base=base, history=history)])


@router.get("/variants/{key}", summary="One variant: header, sources, resources")
def get_variant(request: Request, key: str) -> JSONResponse:
    """Everything that the variant is built from, what the compiler said, and its trials."""
    record = record_of(request)
    facts = views.plain(record.variant(key))
    facts["trials"] = [views.plain(trial) for trial in record.trials_of(key)]
    return JSONResponse(facts)


@router.get("/variants/{key}/header", summary="The measured header with its provenance")
def get_header(request: Request, key: str) -> Response:
    """The exported kernel header: what is in it is what was measured."""
    found = champion(record_of(request), key)
    name = found.variant.header_name or "evo_config.cuh"
    return download(header_text(found), name, "text/x-c; charset=utf-8")


@router.get("/variants/{key}/artifact.json", summary="The variant's JSON artifact")
def get_artifact(request: Request, key: str) -> Response:
    """Configuration, header, sources, resources, samples, environment and provenance."""
    text = json_text(json_artifact(champion(record_of(request), key)))
    return download(text, f"evo-{key[:12]}.json", "application/json")


@router.get("/compare", summary="Best-so-far curves of several campaigns")
def compare(request: Request, id: Annotated[list[int], Query(description="campaigns")]) -> JSONResponse:
    """Curves against evaluations and seconds, in microseconds and as ratios to each campaign's own anchor."""
    record = record_of(request)
    campaigns: list[Campaign] = [record.campaign(campaign_id) for campaign_id in id[:6]]
    return JSONResponse(views.compare_facts(record, campaigns))


def champion(record: Record, key: str) -> Any:
    """The variant as an elite, or else by its fastest trial."""
    elites = sorted(record.elites(variant_key=key), key=lambda elite: elite.rank)
    if elites:
        return champion_of_elite(record, elites[0])
    record.variant(key)
    trials = record.trials_of(key)
    measured = [trial for trial in trials if trial.time_us is not None]
    return champion_of_trial(record, min(measured or trials, key=lambda trial: trial.time_us or 0.0))


def download(text: str, name: str, media_type: str) -> Response:
    """A file for the browser to keep."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type=media_type, headers=headers)
