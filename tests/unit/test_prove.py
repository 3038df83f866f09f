"""Verification must reject every mutant, and the proof must say so when it does not."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from evo.outcome import Built, Rejected, Resources, Stage, Verified
from evo.prove import CONTROL, Mutant, Proof, judge, mutant_variant, mutants, prove, variants_of
from evo.targets import make_target
from evo.verify import Oracle, verify
from evo.workloads import find_workload

HOST = {"head_dim": 64, "causal": False, "dtype": "float32"}
CAUSAL = {**HOST, "causal": True}
HALF = {"head_dim": 64, "causal": True, "dtype": "float16"}
needs_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")


def host_case(shape: str = "1x2x128x64", *, causal: bool) -> Any:
    return find_workload("attention").case(shape, dtype="float32", causal=causal)


@pytest.mark.parametrize("language", ["cuda", "host"])
def test_there_are_enough_mutants_and_each_says_its_trick(language: str) -> None:
    found = mutants(language, "attention", HALF)
    assert found[0].name == CONTROL
    assert len(found) > 35
    assert all(len(m.trick) > 10 for m in found)
    full = {m.name for m in mutants(language, "attention", HOST)}
    assert {m.name for m in found} - full == {"full_only", "mask_one_late", "mask_from_the_end"}


def test_both_languages_have_the_same_mutants() -> None:
    assert {m.name for m in mutants("cuda", "attention", HALF)} == {m.name for m in mutants("host", "attention", HALF)}


def test_a_workload_without_mutants_proves_nothing() -> None:
    proof = judge((mutant, None) for mutant in mutants("host", "convolution", HOST))
    assert not proof.holds
    assert proof.kill_rate == 0


@needs_compiler
def test_every_mutant_is_killed_on_the_host_and_the_right_kernel_passes() -> None:
    proof = prove(make_target("host"), find_workload("attention"), host_case(causal=True))
    assert proof.holds, proof.complaint()
    assert proof.kill_rate == 1
    assert proof.killed["mutated_input"] == "mutated_input"
    assert proof.killed["write_behind_the_end"] == "out_of_bounds_write"
    assert proof.killed["write_before_the_start"] == "out_of_bounds_write"
    assert proof.killed["one_nan"] == "not_finite"


@needs_compiler
@pytest.mark.parametrize(
    ("name", "shape", "causal", "seeds"),
    [
        ("full_only", "1x2x64x64", False, (5, 6)),
        ("full_tiles_only", "1x2x64x64", False, (5, 6)),
        ("ragged_keys_dropped", "1x2x64x64", False, (5, 6)),
        ("square_only", "1x2x64x64", False, (5, 6)),
        ("first_batch_only", "1x2x64x64", False, (5, 6)),
        ("one_seed_only", "1x2x64x64", False, (0,)),
        ("first_call_only", "1x2x64x64", False, (5,)),
        ("mask_from_the_end", "1x2x64x64", True, (5, 6)),
    ],
)
def test_a_trick_that_is_right_only_here_passes_here(name: str, shape: str, causal: bool, seeds: tuple[int]) -> None:
    """So that such a mutant dies of its trick and not of a mistake in the mutant."""
    workload, target, case = find_workload("attention"), make_target("host"), host_case(shape, causal=causal)
    chosen = [mutant for mutant in mutants("host", "attention", CAUSAL) if mutant.name == name]
    (variant,) = variants_of(target, workload, case, chosen)
    built = target.build(variant)
    assert isinstance(built, Built)
    program = target.load(built, variant, workload)
    assert isinstance(verify(program, built, Oracle(workload, "cpu"), [(case, "normal")], seeds), Verified)


def test_only_a_rejection_by_verification_is_a_kill() -> None:
    control, wrong, broken = (Mutant(name, "a trick", "") for name in (CONTROL, "wrong", "broken"))
    killed = Rejected(Stage.VERIFY, "wrong_output")
    proof = judge([(control, None), (wrong, killed), (broken, Rejected(Stage.BUILD, "compile_error"))])
    assert proof.killed == {"wrong": "wrong_output"}
    assert proof.survived == {"broken": "build: compile_error"}
    assert proof.kill_rate == 0.5
    assert not proof.holds
    assert "broken (build: compile_error)" in proof.complaint()


def test_verification_that_rejects_everything_proves_nothing() -> None:
    killed = Rejected(Stage.VERIFY, "wrong_output", "case mission")
    proof = judge([(Mutant(CONTROL, "none", ""), killed), (Mutant("wrong", "a trick", ""), killed)])
    assert not proof.holds
    assert "rejects a right kernel" in proof.complaint()


def test_a_proof_that_holds_has_no_complaint() -> None:
    assert Proof({"wrong": "wrong_output"}, {}).complaint() == ""
    assert Proof({"wrong": "wrong_output"}, {}).holds


@pytest.mark.parametrize(("arch", "constants", "most"), [("sm_89", HALF, 99), ("sm_90", {**HOST, "head_dim": 128}, 4)])
def test_every_cuda_mutant_builds_without_a_gpu(arch: str, constants: dict[str, Any], most: int) -> None:
    from evo.targets import nvrtc

    chosen = mutants("cuda", "attention", constants)[:most]
    variants = [
        mutant_variant(m, "cuda", "attention", constants=constants, arch=arch, toolchain=nvrtc.toolchain())
        for m in chosen
    ]
    with ThreadPoolExecutor(2) as pool:
        builds = list(pool.map(nvrtc.build, variants))
    failed = {m.name: b.detail for m, b in zip(chosen, builds, strict=True) if isinstance(b, Rejected)}
    assert not failed
    assert len({b.binary_hash for b in builds if isinstance(b, Built)}) == len(chosen)


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("shape", "dtype"), [("mission", "float16"), ("1x2x256x128", "bfloat16")])
def test_every_mutant_is_killed_on_the_gpu(shape: str, dtype: str, causal: bool) -> None:
    workload = find_workload("attention")
    proof = prove(make_target("cuda"), workload, workload.case(shape, dtype=dtype, causal=causal), builders=8)
    assert proof.holds, proof.complaint()


class _Emulated:
    """A half-precision kernel on the CPU: what verification makes of its arithmetic, where there is no GPU."""

    def __init__(self, accumulates_in_half: bool) -> None:
        self.accumulates_in_half = accumulates_in_half

    def run(self, case: Any, inputs: dict[str, torch.Tensor], outputs: dict[str, torch.Tensor]) -> None:
        q, k, v = (inputs[name].float() for name in "qkv")
        scores = (q @ k.mT) * case.scale
        if case.causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        kind = inputs["q"].dtype
        sums = torch.zeros_like(q)
        for key in range(case.seq_kv):
            sums += weights[..., key : key + 1].to(kind).float() * v[..., key : key + 1, :]
            if self.accumulates_in_half:
                sums = sums.to(kind).float()
        outputs["out"].copy_(sums / weights.sum(-1, keepdim=True))

    def stopwatch(self, case: Any, input_sets: Any, launches: int) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_sums_are_told_from_half_precision_inputs(dtype: str, causal: bool) -> None:
    workload = find_workload("attention")
    case = workload.case("1x2x256x64", dtype=dtype, causal=causal)
    oracle = Oracle(workload, "cpu")
    built = Built("k", b"", "h", Resources(), "", 0.0)
    right = verify(_Emulated(False), built, oracle, workload.trial_cases(case), [3])
    wrong = verify(_Emulated(True), built, oracle, workload.trial_cases(case), [3])
    assert isinstance(right, Verified), right
    assert isinstance(wrong, Rejected)
