"""A campaign as one file to pass on: HTML that needs no network, or Markdown for a pull request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evo.dashboard import analysis, views, words
from evo.errors import InputError
from evo.export import write_file
from evo.record import Campaign, Point, Record

FORMATS = ("html", "md")
ENDINGS = {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md"}
SPARKS = "▁▂▃▄▅▆▇█"


def write_report(record: Record, campaign_id: int, path: str | Path, *, format: str | None = None) -> Path:
    """Write a campaign's report; the format is told by the file's ending unless given.

    Raises: InputError for an unknown campaign, format or an unwritable path.
    """
    target = Path(path)
    chosen = format or ENDINGS.get(target.suffix.lower())
    if chosen is None:
        raise InputError(f"-o {target}: expected a name that ends in {', '.join(ENDINGS)}, or --format html or md")
    if chosen not in FORMATS:
        raise InputError(f"--format {chosen}: expected html or md")
    make = report_html if chosen == "html" else report_markdown
    write_file(target, make(record, campaign_id))
    return target


def report_html(record: Record, campaign_id: int) -> str:
    """The campaign's page with its scripts, styles and data inside: opens anywhere, asks nothing of a network."""
    from evo.dashboard.render import HEAD, asset, plotly_path, templates

    campaign = record.campaign(campaign_id)
    points = views.points_of(record, campaign)
    assets = HEAD | {name: asset(f"{name}.js") for name in ("charts", "page")}
    assets["plotly"] = plotly_path().read_text(encoding="utf-8")
    table = views.points_table(campaign, points) | {"progress": views.progress_facts(campaign, points)}
    return templates.get_template("campaign.html").render(
        **views.campaign_page(record, campaign),
        standalone=True,
        assets=assets,
        points=table,
        analysis=views.analysis_facts(record, campaign),
        importance=views.importance_facts(record, campaign),
        written=time.time(),
        database=record.name,
    )


def report_markdown(record: Record, campaign_id: int) -> str:
    """The same facts as text: summary, backends, best configurations, knobs, rejections."""
    campaign = record.campaign(campaign_id)
    points = views.points_of(record, campaign)
    sections = [_summary(record, campaign, points), _backends(campaign), _fastest(record, campaign)]
    sections += [_knobs(record, campaign), _failures(record, campaign), _conditions(campaign)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _summary(record: Record, campaign: Campaign, points: list[Point]) -> str:
    interval = views.best_interval(record, campaign)
    shown = f" (95 % interval {words.interval(*interval)})" if interval else ""
    lines = [f"## {cell(campaign.base)} on {cell(campaign.case_name)}: campaign {campaign.id}", ""]
    if campaign.replay:
        lines += [f"> {cell(campaign.replay)}", ""]
    state = words.state(campaign) + (f", {cell(campaign.end_reason)}" if campaign.end_reason else "")
    facts = {
        "Best": words.micro(campaign.best_us),
        f"Ratio to {words.backend(cell(campaign.anchor))}": words.ratio(campaign.best_ratio) + shown,
        "Evaluated": f"{words.count(campaign.evaluated)}, of which {words.percent(campaign.valid_share)} valid",
        "State": f"{state}, {words.seconds(words.lasted(campaign))}",
        "Proposer": f"{cell(campaign.proposer)}, seed {campaign.seed}",
        "Device": f"{cell(campaign.environment.device)} ({cell(campaign.arch)}, {cell(campaign.dtype)})",
    }
    arms = views.arms_facts(record, campaign)
    if arms is not None:
        facts["Evolution or chance"] = arms.sentence
    curve = sparkline(analysis.best_so_far(points)[0], analysis.best_so_far(points)[1], campaign.evaluated)
    if curve:
        facts["Best so far"] = f"`{curve}` over {words.count(campaign.evaluated)} evaluations"
    return "\n".join([*lines, *table(("", ""), list(facts.items()))])


def sparkline(positions: list[int], times: list[float], end: int, width: int = 40) -> str:
    """Best time so far as a row of blocks, high is slow."""
    if len(times) < 2:
        return ""
    low, high = times[-1], times[0]
    blocks = []
    for column in range(width):
        at = max(positions[0], end * (column + 1) / width)
        value = [t for p, t in zip(positions, times, strict=True) if p <= at][-1]
        blocks.append(SPARKS[round((len(SPARKS) - 1) * (value - low) / (high - low))])
    return "".join(blocks)


def _backends(campaign: Campaign) -> str:
    if not campaign.baselines:
        return ""
    rows = []
    for name, time_us in sorted(campaign.baselines.items(), key=lambda pair: pair[1]):
        share = time_us / campaign.best_us if campaign.best_us else None
        rows.append((words.backend(cell(name)), words.micro(time_us), words.ratio(share)))
    return "\n".join(["### Against PyTorch", "", *table(("Backend", "Time", "Best against it"), rows)])


def _fastest(record: Record, campaign: Campaign) -> str:
    rows = [
        (
            words.micro(t.time_us),
            words.ratio(t.ratio),
            f"`{cell(words.knobs(t.configuration))}`",
            f"`{t.variant_key[:12]}`",
        )
        for t in views.fastest(record, campaign)[:5]
    ]
    if not rows:
        return "Nothing was measured."
    return "\n".join(["### Fastest programs", "", *table(("Time", "Ratio", "Configuration", "Variant"), rows)])


def _knobs(record: Record, campaign: Campaign) -> str:
    facts = views.analysis_facts(record, campaign)
    importance = dict(views.importance_facts(record, campaign))
    rows = []
    for effect in sorted(facts["effects"], key=lambda e: -importance.get(e["knob"], 0.0)):
        boxes = [box for box in effect["boxes"] if box["count"]]
        if not boxes:
            continue
        best = min(boxes, key=lambda box: box["median"])
        share = importance.get(effect["knob"])
        rows.append((cell(effect["knob"]), words.percent(share), cell(best["value"]), words.micro(best["median"])))
    if not rows:
        return ""
    return "\n".join(["### Knobs", "", *table(("Knob", "Importance", "Best value by median", "Median there"), rows)])


def _failures(record: Record, campaign: Campaign) -> str:
    rows = [(f.stage, cell(f.reason), words.count(f.count)) for f in record.failures(campaign.id)[:10]]
    if not rows:
        return ""
    return "\n".join(["### Rejected", "", *table(("Stage", "Reason", "Trials"), rows)])


def _conditions(campaign: Campaign) -> str:
    e = campaign.environment
    dirty = " with uncommitted changes" if e.dirty else ""
    text = f"{e.device}, driver {e.driver or 'unknown'}, {e.toolchain}, PyTorch {e.torch}, Evo {e.evo}"
    return f"Measured {words.day(campaign.started_at)} on {cell(text)}, commit `{e.git_sha[:12] or 'unknown'}`{dirty}."


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)]


def cell(text: Any) -> str:
    """Text that stays text in a Markdown table."""
    escaped = str(text).replace("\\", "\\\\").replace("|", "\\|").replace("`", "'")
    return " ".join(escaped.replace("<", "&lt;").replace(">", "&gt;").split())
