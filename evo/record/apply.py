"""Lines into tables: one function per kind, each run inside the caller's transaction."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from evo.record.lines import Line
from evo.record.schema import (
    Base,
    CampaignRow,
    EliteRow,
    EventRow,
    IntervalRow,
    PromotionRow,
    SamplesRow,
    SourceRow,
    SpooledRow,
    TrialRow,
    VariantRow,
)

RANKS = 3  # elites kept per place
Row = Mapping[str, Any]


def _table(model: type[Base]) -> sa.Table:
    assert isinstance(model.__table__, sa.Table)
    return model.__table__


# Built once: a statement with values() is built, hashed and compiled anew for each of thousands of trials.
_INSERT_TRIAL = sa.insert(_table(TrialRow)).returning(TrialRow.id)
_INSERT_SAMPLES = sa.insert(_table(SamplesRow))
_INSERT_INTERVAL = sa.insert(_table(IntervalRow))
_KNOWN_VARIANT = sa.select(VariantRow.binary_hash, VariantRow.header).where(VariantRow.key == sa.bindparam("key"))


def apply_line(connection: sa.Connection, line: Line) -> int | None:
    """Write one line; returns the new row's id where the kind has one."""
    return APPLIERS[line["kind"]](connection, line)


def apply_spooled(connection: sa.Connection, line: Line) -> None:
    """Write one line from a spool unless an earlier merge has written it."""
    known = sa.select(SpooledRow.id).where(SpooledRow.id == line["id"])
    if connection.execute(known).first() is None:
        connection.execute(sa.insert(SpooledRow).values(id=line["id"]))
        apply_line(connection, line)


def insert_missing(connection: sa.Connection, model: type[Base], rows: Sequence[Row], key: str) -> None:
    """Insert the rows whose key is not there yet."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(sqlite.insert(_table(model)).on_conflict_do_nothing(), rows)
    elif connection.dialect.name == "postgresql":
        connection.execute(postgresql.insert(_table(model)).on_conflict_do_nothing(), rows)
    else:
        column = _table(model).c[key]
        there = set(connection.scalars(sa.select(column).where(column.in_([row[key] for row in rows]))))
        missing = {row[key]: row for row in rows if row[key] not in there}
        if missing:
            connection.execute(sa.insert(_table(model)), list(missing.values()))


def _apply_trial(connection: sa.Connection, line: Line) -> int | None:
    _write_variant(connection, line["variant"])
    row = {"campaign_id": line["campaign"], **line["trial"]}
    trial_id = connection.execute(_INSERT_TRIAL, row).scalar_one()
    _write_samples(connection, line["samples"], trial_id=trial_id)
    return trial_id


def _write_variant(connection: sa.Connection, variant: Row) -> None:
    """Write the variant, or add what an earlier record of it lacked: a trial may have stopped before the build."""
    texts = [{"hash": key, "text": text} for key, text in variant["texts"].items()]
    there = connection.execute(_KNOWN_VARIANT, {"key": variant["key"]}).first()
    columns = {name: value for name, value in variant.items() if name != "texts"}
    if there is None:
        insert_missing(connection, SourceRow, texts, "hash")
        insert_missing(connection, VariantRow, [columns], "key")
        return
    if not there.binary_hash and (variant["binary_hash"] or variant["log"]):
        built = {name: columns[name] for name in ("binary_hash", "resources", "log", "toolchain")}
        connection.execute(sa.update(VariantRow).where(VariantRow.key == variant["key"]).values(**built))
    if not there.header and variant["header"]:
        insert_missing(connection, SourceRow, texts, "hash")
        made = {name: columns[name] for name in ("header", "sources")}
        connection.execute(sa.update(VariantRow).where(VariantRow.key == variant["key"]).values(**made))


def _write_samples(
    connection: sa.Connection, samples: Sequence[Row], *, trial_id: int | None = None, promotion_id: int | None = None
) -> None:
    if samples:
        owner = {"trial_id": trial_id, "promotion_id": promotion_id}
        rows = [
            owner | {"name": item["name"], "l2": item["l2"], "packed_us": pack(item["values_us"])} for item in samples
        ]
        connection.execute(_INSERT_SAMPLES, rows)


def pack(values_us: Sequence[float]) -> bytes:
    """Little-endian float64; words such as "nan" from a JSON line become numbers again."""
    return struct.pack(f"<{len(values_us)}d", *(float(value) for value in values_us))


def unpack(packed: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(packed) // 8}d", packed)


def _apply_promotion(connection: sa.Connection, line: Line) -> int | None:
    statement = sa.insert(PromotionRow).values(campaign_id=line["campaign"], **line["promotion"])
    promotion_id = connection.execute(statement.returning(PromotionRow.id)).scalar_one()
    _write_samples(connection, line["samples"], promotion_id=promotion_id)
    return promotion_id


def _apply_crown(connection: sa.Connection, line: Line) -> int | None:
    """Give the place's ranks to the variants named, best first; whoever keeps a rank keeps its date."""
    place, at = line["place"], line["at"]
    here = [getattr(EliteRow, name) == value for name, value in place.items()]
    reigning = connection.execute(
        sa.select(EliteRow.id, EliteRow.rank, EliteRow.promotion_id, PromotionRow.variant_key)
        .join(PromotionRow, PromotionRow.id == EliteRow.promotion_id)
        .where(*here, EliteRow.until.is_(None))
    ).all()
    held = {row.rank: row for row in reigning}
    for rank in range(1, RANKS + 1):
        wanted = line["variant_keys"][rank - 1] if rank <= len(line["variant_keys"]) else None
        now = held.get(rank)
        promotion_id = _latest_promotion(connection, place, wanted) if wanted is not None else None
        if now is not None and now.promotion_id == promotion_id:
            continue
        if now is not None:
            connection.execute(sa.update(EliteRow).where(EliteRow.id == now.id).values(until=at))
        if promotion_id is not None:
            # A new measurement of the same champion continues its reign.
            row = {**place, "rank": rank, "promotion_id": promotion_id, "since": at, "until": None}
            connection.execute(sa.insert(EliteRow), row)
    return None


def _latest_promotion(connection: sa.Connection, place: Row, variant_key: str) -> int:
    """The newest accepted promotion of the variant at the place. Raises: ValueError when there is none."""
    here = [getattr(PromotionRow, name) == value for name, value in place.items()]
    statement = (
        sa.select(PromotionRow.id)
        .where(*here, PromotionRow.variant_key == variant_key, PromotionRow.accepted)
        .order_by(PromotionRow.id.desc())
        .limit(1)
    )
    found = connection.execute(statement).scalar()
    if found is None:
        raise ValueError(f"variant {variant_key} cannot be crowned: no accepted promotion of it at {dict(place)}")
    return int(found)


def _apply_event(connection: sa.Connection, line: Line) -> int | None:
    statement = sa.insert(EventRow).values(campaign_id=line["campaign"], **line["event"]).returning(EventRow.id)
    return connection.execute(statement).scalar_one()


def _apply_intervals(connection: sa.Connection, line: Line) -> int | None:
    rows = [{"campaign_id": line["campaign"], **item} for item in line["intervals"]]
    if rows:
        connection.execute(_INSERT_INTERVAL, rows)
    return None


def _apply_update(connection: sa.Connection, line: Line) -> int | None:
    connection.execute(sa.update(CampaignRow).where(CampaignRow.id == line["campaign"]).values(**line["columns"]))
    return None


APPLIERS = {
    "trial": _apply_trial,
    "promotion": _apply_promotion,
    "crown": _apply_crown,
    "event": _apply_event,
    "intervals": _apply_intervals,
    "update": _apply_update,
}
