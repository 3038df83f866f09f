"""Made-up campaigns with the shape of real ones, for tests and benchmarks that need many trials at once.

Their times are computed, not measured; the device is called "Example GPU" so that no picture of them can mislead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np

from evo.base import Base, Launch
from evo.expression import Expression
from evo.knob import Knob
from evo.outcome import Built, CaseError, Measured, Outcome, Rejected, Resources, Stage
from evo.record import (
    CampaignSpec,
    Environment,
    Event,
    Interval,
    Origin,
    Place,
    Promotion,
    Record,
    Samples,
    Trial,
    VariantRecord,
)
from evo.space import Configuration, SearchSpace
from evo.variant import make_variant

KNOBS = (
    Knob("tile_q", (16, 32, 64, 128), default=16),
    Knob("tile_k", (16, 32, 64, 128), default=16),
    Knob("stages", (1, 2, 3, 4), default=1),
    Knob("swizzle", ("none", "pad", "xor"), default="none"),
    Knob("producer_warps", (1, 2, 4), default=1),
    Knob("consumer_warps", (1, 2, 4, 8), default=1),
    Knob("key_splits", (1, 2, 4), default=1),
    Knob("fast_exp", (False, True), default=False),
)
RULES = {"warp_owns_whole_tiles": "tile_q % (16 * consumer_warps) == 0 or key_splits > 1"}
DERIVED = {"threads": "32 * (producer_warps + consumer_warps)", "shared_bytes": "tile_q * 128 + stages * tile_k * 256"}
TEMPLATE = """// Stand-in for a kernel: what the record's pages show as source.
#include "evo_config.cuh"
static_assert(evo::Config::kTileQ >= 16, "tile_q");
extern "C" __global__ void attention_forward(const void* q, const void* k, const void* v, void* out) {}
"""
CONSTANTS: Mapping[str, bool | int | str] = {"head_dim": 64, "causal": False, "dtype": "float16"}
ANCHOR_US = 25.0
PLACE = Place("phase4", "mission", "float16", "sm_90")
COMPILER_WORDS = """evo_kernel.cu(212): error: static assertion failed with "fits_shared"
    static_assert(Config::kSharedBytes <= 232448, "fits_shared");
    ^
