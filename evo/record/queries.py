"""Queries: rows into values, over a connection that the caller holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from evo.outcome import CaseError, Resources, Stage
from evo.record.apply import unpack
from evo.record.schema import (
    CampaignRow,
    EliteRow,
    EnvironmentRow,
    EventRow,
    IntervalRow,
    ProfileRow,
    PromotionRow,
    SamplesRow,
    SourceRow,
    TrialRow,
    VariantRow,
)
from evo.record.values import (
    Campaign,
    Elite,
    Environment,
    Event,
    Failure,
    Interval,
    Origin,
    Place,
    Point,
    Profile,
    Promotion,
    RecordedPromotion,
    RecordedTrial,
    Samples,
    VariantRecord,
)

_ENVIRONMENT = tuple(field.name for field in dataclasses.fields(Environment))
_COUNTED = {"environment", "evaluated", "valid", "best_us", "best_ratio", "best_trial_id"}
_CAMPAIGN = tuple(field.name for field in dataclasses.fields(Campaign) if field.name not in _COUNTED)
_PROMOTION = tuple(f.name for f in dataclasses.fields(Promotion) if f.name not in {"place", "samples"})
_PLACE = tuple(field.name for field in dataclasses.fields(Place))
_VARIANT = tuple(f.name for f in dataclasses.fields(VariantRecord) if f.name not in {"resources", "sources"})


def read_campaigns(
    connection: sa.Connection,
    *,
    campaign_id: int | None = None,
    base: str | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> list[Campaign]:
    """Campaigns with their counts, newest first."""
    wanted = {CampaignRow.id: campaign_id, CampaignRow.base: base}
    columns = sa.select(*(c.label(f"c_{c.key}") for c in CampaignRow.__table__.c)).add_columns(
        *(c.label(f"e_{c.key}") for c in EnvironmentRow.__table__.c)
    )
    statement = columns.join_from(CampaignRow, EnvironmentRow, EnvironmentRow.id == CampaignRow.environment_id)
    statement = statement.where(*(column == value for column, value in wanted.items() if value is not None))
    rows = connection.execute(statement.order_by(CampaignRow.id.desc()).limit(limit).offset(offset)).mappings().all()
    counts = _read_counts(connection, [row["c_id"] for row in rows])
    found = []
    for row in rows:
        environment = Environment(**{name: row[f"e_{name}"] for name in _ENVIRONMENT})
        fields = {name: row[f"c_{name}"] for name in _CAMPAIGN}
        found.append(Campaign(environment=environment, **fields, **counts[row["c_id"]]))
    return found


def _read_counts(connection: sa.Connection, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Trials, valid trials and the best by campaign, from the covering index."""
    empty = {"evaluated": 0, "valid": 0, "best_us": None, "best_ratio": None, "best_trial_id": None}
    counts: dict[int, dict[str, Any]] = {key: dict(empty) for key in ids}
    counted = (
        sa.select(
            TrialRow.campaign_id,
            sa.func.count().label("evaluated"),
            sa.func.count(TrialRow.time_us).label("valid"),
            sa.func.min(TrialRow.time_us).label("best_us"),
        )
        .where(TrialRow.campaign_id.in_(ids))
        .group_by(TrialRow.campaign_id)
        .subquery()
    )
    fastest = sa.and_(TrialRow.campaign_id == counted.c.campaign_id, TrialRow.time_us == counted.c.best_us)
    best = (TrialRow.id.label("best_trial_id"), TrialRow.ratio.label("best_ratio"))
    for row in connection.execute(sa.select(counted, *best).outerjoin(TrialRow, fastest)).mappings():
        found = counts[row["campaign_id"]]
        if found["best_trial_id"] is None or row["best_trial_id"] < found["best_trial_id"]:  # the first of equals
            counts[row["campaign_id"]] = {name: row[name] for name in found}
    return counts


