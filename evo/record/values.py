"""What goes into the record and what comes out of it: plain frozen values, never database rows.

Times of day are UTC seconds since 1970; durations end in `_s`, kernel times in `_us`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evo.outcome import Built, CaseError, Measured, Outcome, Rejected, Resources, Stage

if TYPE_CHECKING:
    from evo.variant import Variant

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine and software that times came from."""

    device: str  # "NVIDIA H200", or the host's processor
    uuid: str = ""
    arch: str = ""
    driver: str = ""
    toolchain: str = ""
    torch: str = ""
    python: str = ""
    evo: str = ""
    git_sha: str = ""
    dirty: bool = False
    host: str = ""
    clocks: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CampaignSpec:
    """A search about to start.

    space: {"knobs": [{"name", "values", "default", ...}], "rules": {...}, "size": admissible configurations}.
    replay: empty where times are measured; else the words that say whose recording is played.
    patience: evaluations without prospect that end it; control_share: of its trials that random search proposes.
    baselines: median device time in microseconds by PyTorch backend, as far as known at the start.
    """

    base: str
    workload: str
    case_name: str
    dtype: str
    arch: str
    target: str
    proposer: str
    seed: int
    environment: Environment
    constants: JsonObject = field(default_factory=dict)
    budget: int | None = None
    patience: int | None = None
    options: JsonObject = field(default_factory=dict)
    space: JsonObject = field(default_factory=dict)
    replay: str = ""
    anchor: str = ""
    baselines: Mapping[str, float] = field(default_factory=dict)
    kill_rate: JsonObject | None = None
    control_share: float | None = None


@dataclass(frozen=True, slots=True)
class Campaign:
    """A recorded search with its counts, as of the query."""

    id: int
    base: str
    workload: str
    case_name: str
    dtype: str
    arch: str
    target: str
    proposer: str
    seed: int
    environment: Environment
    constants: JsonObject
    budget: int | None
    patience: int | None
    options: JsonObject
    space: JsonObject
    replay: str
    anchor: str
    baselines: Mapping[str, float]
    kill_rate: JsonObject | None
    control_share: float | None
    state: str  # running, done, interrupted, failed
    end_reason: str
    started_at: float
    ended_at: float | None
    heartbeat_at: float
    host: str
    pid: int
    evaluated: int
    valid: int
    best_us: float | None
    best_ratio: float | None
    best_trial_id: int | None

    @property
    def valid_share(self) -> float:
        """Measured trials over all trials; 0 where there is none."""
        return self.valid / self.evaluated if self.evaluated else 0.0


