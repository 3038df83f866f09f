"""The pages: HTML from the record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response

from evo.dashboard import analysis, views, words
from evo.dashboard.api import champion, download, record_of
from evo.dashboard.render import plotly_path, templates
from evo.dashboard.store import Store
from evo.errors import InputError
from evo.record import Samples

PAGE = 25  # campaigns on one page

router = APIRouter(include_in_schema=False)


def page(name: str, **facts: Any) -> HTMLResponse:
    return HTMLResponse(templates.get_template(name).render(**facts))


def error_page(request: Request, status: int, title: str, message: str) -> HTMLResponse:
    """An error in words, with a way back and, where one exists, the command that mends it."""
    upgrade = "is older than this program" in message
    text = templates.get_template("error.html").render(
        title=title, message=message, upgrade=upgrade, missing="no such database" in message, database=database(request)
    )
    return HTMLResponse(text, status_code=status)


def database(request: Request) -> str:
    return str(request.app.state.store.url)


@router.get("/")
def campaigns_page(
    request: Request, p: Annotated[int, Query(ge=1)] = 1, base: str = "", fragment: bool = False
) -> HTMLResponse:
    return campaigns_html(request.app.state.store, p, base, fragment)


def campaigns_html(store: Store, number: int = 1, base: str = "", fragment: bool = False) -> HTMLResponse:
    """A page of campaigns, or its rows alone; made anew when the database has changed or a search on it runs."""
    record = store.record()
    key, version = ("list", number, base, fragment), record.changes()
    kept: tuple[object, str] = views.remember(record, key, lambda: (None, ""))
    if kept[0] == version:
        return HTMLResponse(kept[1])
    found = record.campaigns(base=base or None, limit=PAGE + 1, offset=PAGE * (number - 1))
    rows = [(campaign, views.best_interval(record, campaign)) for campaign in found[:PAGE]]
    live = any(words.state(campaign) == "running" for campaign, _ in rows)
    facts = {"rows": rows, "page": number, "more": len(found) > PAGE, "base": base, "live": live}
    name = "_campaign_rows.html" if fragment else "campaigns.html"
    text = templates.get_template(name).render(**facts, database=str(store.url))
    views.replace(record, key, (None if live else version, text))
    return HTMLResponse(text)


@router.get("/campaigns/{campaign_id}")
def campaign_page(request: Request, campaign_id: int) -> HTMLResponse:
    record = record_of(request)
    campaign = record.campaign(campaign_id)
    return page("campaign.html", **views.campaign_page(record, campaign), database=database(request))


@router.get("/campaigns/{campaign_id}/live")
def campaign_live(
    request: Request, campaign_id: int, after: Annotated[int, Query(ge=0)] = 0, evaluated: int = -1, whole: bool = False
) -> JSONResponse:
    """What changed since the page saw `evaluated` trials: new points and fragments of HTML, the lists if `whole`."""
    record = record_of(request)
    campaign = record.campaign(campaign_id)
    state = words.state(campaign)
    answer: dict[str, Any] = {"state": state, "evaluated": campaign.evaluated, "parts": {}}
    whole = whole or state != "running"
    if campaign.evaluated == evaluated and not whole:
        return JSONResponse(answer)
    facts = {"campaign": campaign, "state": state, "rate": views.rate(record, campaign)}
    facts["interval"] = views.best_interval(record, campaign)
    answer["parts"]["summary"] = templates.get_template("_summary.html").render(**facts)
    if campaign.evaluated != evaluated:
        points = record.points(campaign_id, after=after, most=views.POINTS_MOST)
        answer["points"] = views.points_table(campaign, points)
    if whole:
        lists = views.campaign_page(record, campaign)
        for name in ("failures", "fastest", "lineage"):
            answer["parts"][name] = templates.get_template(f"_{name}.html").render(**lists)
    return JSONResponse(answer)


@router.get("/trials/{trial_id}")
def trial_page(request: Request, trial_id: int) -> HTMLResponse:
    record = record_of(request)
    trial = record.trial(trial_id)
    return page(
        "trial.html",
        trial=trial,
        campaign=record.campaign(trial.campaign_id),
        samples=record.samples(trial_id),
        database=database(request),
    )


@router.get("/elites")
def elites_page(request: Request) -> HTMLResponse:
    record = record_of(request)
    places = views.places(record.elites(history=True))
    for number, place in enumerate(places):
        place["id"] = f"place-{number}"
        place["samples"] = views.samples_facts(record, place["reigning"])
    return page("elites.html", places=places, database=database(request))


@router.get("/variants/{key}")
def variant_page(request: Request, key: str) -> HTMLResponse:
    record = record_of(request)
    variant = record.variant(key)
    trials = record.trials_of(key)
    promotions = record.promotions(variant_key=key)
    measured = [trial for trial in trials if trial.time_us is not None]
    best = min(measured, key=lambda trial: trial.time_us or 0.0, default=None)
    found = champion(record, key) if measured else None
    samples = list(found.samples) if found is not None else []
    return page(
        "variant.html",
        variant=variant,
        trials=trials,
        promotions=promotions,
        elites=record.elites(variant_key=key),
        champion=found,
        best=best,
        samples=[_series(s, found.anchor) for s in samples] if found is not None else [],
        database=database(request),
    )


def _series(samples: Samples, anchor: str) -> dict[str, Any]:
    own = samples.name == "variant"
    label = "variant" if own else views.timed(samples.name, anchor)
    return {"label": label, "l2": samples.l2, "own": own, "values_us": samples.values_us}


@router.get("/compare")
def compare_page(request: Request, a: Annotated[str, Query()] = "", b: Annotated[str, Query()] = "") -> HTMLResponse:
    record = record_of(request)
    choices = record.campaigns(limit=200)
    chosen = [record.campaign(_number(text)) for text in (a, b) if text]
    facts: dict[str, Any] = {"choices": choices, "a": a, "b": b, "chosen": chosen, "database": database(request)}
    if len(chosen) == 2:
        best = [record.trial(c.best_trial_id) if c.best_trial_id is not None else None for c in chosen]
        first, second = (trial.configuration if trial is not None else {} for trial in best)
        if chosen[0].base != chosen[1].base:  # only what both bases have can be compared
            first, second = (
                {k: v for k, v in mine.items() if k in other} for mine, other in ((first, second), (second, first))
            )
        facts["changed"] = analysis.changes(first, second) if first and second else []
        facts["intervals"] = [views.best_interval(record, campaign) for campaign in chosen]
        facts["curves"] = views.compare_facts(record, chosen)
        facts["rates"] = [views.rate(record, campaign) for campaign in chosen]
        facts["best"] = best
    return page("compare.html", **facts)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"compare: no campaign {text!r}: expected a number") from None


@router.get("/campaigns/{campaign_id}/report.html")
def report_download(request: Request, campaign_id: int) -> Response:
    from evo.dashboard.report import report_html

    text = report_html(record_of(request), campaign_id)
    return download(text, f"evo-campaign-{campaign_id}.html", "text/html; charset=utf-8")


@router.get("/api")
def api_index() -> RedirectResponse:
    """What there is under it."""
    return RedirectResponse("/api/docs")


@router.get("/api/docs")
def api_page(request: Request) -> HTMLResponse:
    """The OpenAPI document as a page of our own, without scripts from elsewhere."""
    return page("api.html", paths=_operations(request.app.openapi()), database=database(request))


def _operations(document: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield {"path": path, "method": method.upper(), **operation}


@router.get("/static/plotly.js")
def plotly_script() -> FileResponse:
    """Plotly's script from the installed package; its address in pages carries the version, so it may be kept."""
    return FileResponse(plotly_path(), media_type="text/javascript")
