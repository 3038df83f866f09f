"""The tables of results.db."""

from __future__ import annotations

from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, LargeBinary, MetaData, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# Named constraints: migrations can then change them on SQLite and PostgreSQL alike.
NAMING = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

REVISIONS = ("0001", "0002", "0003")  # oldest first; the last is this program's schema


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar = {
        dict[str, Any]: JSON,
        list[Any]: JSON,
        str: Text,
        float: Double,
        bytes: LargeBinary,
    }


class EnvironmentRow(Base):
    __tablename__ = "environments"
    id: Mapped[int] = mapped_column(primary_key=True)
    device: Mapped[str]
    uuid: Mapped[str]
    arch: Mapped[str]
    driver: Mapped[str]
    toolchain: Mapped[str]
    torch: Mapped[str]
    python: Mapped[str]
    evo: Mapped[str]
    git_sha: Mapped[str]
    dirty: Mapped[bool]
    host: Mapped[str]
    clocks: Mapped[dict[str, Any]]


class CampaignRow(Base):
    __tablename__ = "campaigns"
    __table_args__ = (Index("ix_campaigns_base_state", "base", "state"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    environment_id: Mapped[int] = mapped_column(ForeignKey("environments.id"))
    base: Mapped[str]
    workload: Mapped[str]
    case_name: Mapped[str]
    dtype: Mapped[str]
    arch: Mapped[str]
    target: Mapped[str]
    proposer: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    constants: Mapped[dict[str, Any]]
    budget: Mapped[int | None]
    patience: Mapped[int | None]
    options: Mapped[dict[str, Any]]
    space: Mapped[dict[str, Any]]
    replay: Mapped[str]
    anchor: Mapped[str]
    baselines: Mapped[dict[str, Any]]
    kill_rate: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    control_share: Mapped[float | None]
    state: Mapped[str]
    end_reason: Mapped[str]
    started_at: Mapped[float]
    ended_at: Mapped[float | None]
    heartbeat_at: Mapped[float]
    host: Mapped[str]
    pid: Mapped[int]


class SourceRow(Base):
    """A source text, stored once whatever the number of variants built from it."""

    __tablename__ = "sources"
    hash: Mapped[str] = mapped_column(primary_key=True)  # sha256 of the UTF-8 text, in hex
    text: Mapped[str]


class VariantRow(Base):
    __tablename__ = "variants"
    key: Mapped[str] = mapped_column(primary_key=True)
    base: Mapped[str]
    language: Mapped[str]
    entry: Mapped[str]
    arch: Mapped[str]
    toolchain: Mapped[str]
    configuration: Mapped[dict[str, Any]]
    constants: Mapped[dict[str, Any]]
    derived: Mapped[dict[str, Any]]
    facts: Mapped[dict[str, Any]]
    launch: Mapped[dict[str, Any]]
    gates: Mapped[dict[str, Any]]
    header_name: Mapped[str]
    header: Mapped[str]
    sources: Mapped[dict[str, Any]]  # name in #include -> sources.hash
    binary_hash: Mapped[str]
    resources: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    log: Mapped[str]


class TrialRow(Base):
    __tablename__ = "trials"
    __table_args__ = (
        UniqueConstraint("campaign_id", "number"),
        # Covers the campaign list's counts and best times without touching the rows.
        Index("ix_trials_campaign_id_time_us", "campaign_id", "time_us"),
        Index("ix_trials_campaign_id_stage_reason", "campaign_id", "stage", "reason"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    number: Mapped[int]
    variant_key: Mapped[str] = mapped_column(ForeignKey("variants.key"), index=True)
    operator: Mapped[str]
    parents: Mapped[list[Any]]
    note: Mapped[str]
    stage: Mapped[str | None]
    reason: Mapped[str]
    detail: Mapped[str]
    time_us: Mapped[float | None]
    anchor_us: Mapped[float | None]
    ratio: Mapped[float | None]
    errors: Mapped[list[Any]]
    started_at: Mapped[float]
    recorded_at: Mapped[float]
    build_s: Mapped[float]
    verify_s: Mapped[float]
    measure_s: Mapped[float]
    worker: Mapped[str]
    same_as: Mapped[int | None]
    environment: Mapped[dict[str, Any]]


class PromotionRow(Base):
    __tablename__ = "promotions"
    __table_args__ = (Index("ix_promotions_place", "base", "case_name", "dtype", "arch", "variant_key"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), index=True)
    variant_key: Mapped[str] = mapped_column(ForeignKey("variants.key"))
    base: Mapped[str]
    case_name: Mapped[str]
    dtype: Mapped[str]
    arch: Mapped[str]
    accepted: Mapped[bool]
    reason: Mapped[str]
    time_us: Mapped[float | None]
    time_low_us: Mapped[float | None]
    time_high_us: Mapped[float | None]
    ratio: Mapped[float | None]
    ratio_low: Mapped[float | None]
    ratio_high: Mapped[float | None]
    gain_low: Mapped[float | None]
    gain_high: Mapped[float | None]
    anchor: Mapped[str]
    statistics: Mapped[dict[str, Any]]
    at: Mapped[float]


class EliteRow(Base):
    """Who held which rank of a place and when: the history of champions."""

    __tablename__ = "elites"
    __table_args__ = (Index("ix_elites_place", "base", "case_name", "dtype", "arch", "until"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    base: Mapped[str]
    case_name: Mapped[str]
    dtype: Mapped[str]
    arch: Mapped[str]
    rank: Mapped[int]
    promotion_id: Mapped[int] = mapped_column(ForeignKey("promotions.id"))
    since: Mapped[float]
    until: Mapped[float | None]


class SamplesRow(Base):
    """Raw times in microseconds, packed as little-endian float64, of one trial or one promotion."""

    __tablename__ = "samples"
    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int | None] = mapped_column(ForeignKey("trials.id"), index=True)
    promotion_id: Mapped[int | None] = mapped_column(ForeignKey("promotions.id"), index=True)
    name: Mapped[str]
    l2: Mapped[str]
    packed_us: Mapped[bytes]


class SpooledRow(Base):
    """Spool lines already merged, so that a merge cut short can be run again."""

    __tablename__ = "spooled"
    id: Mapped[str] = mapped_column(primary_key=True)


class ProfileRow(Base):
    """Hardware counters of one variant, as a profiler read them."""

    __tablename__ = "profiles"
    id: Mapped[int] = mapped_column(primary_key=True)
    variant_key: Mapped[str] = mapped_column(ForeignKey("variants.key"), index=True)
    at: Mapped[float]
    device: Mapped[str]
    case_name: Mapped[str]
    counters: Mapped[dict[str, Any]]


class EventRow(Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), index=True)
    at: Mapped[float]
    kind: Mapped[str]
    text: Mapped[str]
    data: Mapped[dict[str, Any]]


class IntervalRow(Base):
    __tablename__ = "worker_intervals"
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), index=True)
    worker: Mapped[str]
    kind: Mapped[str]
    started_at: Mapped[float]
    ended_at: Mapped[float]
