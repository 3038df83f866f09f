"""What a search proves before it starts: that every knob is live, and that verification stops wrong kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from evo.build_cache import load_build, save_build
from evo.campaign import Binding, build_all
from evo.errors import InputError
from evo.live import check_live
from evo.outcome import Built, Outcome
from evo.prove import judge as judge_proof
from evo.prove import mutant_variant, mutants
from evo.record import Event, Record
from evo.variant import Variant

Say = Callable[[str], None]


def check_knobs(fleet: Any, record: Record, campaign_id: int, binding: Binding, say: Say, *, allow_dead: bool) -> None:
    """Build each knob's values and compare the binaries; kept by content, so only a changed base is built again.

    Raises: InputError naming the knobs that change nothing, unless they are allowed.
    """
    report = check_live(
        binding.base,
        constants=binding.constants,
        facts=fleet.ready.facts,
        toolchain=binding.toolchain,
        build_all=lambda variants: build_all(fleet, variants),
    )
    if not report.cached:
        say(f"Every knob was tried for effect: {report.builds} builds, {report.programs} programs (kept by content)")
    if report.dead:
        record.record_event(campaign_id, Event("dead_knobs", ", ".join(report.dead)))
        if not allow_dead:
            names = ", ".join(f"knobs.{name}" for name in report.dead)
            raise InputError(
                f"{binding.base.path}: {names}: no value changes the binary; --allow-dead-knobs searches on"
            )


def prove_harness(fleet: Any, record: Record, campaign_id: int, binding: Binding, target: str, say: Say) -> None:
    """Send kernels known to be wrong down the street: every one must be stopped by verification.

    Raises: InputError naming those that were not; a search with such a harness would prove nothing.
    """
    chosen = mutants(target, binding.base.workload, binding.constants)
    if not chosen:
        say(f"Workload {binding.base.workload} has no mutants: verification is not proved")
        return
    variants = [
        mutant_variant(
            mutant,
            target,
            binding.base.workload,
            constants=binding.constants,
            arch=binding.arch,
            toolchain=binding.toolchain,
        )
        for mutant in chosen
    ]
    cached = {variant.key: load_build(variant) for variant in variants}
    missing = [variant for variant in variants if cached[variant.key] is None]
    if missing:
        say(f"Building {len(missing)} wrong kernels to prove verification with (kept for the next search)")
    results = _run_all(fleet, variants, {key: built for key, built in cached.items() if built is not None})
    proof = judge_proof(zip(chosen, results, strict=True))
    rate = {"killed": dict(proof.killed), "survived": dict(proof.survived), "rate": proof.kill_rate}
    record.update_campaign(campaign_id, kill_rate=rate)
    if not proof.holds:
        raise InputError(f"the harness does not hold: {proof.complaint()}")
    say(f"Verification stopped all {len(proof.killed)} wrong kernels and passed the right one")


def _run_all(fleet: Any, variants: Sequence[Variant], built: dict[str, Built]) -> list[Outcome]:
    """Build what is not built and run everything; outcomes in the order of the variants."""
    outcomes: dict[int, Outcome] = {}
    for number, variant in enumerate(variants):
        if variant.key in built:
            fleet.submit_run(number, variant, built[variant.key], None)
        else:
            fleet.submit_build(number, variant)
    while len(outcomes) < len(variants):
        for done in fleet.wait(1.0):
            if isinstance(done.result, Built):
                save_build(done.result)
                fleet.submit_run(done.number, variants[done.number], done.result, None)
            else:
                outcomes[done.number] = done.result
    return [outcomes[number] for number in range(len(variants))]
