"""Verification against programs that are wrong in one way each, made of torch operations on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from evo.outcome import Built, Rejected, Resources, Stage, Verified
from evo.targets import LaunchError
from evo.verify import _FENCE, Oracle, verify
from evo.workloads import Tensors, find_workload

WORKLOAD = find_workload("attention")
CASE = WORKLOAD.case("1x2x33x64", dtype="float32")
HALF = WORKLOAD.case("1x2x33x64", dtype="float16")
BUILT = Built("key", b"", "hash", Resources(), "", 0.0)
Step = Callable[[Tensors, torch.Tensor], None]


def attention(inputs: Tensors, scale: float = 64**-0.5) -> torch.Tensor:
    scores = inputs["q"] @ inputs["k"].transpose(-1, -2) * scale
    return torch.softmax(scores.float(), -1).to(inputs["v"].dtype) @ inputs["v"]


@dataclass
class Program:
    """A kernel made of torch operations."""

    step: Step

    def run(self, case: Any, inputs: Tensors, outputs: Tensors) -> None:
        self.step(inputs, outputs["out"])


def outcome(step: Step, case: Any = CASE, seeds: tuple[int, ...] = (1, 2)) -> Verified | Rejected:
    return verify(Program(step), BUILT, Oracle(WORKLOAD, "cpu"), [(case, "normal")], seeds)  # type: ignore[arg-type]


def right(inputs: Tensors, out: torch.Tensor) -> None:
    out.copy_(attention(inputs))


def rejected(step: Step, case: Any = CASE) -> Rejected:
    found = outcome(step, case)
    assert isinstance(found, Rejected)
    assert found.stage is Stage.VERIFY
    assert found.detail.startswith("case 1x2x33x64 normal seed ")
    return found


@pytest.mark.parametrize("case", [CASE, HALF], ids=["float32", "float16"])
def test_a_right_program_passes_with_its_errors_on_record(case: Any) -> None:
    verified = outcome(right, case)
    assert isinstance(verified, Verified)
    assert [error.seed for error in verified.errors] == [1, 2]
    for error in verified.errors:
        assert error.case == "1x2x33x64/normal"
        assert 0 < error.max_error <= error.max_bound < 1e-2
        assert error.norm_error <= error.norm_bound
    assert verified.verify_s > 0


def test_the_output_of_the_run_before_is_stale() -> None:
    kept: list[torch.Tensor] = []

    def stale(inputs: Tensors, out: torch.Tensor) -> None:
        kept.append(attention(inputs))
        out.copy_(kept[0])

    assert rejected(stale).reason == "wrong_output"


def test_an_output_that_is_never_written_is_poison() -> None:
    assert rejected(lambda inputs, out: None).reason == "not_finite"


def test_rows_left_unwritten_are_poison() -> None:
    def partial(inputs: Tensors, out: torch.Tensor) -> None:
        out[..., :-1, :] = attention(inputs)[..., :-1, :]

    assert rejected(partial).reason == "not_finite"


@pytest.mark.parametrize("case", [CASE, HALF], ids=["float32", "float16"])
@pytest.mark.parametrize("offset", [-1, 1, -_FENCE, _FENCE])
def test_one_element_written_beside_the_output_is_found(offset: int, case: Any) -> None:
    def spill(inputs: Tensors, out: torch.Tensor) -> None:
        right(inputs, out)
        start = out.storage_offset()
        index = start + offset if offset < 0 else start + out.numel() + offset - 1
        whole = torch.as_strided(out, (out.numel() + 2 * _FENCE,), (1,), start - _FENCE)
        whole[index - start + _FENCE] = math.nan

    found = rejected(spill, case)
    assert found.reason == "out_of_bounds_write"
    assert "the fence around out" in found.detail


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_value_that_is_not_finite_fails(value: float) -> None:
    def one(inputs: Tensors, out: torch.Tensor) -> None:
        right(inputs, out)
        out[0, 1, 7, 9] = value

    assert rejected(one).reason == "not_finite"


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_a_written_input_is_found_and_mended_for_the_next(name: str) -> None:
    oracle = Oracle(WORKLOAD, "cpu")

    def scribble(inputs: Tensors, out: torch.Tensor) -> None:
        right(inputs, out)
        inputs[name][0, 0, 0, 0] += 1

    found = verify(Program(scribble), BUILT, oracle, [(CASE, "normal")], [1])  # type: ignore[arg-type]
    assert isinstance(found, Rejected)
    assert (found.reason, found.detail.split(": ")[-1]) == ("mutated_input", f"{name} was written")
    after = verify(Program(right), BUILT, oracle, [(CASE, "normal")], [1])  # type: ignore[arg-type]
    assert isinstance(after, Verified)


def test_a_negative_zero_is_another_bit_pattern_of_an_input() -> None:
    case = WORKLOAD.case("1x1x32x64", dtype="float32")
    oracle = Oracle(WORKLOAD, "cpu")
    truth = oracle.truth(case, 1, "normal")
    truth.inputs["q"][0, 0, 0, 0] = truth.pristine["q"][0, 0, 0, 0] = 0.0

    def negate(inputs: Tensors, out: torch.Tensor) -> None:
        right(inputs, out)
        inputs["q"][0, 0, 0, 0] = -0.0

    found = verify(Program(negate), BUILT, oracle, [(case, "normal")], [1])  # type: ignore[arg-type]
    assert isinstance(found, Rejected)
    assert found.reason == "mutated_input"


WRONG: dict[str, Step] = {
    "wrong scale": lambda inputs, out: out.copy_(attention(inputs, scale=64**-0.5 * 1.01)),  # type: ignore[dict-item]
    "keys and values swapped": lambda i, out: out.copy_(attention({"q": i["q"], "k": i["v"], "v": i["k"]})),  # type: ignore[dict-item]
    "zeros": lambda inputs, out: out.zero_(),  # type: ignore[dict-item]
    "last key dropped": lambda i, out: out.copy_(  # type: ignore[dict-item]
        attention({"q": i["q"], "k": i["k"][..., :-1, :], "v": i["v"][..., :-1, :]})
    ),
    "heads swapped": lambda inputs, out: out.copy_(attention(inputs).flip(1)),  # type: ignore[dict-item]
    "one element off": lambda i, out: (out.copy_(attention(i)), out[0, 0, 0, 0].add_(0.01)),  # type: ignore[dict-item]
    "a little everywhere": lambda inputs, out: out.copy_(attention(inputs) * 1.001),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("trick", WRONG)
def test_a_wrong_answer_fails(trick: str) -> None:
    assert rejected(WRONG[trick]).reason == "wrong_output"


def test_fp16_accuracy_does_not_do_for_fp32() -> None:
    def half(inputs: Tensors, out: torch.Tensor) -> None:
        out.copy_(attention({name: tensor.half().float() for name, tensor in inputs.items()}))

    assert rejected(half).reason == "wrong_output"


def test_right_sums_pass_where_few_outputs_are_sensitive_and_the_library_was_lucky() -> None:
    """Sums of 64 terms in their natural order, on inputs for which one row of 32 has all of the error."""
    seeds = (3450, 8656, 26522, 39230, 45207, 52754)  # of 55,000 those with the largest error beside the library's
    tiny = WORKLOAD.case("tiny", dtype="float32")

    def in_order(inputs: Tensors, out: torch.Tensor) -> None:
        q, k, v = (inputs[name] for name in "qkv")
        scores = torch.zeros(1, 1, 32, 32)
        for d in range(64):
            scores += q[..., d : d + 1] * k[..., d : d + 1].transpose(-1, -2)
        out.copy_(torch.softmax(scores * tiny.scale, -1) @ v)

    found = verify(Program(in_order), BUILT, Oracle(WORKLOAD, "cpu"), [(tiny, "large_logits")], seeds)  # type: ignore[arg-type]
    assert isinstance(found, Verified), found


@pytest.mark.parametrize(("units", "fate"), [(2, Verified), (100, Rejected)])
@pytest.mark.parametrize("causal", [False, True])
def test_scores_may_err_as_sums_in_fp32_do_and_no_more(units: int, fate: type, causal: bool) -> None:
    """A unit: of fp32's roundoff, of a score's terms."""
    tiny = WORKLOAD.case("tiny", dtype="float32", causal=causal)

    def erring(inputs: Tensors, out: torch.Tensor) -> None:
        q, k, v = (inputs[name].double() for name in "qkv")
        sizes = q.norm(dim=-1, keepdim=True) * k.norm(dim=-1).unsqueeze(-2) * tiny.scale
        signs = torch.randint(0, 2, sizes.shape, generator=torch.Generator().manual_seed(5)) * 2 - 1
        scores = q @ k.transpose(-1, -2) * tiny.scale + units * 2.0**-24 * sizes * signs
        if causal:
            scores = scores.masked_fill(torch.ones(32, 32, dtype=torch.bool).triu(1), -math.inf)
        out.copy_(torch.softmax(scores, -1) @ v)

    found = verify(Program(erring), BUILT, Oracle(WORKLOAD, "cpu"), [(tiny, "large_logits")], range(8))  # type: ignore[arg-type]
    assert isinstance(found, fate), found


def test_a_launch_that_fails_is_an_outcome_and_a_lost_device_is_not() -> None:
    def refuse(inputs: Tensors, out: torch.Tensor) -> None:
        raise LaunchError("invalid_configuration", "too many threads")

    def lose(inputs: Tensors, out: torch.Tensor) -> None:
        raise LaunchError("illegal_address", fatal=True)

    found = outcome(refuse)
    assert isinstance(found, Rejected)
    assert (found.stage, found.reason) == (Stage.LAUNCH, "invalid_configuration")
    with pytest.raises(LaunchError, match="illegal_address"):
        outcome(lose)


def test_the_oracle_is_torchs_own_float64_attention() -> None:
    causal = WORKLOAD.case("2x2x17:29x64", dtype="float32", causal=True)
    for case in (CASE, causal):
        inputs = WORKLOAD.inputs(case, 5, "cpu")
        theirs = torch.nn.functional.scaled_dot_product_attention(
            *(inputs[name].double() for name in "qkv"), is_causal=case.causal
        )
        assert torch.allclose(WORKLOAD.oracle(case, inputs)["out"], theirs, atol=1e-12)


def test_truths_are_kept_by_seed_and_the_oldest_go_first() -> None:
    oracle = Oracle(WORKLOAD, "cpu", kept=2)
    first = oracle.truth(CASE, 1, "normal")
    assert oracle.truth(CASE, 1, "normal") is first
    oracle.truth(CASE, 2, "normal")
    oracle.truth(CASE, 3, "normal")
    assert oracle.truth(CASE, 1, "normal") is not first
