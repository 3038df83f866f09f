"""Small records made by hand, one of everything, and programs of their own that use the record."""

from __future__ import annotations

import dataclasses
import math
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

from evo.outcome import Built, CaseError, Measured, Rejected, Resources, Stage
from evo.record import (
    CampaignSpec,
    Environment,
    Event,
    Interval,
    Origin,
    Place,
    Profile,
    Promotion,
    Record,
    Samples,
    Trial,
    VariantRecord,
)

PLACE = Place("phase4", "mission", "float16", "sm_90")


def make_spec(base: str = "phase4") -> CampaignSpec:
    return CampaignSpec(
        base=base,
        workload="attention",
        case_name="mission",
        dtype="float16",
        arch="sm_90",
        target="cuda",
        proposer="evo",
        seed=2**40,
        environment=Environment("NVIDIA H200", uuid="GPU-1", driver="580.1", clocks={"sm_mhz": 1980}),
        constants={"head_dim": 64, "causal": False},
        budget=300,
        options={"racing": True},
        space={"knobs": [{"name": "tile_q", "values": [16, 32]}], "size": 1234},
        baselines={"flash": 12.5},
    )


def make_variant(number: int, *, built: bool = True) -> VariantRecord:
    return VariantRecord(
        key=f"key{number}",
        base="phase4",
        configuration={"tile_q": 16 * (number + 1), "swizzle": "xor", "fast_exp": True},
        header=f"#pragma once\nconstexpr int kTileQ = {16 * (number + 1)};\n",
        sources={"": "the template", "softmax.cuh": "shared text"},
        binary_hash=f"binary{number}" if built else "",
        resources=Resources(registers=96 + number) if built else None,
        log="ptxas info" if built else "",
    )


def make_trial(number: int, time_us: float = 10.0) -> Trial:
    outcome = Measured(
        samples_us=(time_us - 1, time_us, time_us + 5),
        anchor_us=(2 * time_us, 2 * time_us, 2 * time_us),
        built=Built(f"key{number}", b"", f"binary{number}", Resources(), "", build_s=0.5),
        errors=(CaseError("mission", 3, 1e-4, 2e-4, 1e-5, 2e-5),),
        anchor="flash",
        verify_s=0.1,
        measure_s=0.2,
        environment={"sm_mhz": 1980},
    )
    origin = Origin("mutate", (number - 1,) if number else ())
    return Trial(number, make_variant(number), outcome, origin, started_at=100.0 + number, cold_us=(time_us * 1.5,))


def make_promotion(number: int, *, accepted: bool = True) -> Promotion:
    return Promotion(
        place=PLACE,
        variant_key=f"key{number}",
        accepted=accepted,
        reason="faster than the incumbent" if accepted else "gain within noise",
        time_us=9.0,
        ratio=1.2,
        ratio_low=1.15,
        ratio_high=1.25,
        gain_low=0.01,
        gain_high=0.03,
        samples=(Samples("variant", (9.0, 9.1)), Samples("anchor", (10.8, 10.9), "cold")),
    )