def read_trials(
    connection: sa.Connection,
    *,
    campaign_id: int | None = None,
    trial_id: int | None = None,
    numbers: Collection[int] | None = None,
    variant_key: str | None = None,
    after: int | None = None,
    valid_only: bool = False,
    details: bool = True,
    by_time: bool = False,
    limit: int | None = None,
) -> list[RecordedTrial]:
    """Trials in order of their number (or fastest first); without details the compiler's words stay in the database."""
    columns = [c for c in TrialRow.__table__.c if details or c.key != "detail"]
    statement = sa.select(*columns, VariantRow.configuration).join(VariantRow, VariantRow.key == TrialRow.variant_key)
    wanted = {
        TrialRow.campaign_id: campaign_id,
        TrialRow.id: trial_id,
        TrialRow.variant_key: variant_key,
    }
    statement = statement.where(*(column == value for column, value in wanted.items() if value is not None))
    if numbers is not None:
        statement = statement.where(TrialRow.number.in_(numbers))
    if after is not None:
        statement = statement.where(TrialRow.number > after)
    if valid_only or by_time:
        statement = statement.where(TrialRow.time_us.is_not(None))
    order = (TrialRow.time_us, TrialRow.number) if by_time else (TrialRow.campaign_id, TrialRow.number)
    rows = connection.execute(statement.order_by(*order).limit(limit)).mappings()
    return [_trial(dict(row)) for row in rows]