1 error detected in the compilation of "evo_kernel.cu".
"""


@cache
def make_space() -> SearchSpace:
    return SearchSpace(KNOBS, rules=RULES, derived=DERIVED)


@cache
def make_base() -> Base:
    from pathlib import Path

    parse = Expression.parse
    return Base(
        name="phase4",
        path=Path("search_spaces/phase4.yaml"),
        template="attention/phase4_warp_specialized/kernel.cu",
        language="cuda",
        workload="attention",
        entry="attention_forward",
        doc="warp-specialised attention",
        knobs=KNOBS,
        derived={name: parse(text) for name, text in DERIVED.items()},
        rules={name: parse(text) for name, text in RULES.items()},
        gates={"no_spills": parse("spill_bytes == 0")},
        launch=Launch((parse("ceil_div(seq_q, tile_q)"), parse("heads")), (parse("threads"),), parse("shared_bytes")),
        dtypes=("float16", "bfloat16"),
        sources={"": TEMPLATE},
    )


def make_spec(**changes: object) -> CampaignSpec:
    space = make_space()
    spec = CampaignSpec(
        base="phase4",
        workload="attention",
        case_name="mission",
        dtype="float16",
        arch="sm_90",
        target="cuda",
        proposer="evo",
        seed=7,
        environment=Environment(
            device="Example GPU",
            uuid="GPU-0000",
            arch="sm_90",
            driver="580.00",
            toolchain="nvrtc 13.0 --std=c++20 -arch=sm_90",
            torch="2.13.0",
            python="3.11.7",
            evo="0.1.0",
            git_sha="0123456789abcdef0123456789abcdef01234567",
            host="example",
            clocks={"sm_mhz": 1980, "memory_mhz": 2619},
        ),
        constants=dict(CONSTANTS),
        budget=300,
        space={"knobs": [knob.document() for knob in KNOBS], "rules": RULES, "size": space.size},
        anchor="flash",
        baselines={"flash": ANCHOR_US, "cudnn": 27.5, "efficient": 36.0, "math": 180.0},
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def make_variant_record(configuration: Configuration, *, built: bool = True, base: Base | None = None) -> VariantRecord:
    """A record with the real header and key of a configuration."""
    made = make_variant(
        base or make_base(),
        make_space(),
        configuration,
        constants=dict(CONSTANTS),
        facts={"device.arch": 90},
        arch="sm_90",
        toolchain="nvrtc 13.0 --std=c++20 -arch=sm_90",
    )
    if not built:
        return VariantRecord.of(made, log=COMPILER_WORDS)
    resources = Resources(registers=96 + sum(configuration.indices), shared_bytes=int(made.derived["shared_bytes"]))
    log = f"ptxas info    : Used {resources.registers} registers, used 3 barriers, 0 bytes stack, 0 bytes spill"
    return VariantRecord.of(made, Built(made.key, b"", made.key[::-1], resources, log, 0.5))


def model_us(configuration: Mapping[str, object]) -> float:
    """A time with one good region: interactions, a few strong knobs, many weak ones."""
    value = {name: configuration[name] for name in configuration}
    tile_q, tile_k = float(str(value["tile_q"])), float(str(value["tile_k"]))
    stages, consumers = float(str(value["stages"])), float(str(value["consumer_warps"]))
    time_us = 17.0 + 2.5 * abs(np.log2(tile_q / 64)) + 1.5 * abs(np.log2(tile_k * stages / 128))
    time_us += 1.8 * abs(np.log2(consumers / 4)) + {"none": 9.0, "pad": 2.0, "xor": 0.0}[str(value["swizzle"])]
    time_us += 0.0 if value["fast_exp"] else 1.7
    time_us += 0.6 * (float(str(value["key_splits"])) - 1) * (1 if tile_q > 32 else -1)
    return float(time_us + 0.4 * (float(str(value["producer_warps"])) - 1))


def outcome_of(configuration: Configuration, rng: np.random.Generator, *, rounds: int = 12) -> Outcome:
    """A computed outcome: about one in seven is rejected, for reasons that follow from the configuration."""
    value = dict(configuration)
    shared = int(str(value["tile_q"])) * 128 + int(str(value["stages"])) * int(str(value["tile_k"])) * 256
    if shared > 100_000:
        return Rejected(Stage.BUILD, "static_assert: fits_shared", COMPILER_WORDS)
    if value["tile_q"] == 128 and value["consumer_warps"] == 1:
        return Rejected(Stage.GATES, "no_spills", "spill_bytes == 0: spill_bytes is 416")
    if value["fast_exp"] and value["key_splits"] == 4 and value["swizzle"] == "pad":
        return Rejected(Stage.VERIFY, "wrong_output", "mission, seed 3: error 0.41 at [0, 2, 17, 5], allowed 0.0021")
    if rng.random() < 0.01:
        return Rejected(Stage.CRASH, "illegal_address", "CUDA_ERROR_ILLEGAL_ADDRESS")
    middle = model_us(configuration)
    samples = middle * (1 + 0.004 * rng.standard_normal(rounds))
    anchors = ANCHOR_US * (1 + 0.004 * rng.standard_normal(rounds))
    return Measured(
        samples_us=tuple(float(x) for x in samples),
        anchor_us=tuple(float(x) for x in anchors),
        errors=(CaseError("mission", 3, 4e-4, 2.1e-3, 1e-4, 6e-4),),
        anchor="flash",
        verify_s=0.02,
        measure_s=0.03,
        environment={"sm_mhz": 1980},
    )


def fill_campaign(
    record: Record, campaign_id: int, budget: int, *, seed: int = 7, proposer: str = "evo"
) -> list[Trial]:
    """Run a search on the made-up times and record it in batches; returns its trials."""
    from evo.search import make_proposer

    space, base = make_space(), make_base()
    search = make_proposer(proposer, space, seed, budget=budget)
    rng = np.random.default_rng(seed)
    clock = record.campaign(campaign_id).started_at + 0.4  # no trial starts before its campaign, whatever the machine
    trials: list[Trial] = []
    intervals: list[Interval] = []
    best: tuple[float, int] | None = None
    while len(trials) < budget:
        asked = search.ask(min(16, budget - len(trials)))
        if not asked:
            break
        for configuration in asked:
            number = len(trials)
            outcome = outcome_of(configuration, rng)
            search.tell(configuration, outcome)
            built = not (isinstance(outcome, Rejected) and outcome.stage is Stage.BUILD)
            parents = tuple(sorted({best[1], max(0, best[1] - 7)})) if best is not None and number >= 32 else ()
            origin = Origin(("mutate", "crossover")[number % 2] if parents else "random", parents)
            start = clock + 0.08 * number
            if isinstance(outcome, Measured) and (best is None or outcome.time_us < best[0]):
                best = (outcome.time_us, number)
            intervals += [
                Interval(f"builder {number % 4}", "build", start - 0.4, start - 0.1),
                Interval("gpu 0", "verify", start, start + 0.02),
                Interval("gpu 0", "measure", start + 0.02, start + 0.05),
            ]
            trials.append(
                Trial(
                    number=number,
                    variant=make_variant_record(configuration, built=built, base=base),
                    outcome=outcome,
                    origin=origin,
                    started_at=start - 0.4,
                    recorded_at=start + 0.06,
                    worker="gpu 0",
                    build_s=0.3,
                )
            )
    for first in range(0, len(trials), 500):
        record.record_trials(campaign_id, trials[first : first + 500])
    record.record_intervals(campaign_id, intervals)
    record.record_event(
        campaign_id, Event("insight", "swizzle=none is slow wherever it was tried", {"knob": "swizzle"})
    )
    return trials


def promote_best(record: Record, campaign_id: int, trials: list[Trial], *, seed: int = 1) -> None:
    """Record promotions of the three fastest trials and crown them."""
    rng = np.random.default_rng(seed)
    measured = [(t.outcome.time_us, t) for t in trials if isinstance(t.outcome, Measured)]
    finalists = [trial for _, trial in sorted(measured, key=lambda pair: pair[0])[:3]]
    for trial in finalists:
        assert isinstance(trial.outcome, Measured)
        middle = trial.outcome.time_us
        named = {"variant": middle, "flash": ANCHOR_US, "cudnn": 27.5}
        samples = tuple(
            Samples(name, tuple(float(x) for x in center * factor * (1 + 0.004 * rng.standard_normal(30))), l2)
            for l2, factor in (("warm", 1.0), ("cold", 1.25))
            for name, center in named.items()
        )
        record.record_promotion(
            campaign_id,
            Promotion(
                place=PLACE,
                variant_key=trial.variant.key,
                accepted=True,
                reason="among the best three",
                time_us=middle,
                time_low_us=middle * 0.997,
                time_high_us=middle * 1.003,
                ratio=ANCHOR_US / middle,
                ratio_low=0.995 * ANCHOR_US / middle,
                ratio_high=1.005 * ANCHOR_US / middle,
                gain_low=0.012,
                gain_high=0.021,
                anchor="flash",
                statistics={"rounds": 30, "cold_ratio": 1.3},
                samples=samples,
            ),
        )
    record.crown(campaign_id, PLACE, [trial.variant.key for trial in finalists])