@dataclass(frozen=True, slots=True)
class VariantRecord:
    """One program: everything it is built from, so that it can be built again, and what the toolchain said of it.

    sources: text by the name in #include; "" is the template itself.
    launch, gates: expressions as text.
    """

    key: str
    base: str
    configuration: JsonObject
    language: str = ""
    entry: str = ""
    arch: str = ""
    toolchain: str = ""
    constants: JsonObject = field(default_factory=dict)
    derived: JsonObject = field(default_factory=dict)
    facts: JsonObject = field(default_factory=dict)
    launch: JsonObject = field(default_factory=dict)
    gates: JsonObject = field(default_factory=dict)
    header_name: str = ""
    header: str = ""
    sources: Mapping[str, str] = field(default_factory=dict, repr=False)
    binary_hash: str = ""
    resources: Resources | None = None
    log: str = field(default="", repr=False)

    @classmethod
    def of(cls, variant: Variant, built: Built | None = None, log: str = "") -> VariantRecord:
        """The record of a variant, with what is known of its build."""
        launch: dict[str, Any] = {}
        if variant.launch is not None:
            for name in ("grid", "block", "cluster"):
                launch[name] = [expression.text for expression in getattr(variant.launch, name)]
            launch["shared_bytes"] = variant.launch.shared_bytes.text
        return cls(
            key=variant.key,
            base=variant.base,
            configuration=variant.configuration,
            language=variant.language,
            entry=variant.entry,
            arch=variant.arch,
            toolchain=variant.toolchain,
            constants=variant.constants,
            derived=variant.derived,
            facts=variant.facts,
            launch=launch,
            gates={name: gate.text for name, gate in variant.gates.items()},
            header_name=variant.header_name,
            header=variant.header,
            sources=variant.sources,
            binary_hash=built.binary_hash if built is not None else "",
            resources=built.resources if built is not None else None,
            log=built.log if built is not None else log,
        )

    def variant(self) -> Variant:
        """The variant, ready to be built again."""
        from evo.base import Launch
        from evo.expression import Expression
        from evo.variant import Variant

        parse = Expression.parse
        launch = None
        if self.launch:
            grid, block, cluster = (tuple(map(parse, self.launch[name])) for name in ("grid", "block", "cluster"))
            launch = Launch(grid=grid, block=block, shared_bytes=parse(self.launch["shared_bytes"]), cluster=cluster)
        return Variant(
            key=self.key,
            base=self.base,
            language=self.language,
            entry=self.entry,
            arch=self.arch,
            toolchain=self.toolchain,
            configuration=dict(self.configuration),
            constants=dict(self.constants),
            derived=dict(self.derived),
            header_name=self.header_name,
            header=self.header,
            sources=dict(self.sources),
            launch=launch,
            gates={name: parse(text) for name, text in self.gates.items()},
            facts=dict(self.facts),
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a proposal came from: its operator and the trial numbers of its parents."""

    operator: str = ""
    parents: tuple[int, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """One outcome to be recorded.

    number: counts from 0 within the campaign; unique there.
    cold_us, anchor_cold_us: samples with the L2 emptied; the outcome's own samples are warm.
    same_as: number of the trial whose binary this one shares, and whose times it repeats.
    """

    number: int
    variant: VariantRecord
    outcome: Outcome
    origin: Origin = Origin()
    started_at: float = 0.0
    recorded_at: float = 0.0  # 0: now
    worker: str = ""
    build_s: float | None = None  # None: as the outcome says
    verify_s: float | None = None
    measure_s: float | None = None
    cold_us: tuple[float, ...] = ()
    anchor_cold_us: tuple[float, ...] = ()
    same_as: int | None = None
    environment: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RecordedTrial:
    """One outcome as recorded; time_us and ratio are None where the trial was rejected."""

    id: int
    campaign_id: int
    number: int
    variant_key: str
    configuration: JsonObject
    origin: Origin
    stage: Stage | None
    reason: str
    detail: str
    time_us: float | None
    anchor_us: float | None
    ratio: float | None
    errors: tuple[CaseError, ...]
    started_at: float
    recorded_at: float
    build_s: float
    verify_s: float
    measure_s: float
    worker: str
    same_as: int | None
    environment: JsonObject

    @property
    def outcome(self) -> Outcome:
        """The outcome with medians for samples: enough to tell a proposer what it was told before."""
        if self.stage is not None or self.time_us is None:
            return Rejected(self.stage or Stage.CRASH, self.reason, self.detail)
        anchor = (self.anchor_us,) if self.anchor_us is not None else ()
        return Measured(samples_us=(self.time_us,), anchor_us=anchor, errors=self.errors)


@dataclass(frozen=True, slots=True)
class Point:
    """A trial as a chart needs it; position counts from 1 in the order of recording."""

    position: int
    id: int
    number: int
    at: float
    time_us: float | None
    ratio: float | None
    stage: str | None
    reason: str
    operator: str
    configuration: JsonObject


@dataclass(frozen=True, slots=True)
class Samples:
    """Raw times of one program, one value per round; name is "variant", "anchor", "incumbent" or a backend."""

    name: str
    values_us: tuple[float, ...]
    l2: str = "warm"  # or "cold"


@dataclass(frozen=True, slots=True)
class Place:
    """What elites compete for: one base on one case, dtype and arch."""

    base: str
    case_name: str
    dtype: str
    arch: str


@dataclass(frozen=True, slots=True)
class Promotion:
    """A finalist's re-measurement and its verdict.

    ratio_low, ratio_high: bootstrap interval of the ratio to the anchor.
    gain_low, gain_high: bootstrap interval of the gain over the incumbent as a fraction; None without incumbent.
    """

    place: Place
    variant_key: str
    accepted: bool
    reason: str
    time_us: float | None = None
    time_low_us: float | None = None
    time_high_us: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    anchor: str = ""
    statistics: JsonObject = field(default_factory=dict)
    samples: tuple[Samples, ...] = ()
    at: float = 0.0  # 0: now


@dataclass(frozen=True, slots=True)
class RecordedPromotion:
    """A promotion as recorded; its samples come from Record.samples(promotion_id=...)."""

    id: int
    campaign_id: int
    promotion: Promotion


@dataclass(frozen=True, slots=True)
class Elite:
    """One of the best three of a place; until is None while it holds its rank."""

    id: int
    place: Place
    rank: int
    since: float
    until: float | None
    promotion_id: int
    campaign_id: int
    promotion: Promotion
    variant_key: str
    configuration: JsonObject
    replay: str  # the campaign's: not empty where times were played from a recording


@dataclass(frozen=True, slots=True)
class Profile:
    """Hardware counters of one variant on one case, as a profiler read them."""

    variant_key: str
    device: str
    case_name: str
    counters: JsonObject
    at: float = 0.0  # 0: now


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth reading in a campaign: an insight, a warning, a killed worker."""

    kind: str
    text: str
    data: JsonObject = field(default_factory=dict)
    at: float = 0.0  # 0: now


@dataclass(frozen=True, slots=True)
class Failure:
    """How often a campaign's trials stopped at a stage for a reason, and the first trial that did."""

    stage: str
    reason: str
    count: int
    trial_id: int


@dataclass(frozen=True, slots=True)
class Interval:
    """What one worker did and when: build, verify, measure or idle."""

    worker: str
    kind: str
    started_at: float
    ended_at: float