def read_points(connection: sa.Connection, campaign_id: int, *, after: int = 0, most: int = 4000) -> list[Point]:
    """A campaign's trials with id above `after` in order of recording; beyond `most`, evenly thinned.

    Every improvement of the best time and the last trial are kept, so that the best-so-far curve is exact.
    """
    here = (TrialRow.campaign_id == campaign_id,)
    seen, count, last = connection.execute(
        sa.select(sa.func.count().filter(TrialRow.id <= after), sa.func.count(), sa.func.max(TrialRow.id)).where(*here)
    ).one()
    stride = max(1, -(-(count - seen) // most))
    before = sa.func.min(TrialRow.time_us).over(order_by=TrialRow.id, rows=(None, -1))
    place = sa.func.row_number().over(order_by=TrialRow.id)
    ranked = sa.select(TrialRow.id, (place + seen).label("position"), before.label("before"))
    rank = ranked.where(*here, TrialRow.id > after).subquery()
    improves = sa.and_(TrialRow.time_us.is_not(None), sa.or_(rank.c.before.is_(None), TrialRow.time_us < rank.c.before))
    names = ("id", "number", "time_us", "ratio", "stage", "reason", "operator")
    statement = (
        sa.select(rank.c.position, *(TrialRow.__table__.c[name] for name in names))
        .add_columns(TrialRow.recorded_at.label("at"), VariantRow.configuration)
        .join(TrialRow, TrialRow.id == rank.c.id)
        .join(VariantRow, VariantRow.key == TrialRow.variant_key)
        .where(sa.or_(rank.c.position % stride == 0, improves, rank.c.id == last) if stride > 1 else sa.true())
        .order_by(rank.c.id)
    )
    return [Point(**row) for row in connection.execute(statement).mappings()]


def _trial(row: dict[str, Any]) -> RecordedTrial:
    row["origin"] = Origin(row.pop("operator"), tuple(row.pop("parents")), row.pop("note"))
    row["stage"] = Stage(row["stage"]) if row["stage"] is not None else None
    row["errors"] = tuple(_case_error(error) for error in row["errors"])
    row.setdefault("detail", "")
    return RecordedTrial(**row)


def _case_error(error: dict[str, Any]) -> CaseError:
    numbers = ("max_error", "max_bound", "norm_error", "norm_bound")
    return CaseError(error["case"], int(error["seed"]), **{name: float(error[name]) for name in numbers})


def read_variant(connection: sa.Connection, key: str) -> VariantRecord | None:
    row = connection.execute(sa.select(VariantRow.__table__).where(VariantRow.key == key)).mappings().first()
    if row is None:
        return None
    hashes: dict[str, str] = row["sources"]
    query = sa.select(SourceRow.hash, SourceRow.text).where(SourceRow.hash.in_(set(hashes.values())))
    texts = {found.hash: found.text for found in connection.execute(query)}
    resources = Resources(**row["resources"]) if row["resources"] is not None else None
    fields = {name: row[name] for name in _VARIANT}
    return VariantRecord(
        **fields, resources=resources, sources={name: texts[key] for name, key in hashes.items() if key in texts}
    )


def read_binaries(connection: sa.Connection, campaign_id: int) -> dict[str, int]:
    """Binary hash -> number of the first trial of the campaign that had it: what need not be measured again."""
    statement = (
        sa.select(VariantRow.binary_hash, sa.func.min(TrialRow.number))
        .join(TrialRow, TrialRow.variant_key == VariantRow.key)
        .where(TrialRow.campaign_id == campaign_id, VariantRow.binary_hash != "")
        .group_by(VariantRow.binary_hash)
    )
    return {row[0]: row[1] for row in connection.execute(statement)}


def read_samples(
    connection: sa.Connection, *, trial_id: int | None = None, promotion_id: int | None = None
) -> list[Samples]:
    statement = sa.select(SamplesRow.name, SamplesRow.l2, SamplesRow.packed_us).order_by(SamplesRow.id)
    if trial_id is not None:
        statement = statement.where(SamplesRow.trial_id == trial_id)
    if promotion_id is not None:
        statement = statement.where(SamplesRow.promotion_id == promotion_id)
    return [Samples(row.name, unpack(row.packed_us), row.l2) for row in connection.execute(statement)]


def read_campaign_samples(connection: sa.Connection, campaign_id: int) -> dict[int, tuple[float, ...]]:
    """Every variant's warm samples by trial id, of a whole campaign."""
    statement = (
        sa.select(SamplesRow.trial_id, SamplesRow.packed_us)
        .join(TrialRow, TrialRow.id == SamplesRow.trial_id)
        .where(TrialRow.campaign_id == campaign_id, SamplesRow.name == "variant", SamplesRow.l2 == "warm")
    )
    return {row[0]: unpack(row[1]) for row in connection.execute(statement) if row[0] is not None}


def read_span(connection: sa.Connection, campaign_id: int) -> tuple[float, float] | None:
    """When the first trial started and the last was recorded."""
    ends = sa.select(sa.func.min(TrialRow.id), sa.func.max(TrialRow.id)).where(TrialRow.campaign_id == campaign_id)
    first, last = connection.execute(ends).one()
    times = sa.select(TrialRow.id, TrialRow.started_at, TrialRow.recorded_at).where(TrialRow.id.in_((first, last)))
    found = {row.id: row for row in connection.execute(times)}
    return (found[first].started_at, found[last].recorded_at) if found else None


def read_searched_s(connection: sa.Connection, campaign_id: int) -> float:
    """Seconds during which a trial was under way; those between a stop and going on are not among them."""
    times = sa.select(TrialRow.started_at, TrialRow.recorded_at).where(TrialRow.campaign_id == campaign_id)
    searched_s, until = 0.0, 0.0
    for started, recorded in connection.execute(times.order_by(TrialRow.started_at)):
        searched_s += max(0.0, recorded - max(started, until))
        until = max(until, recorded)
    return searched_s


def read_changes(connection: sa.Connection) -> tuple[int, int, float]:
    """Last trial, last elite and latest heartbeat: whether anything worth showing has happened."""
    trials = connection.execute(sa.select(sa.func.max(TrialRow.id))).scalar()
    elites = connection.execute(sa.select(sa.func.max(EliteRow.id))).scalar()
    beat = connection.execute(sa.select(sa.func.max(CampaignRow.heartbeat_at))).scalar()
    return trials or 0, elites or 0, beat or 0.0


def read_failures(connection: sa.Connection, campaign_id: int) -> list[Failure]:
    """Rejections counted by stage and reason, most frequent first."""
    count = sa.func.count().label("count")
    statement = (
        sa.select(TrialRow.stage, TrialRow.reason, count, sa.func.min(TrialRow.id))
        .where(TrialRow.campaign_id == campaign_id, TrialRow.stage.is_not(None))
        .group_by(TrialRow.stage, TrialRow.reason)
        .order_by(count.desc(), TrialRow.stage, TrialRow.reason)
    )
    return [Failure(str(row[0]), row[1], row[2], row[3]) for row in connection.execute(statement)]


def read_promotions(
    connection: sa.Connection,
    *,
    campaign_id: int | None = None,
    promotion_id: int | None = None,
    variant_key: str | None = None,
) -> list[RecordedPromotion]:
    """Promotions, newest first."""
    statement = sa.select(PromotionRow.__table__)
    wanted = {
        PromotionRow.campaign_id: campaign_id,
        PromotionRow.id: promotion_id,
        PromotionRow.variant_key: variant_key,
    }
    statement = statement.where(*(column == value for column, value in wanted.items() if value is not None))
    rows = connection.execute(statement.order_by(PromotionRow.id.desc())).mappings()
    return [RecordedPromotion(row["id"], row["campaign_id"], _promotion(row)) for row in rows]


def _promotion(row: Any) -> Promotion:
    return Promotion(place=Place(*(row[name] for name in _PLACE)), **{name: row[name] for name in _PROMOTION})


def read_elites(
    connection: sa.Connection,
    *,
    base: str | None = None,
    case_name: str | None = None,
    dtype: str | None = None,
    arch: str | None = None,
    variant_key: str | None = None,
    history: bool = False,
) -> list[Elite]:
    """The reigning elites by place and rank; with history also those of before, newest first within a rank."""
    promotions = [PromotionRow.__table__.c[name] for name in ("campaign_id", *_PROMOTION)]
    statement = (
        sa.select(EliteRow.__table__, *promotions, VariantRow.configuration, CampaignRow.replay)
        .join(PromotionRow, PromotionRow.id == EliteRow.promotion_id)
        .join(VariantRow, VariantRow.key == PromotionRow.variant_key)
        .join(CampaignRow, CampaignRow.id == PromotionRow.campaign_id)
    )
    wanted = {
        EliteRow.base: base,
        EliteRow.case_name: case_name,
        EliteRow.dtype: dtype,
        EliteRow.arch: arch,
        PromotionRow.variant_key: variant_key,
    }
    statement = statement.where(*(column == value for column, value in wanted.items() if value is not None))
    if not history:
        statement = statement.where(EliteRow.until.is_(None))
    order = (EliteRow.base, EliteRow.case_name, EliteRow.dtype, EliteRow.arch, EliteRow.rank, EliteRow.since.desc())
    return [_elite(row) for row in connection.execute(statement.order_by(*order)).mappings()]


def _elite(row: Any) -> Elite:
    own = {name: row[name] for name in ("id", "rank", "since", "until", "promotion_id", "campaign_id", "variant_key")}
    place = Place(*(row[name] for name in _PLACE))
    return Elite(
        place=place, promotion=_promotion(row), configuration=row["configuration"], replay=row["replay"], **own
    )


def read_profiles(connection: sa.Connection, variant_key: str) -> list[Profile]:
    statement = sa.select(ProfileRow).where(ProfileRow.variant_key == variant_key)
    return [
        Profile(row.variant_key, row.device, row.case_name, row.counters, row.at)
        for row in connection.execute(statement.order_by(ProfileRow.at.desc()))
    ]


def read_events(connection: sa.Connection, campaign_id: int, kind: str | None = None) -> list[Event]:
    statement = sa.select(EventRow).where(EventRow.campaign_id == campaign_id)
    if kind is not None:
        statement = statement.where(EventRow.kind == kind)
    rows = connection.execute(statement.order_by(EventRow.at, EventRow.id))
    return [Event(row.kind, row.text, row.data, row.at) for row in rows]


def read_intervals(connection: sa.Connection, campaign_id: int) -> list[Interval]:
    columns = sa.select(IntervalRow.worker, IntervalRow.kind, IntervalRow.started_at, IntervalRow.ended_at)
    statement = columns.where(IntervalRow.campaign_id == campaign_id).order_by(IntervalRow.started_at)
    return [Interval(*row) for row in connection.execute(statement)]