def check_round_trip(record: Record) -> None:
    """One of everything, read back equal; runs on every kind of server."""
    spec = make_spec()
    campaign_id = record.start_campaign(spec)
    campaign = record.campaign(campaign_id)
    for field in dataclasses.fields(CampaignSpec):
        assert getattr(campaign, field.name) == getattr(spec, field.name), field.name
    assert (campaign.state, campaign.evaluated, campaign.best_us, campaign.valid_share) == ("running", 0, None, 0.0)

    trial_ids = record.record_trials(campaign_id, [make_trial(0, 12.0), make_trial(1, 10.0)])
    nan_error = CaseError("mission", 7, math.nan, 1e-3, math.inf, 1e-3)
    wrong = Rejected(Stage.VERIFY, "wrong_output", "NaN at [0, 0, 3, 1] \x00 \ud800")
    record.record_trial(campaign_id, Trial(2, make_variant(2), wrong))
    first = record.trial(trial_ids[0] or 0)
    assert first.outcome == Measured((12.0,), (24.0,), errors=(CaseError("mission", 3, 1e-4, 2e-4, 1e-5, 2e-5),))
    assert (first.time_us, first.ratio, first.build_s, first.verify_s, first.measure_s) == (12.0, 2.0, 0.5, 0.1, 0.2)
    assert first.environment == {"sm_mhz": 1980, "anchor": "flash"}
    assert first.configuration == {"tile_q": 16, "swizzle": "xor", "fast_exp": True}
    samples = {(item.name, item.l2): item.values_us for item in record.samples(trial_ids[0])}
    assert samples == {
        ("variant", "warm"): (11.0, 12.0, 17.0),
        ("anchor", "warm"): (24.0, 24.0, 24.0),
        ("variant", "cold"): (18.0,),
    }
    assert record.variant("key1") == make_variant(1)
    rejected = record.trials(campaign_id)[2]
    assert rejected.stage is Stage.VERIFY
    assert rejected.detail.startswith("NaN at")
    assert rejected.time_us is None
    assert [trial.detail for trial in record.trials(campaign_id, details=False)] == ["", "", ""]
    assert record.trials(campaign_id, after=1)[0].number == 2
    assert [trial.number for trial in record.trials(campaign_id, by_time=True)] == [1, 0]
    assert [(item.stage, item.reason, item.count) for item in record.failures(campaign_id)] == [
        ("verify", "wrong_output", 1)
    ]
    assert record.binaries(campaign_id) == {"binary0": 0, "binary1": 1, "binary2": 2}
    failing = dataclasses.replace(make_trial(3), outcome=Measured((5.0,), errors=(nan_error,)))
    record.record_trial(campaign_id, failing)
    back = record.trials(campaign_id)[3].errors[0]
    assert math.isnan(back.max_error)
    assert back.norm_error == math.inf

    campaign = record.campaign(campaign_id)
    assert (campaign.evaluated, campaign.valid, campaign.best_us, campaign.best_ratio) == (4, 3, 5.0, None)

    promotion_id = record.record_promotion(campaign_id, make_promotion(1))
    record.record_promotion(campaign_id, make_promotion(0, accepted=False))
    record.crown(campaign_id, PLACE, ["key1"])
    (elite,) = record.elites(base="phase4")
    assert (elite.rank, elite.variant_key, elite.promotion_id, elite.until) == (1, "key1", promotion_id, None)
    assert elite.promotion.gain_low == 0.01
    assert elite.configuration["tile_q"] == 32
    assert [item.promotion.accepted for item in record.promotions(campaign_id=campaign_id)] == [False, True]
    assert record.samples(promotion_id=promotion_id) == list(make_promotion(1).samples)

    counters = Profile("key1", "NVIDIA H200", "mission", {"occupancy_pct": 50.0}, at=6.0)
    record.record_profile(counters)
    assert record.profiles("key1") == [counters]

    record.record_event(campaign_id, Event("insight", "tile_q explains 60 %", {"knob": "tile_q"}, at=5.0))
    record.record_intervals(campaign_id, [Interval("gpu0", "measure", 1.0, 2.0), Interval("cpu0", "build", 0.5, 1.0)])
    assert record.events(campaign_id, "insight") == [Event("insight", "tile_q explains 60 %", {"knob": "tile_q"}, 5.0)]
    assert [item.worker for item in record.intervals(campaign_id)] == ["cpu0", "gpu0"]
    record.update_campaign(campaign_id, baselines={"flash": 11.0, "math": 90.0}, kill_rate={"killed": 20, "of": 20})
    record.finish_campaign(campaign_id, "done", "budget spent")
    campaign = record.campaign(campaign_id)
    assert (campaign.state, campaign.end_reason, campaign.baselines["math"]) == ("done", "budget spent", 90.0)
    assert campaign.kill_rate == {"killed": 20, "of": 20}
    assert campaign.ended_at is not None


def integrity(database: Path) -> str:
    with sqlite3.connect(database) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def start_python(script: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(script)]
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, env=environment
    )


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    process = start_python(script)
    out, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors)
