"""One suite for every target that builds and runs code: what a campaign relies on, whatever the device.

Building needs no device, so the CUDA target is built here too; what runs on a GPU is marked `gpu`.
"""

from __future__ import annotations

import re
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from evo.base import Base, base_paths, find_base
from evo.measure import HOST_TIMING, Timing
from evo.outcome import Built, Measured, Rejected, Stage
from evo.seat import Seat, WorkerSpec
from evo.space import Configuration, SearchSpace
from evo.targets import Target, build, make_target
from evo.variant import Variant, make_variant
from evo.workloads import Workload, find_workload

needs_compiler = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
HOST = pytest.param("host", marks=needs_compiler)
BUILDERS = [HOST, "cuda"]
RUNNERS = [HOST, pytest.param("cuda", marks=pytest.mark.gpu)]
BASES = {"host": "cpu_attention", "cuda": "phase4"}
DTYPES = {"host": "float32", "cuda": "float16"}

_ENTRY = {"host": 'extern "C" void attention_forward', "cuda": 'extern "C" __global__ void attention_forward'}
CRASH = "(const float* q, const float*, const float*, float*, int, int, int, int, float) { *(volatile int*)8 = 1; }"
HANG = """(const float* q, const float*, const float*, float*, int, int, int, int, float) {
  for (volatile int i = 0; i >= 0; i = 1) {}
}"""


@dataclass(frozen=True)
class Subject:
    """A target with a real base on it."""

    target: Target
    base: Base
    space: SearchSpace
    workload: Workload
    case: Any
    device: str

    def variant(self, configuration: Configuration | None = None, **constants: Any) -> Variant:
        facts = self.target.facts()
        return make_variant(
            self.base,
            self.space,
            configuration or self.space.default,
            constants={**self.case.constants(), **constants},
            facts=facts.limits,
            arch=facts.arch,
            toolchain=self.target.toolchain(),
        )

    def with_body(self, body: str, key: str) -> Variant:
        """A variant whose kernel is this body instead."""
        return replace(self.variant(), key=key, sources={"": _ENTRY[self.target.name] + body}, gates={})

    def outputs(self) -> dict[str, torch.Tensor]:
        shapes = self.workload.empty_outputs(self.case).items()
        return {
            name: torch.empty(shape, dtype=getattr(torch, dtype), device=self.device) for name, (shape, dtype) in shapes
        }


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def subject(name: str, request: pytest.FixtureRequest) -> Subject:
    on_gpu = request.node.get_closest_marker("gpu") is not None
    target = make_target(name, arch="sm_89" if name == "cuda" and not on_gpu else None)
    base, workload = find_base(BASES[name]), find_workload("attention")
    case = workload.case("1x2x128x64", dtype=DTYPES[name])
    space = base.space({**case.constants(), **target.facts().limits})
    return Subject(target, base, space, workload, case, "cuda" if name == "cuda" else "cpu")


def built(subject: Subject, variant: Variant) -> Built:
    outcome = subject.target.build(variant)
    assert isinstance(outcome, Built), outcome
    return outcome


# -- building


@pytest.mark.parametrize("name", BUILDERS, indirect=True)
def test_a_variant_builds_and_says_what_it_needs(subject: Subject) -> None:
    variant = subject.variant()
    made = built(subject, variant)
    assert made.key == variant.key
    assert len(made.binary) > 1000
    assert made.build_s > 0
    if subject.target.name == "cuda":
        assert 16 <= made.resources.registers <= 255


@pytest.mark.parametrize("name", BUILDERS, indirect=True)
def test_identical_variants_are_one_binary_and_a_knob_makes_another(subject: Subject) -> None:
    first, again = built(subject, subject.variant()), built(subject, subject.variant())
    assert first.binary_hash == again.binary_hash
    near = next(iter(subject.space.neighbours(subject.space.default)))
    assert built(subject, subject.variant(near)).binary_hash != first.binary_hash


@pytest.mark.parametrize("name", BUILDERS, indirect=True)
def test_what_does_not_reach_the_code_does_not_reach_the_hash(subject: Subject) -> None:
    """A comment and a constant that nobody reads change the key, not the program."""
    variant = subject.variant()
    header = "// a comment\n" + variant.header.replace(
        "struct Config {", "struct Config {\n  static constexpr int kIdle = 1;"
    )
    assert built(subject, replace(variant, header=header)).binary_hash == built(subject, variant).binary_hash


@pytest.mark.parametrize("name", BUILDERS, indirect=True)
def test_a_failed_build_is_data_with_the_compilers_words(subject: Subject) -> None:
    broken = subject.with_body("(float* out) { out[0] = undeclared_name; }", "broken")
    outcome = subject.target.build(broken)
    assert isinstance(outcome, Rejected)
    assert outcome.stage is Stage.BUILD
    assert "undeclared_name" in outcome.detail
    assert re.fullmatch(r"[\w:]+", outcome.reason)


@pytest.mark.parametrize("name", BUILDERS, indirect=True)
def test_a_violated_rule_fails_with_its_own_name(subject: Subject) -> None:
    tried = 0
    for rule, configuration in lone_violations(subject.space).items():
        outcome = subject.target.build(subject.variant(configuration))
        assert isinstance(outcome, Rejected), f"{rule}: {dict(configuration)} builds"
        assert (outcome.stage, outcome.reason) == (Stage.BUILD, f"static_assert:{rule}")
        tried += 1
    assert tried >= 3


@pytest.mark.parametrize("name", BUILDERS, indirect=True)
def test_admitted_configurations_build(subject: Subject) -> None:
    for configuration in subject.space.sample(np.random.default_rng(7), 4):
        outcome = subject.target.build(subject.variant(configuration))
        gated = isinstance(outcome, Rejected) and outcome.stage is Stage.GATES
        assert isinstance(outcome, Built) or gated, (dict(configuration), outcome)


@pytest.mark.parametrize("name", BUILDERS, indirect=True)
def test_a_builder_elsewhere_makes_the_same_binary(subject: Subject) -> None:
    variant = subject.variant()
    outcome = build(variant)
    assert isinstance(outcome, Built)
    assert outcome.binary_hash == built(subject, variant).binary_hash


@pytest.mark.parametrize("base", sorted(base_paths()))
def test_every_rule_of_a_base_is_also_a_static_assert(base: str) -> None:
    loaded = find_base(base)
    text = "\n".join(loaded.sources.values())
    asserted = set(re.findall(r'static_assert\(.*?"(\w+)"\)', text, re.DOTALL))
    assert set(loaded.rules) <= asserted


def lone_violations(space: SearchSpace) -> dict[str, Configuration]:
    """For each rule a configuration that breaks it and no other, where a random search finds one."""
    rng = np.random.default_rng(3)
    found: dict[str, Configuration] = {}
    for _ in range(4000):
        drawn = space.at([rng.integers(count) for count in space.cardinalities])
        broken = space.violated(drawn)
        if len(broken) == 1:
            found.setdefault(broken[0], drawn)
        if len(found) == len(space.rules):
            break
    return found


# -- running


@pytest.mark.parametrize("name", RUNNERS, indirect=True)
def test_a_program_computes_what_the_workload_says(subject: Subject) -> None:
    variant = subject.variant()
    program = subject.target.load(built(subject, variant), variant, subject.workload)
    inputs, outputs = subject.workload.inputs(subject.case, 3, subject.device), subject.outputs()
    program.run(subject.case, inputs, outputs)
    expected = subject.workload.oracle(subject.case, inputs)["out"]
    tolerance = 1e-5 if subject.device == "cpu" else 5e-3
    assert torch.allclose(outputs["out"].double(), expected, atol=tolerance)


@pytest.mark.parametrize("name", RUNNERS, indirect=True)
def test_the_program_that_runs_is_the_one_that_was_loaded(subject: Subject) -> None:
    """Many binaries in one process, loaded in turn: none may answer for another."""
    element = {"host": "float", "cuda": "unsigned short"}[subject.target.name]
    body = f"(const void*, const void*, const void*, {element}* out, int, int, int, int, float) {{ out[0] = VALUE; }}"
    inputs = subject.workload.inputs(subject.case, 3, subject.device)
    programs: dict[int, tuple[Variant, Built]] = {}
    for value in range(3):
        variant = subject.with_body(body.replace("VALUE", str(value)), f"value{value}")
        programs[value] = (variant, built(subject, variant))
    for turn in range(30):
        value = turn % 3
        variant, made = programs[value]
        outputs = subject.outputs()
        subject.target.load(made, variant, subject.workload).run(subject.case, inputs, outputs)
        raw = outputs["out"].view(torch.int16) if subject.device == "cuda" else outputs["out"]
        assert int(raw.flatten()[0]) == value


@pytest.mark.parametrize("name", RUNNERS, indirect=True)
def test_times_come_back_in_order_and_longer_work_takes_longer(subject: Subject) -> None:
    sizes = ("1x1x64x64", "2x8x512x64" if subject.device == "cpu" else "4x16x2048x64")
    short, long = (subject.workload.case(text, dtype=subject.case.dtype) for text in sizes)
    variant = subject.variant()
    program = subject.target.load(built(subject, variant), variant, subject.workload)
    watches = [
        program.stopwatch(case, [subject.workload.inputs(case, seed, subject.device) for seed in range(2)], launches)
        for case, launches in ((short, 5), (long, 1))
    ]
    assert [watch.launches for watch in watches] == [5, 1]
    order = [0, 1, 1, 0, 0, 1, 0]
    times = subject.target.time(watches, order)
    assert len(times) == len(order)
    assert all(time > 0 for time in times)
    by_watch = [[time for index, time in zip(order, times, strict=True) if index == watch] for watch in range(2)]
    assert statistics.median(by_watch[1]) > 4 * statistics.median(by_watch[0])


@pytest.mark.parametrize("name", RUNNERS, indirect=True)
def test_a_library_is_timed_as_a_variant_is(subject: Subject) -> None:
    inputs, outputs = subject.workload.inputs(subject.case, 3, subject.device), subject.outputs()
    backend = next(iter(subject.workload.baselines(subject.case, subject.device)))
    program = subject.target.baseline(subject.workload, backend)
    program.run(subject.case, inputs, outputs)
    expected = subject.workload.reference(subject.case, inputs)["out"]
    assert torch.allclose(outputs["out"].float(), expected.float(), atol=1e-2)
    assert all(time > 0 for time in subject.target.time([program.stopwatch(subject.case, [inputs], 3)], [0, 0]))


@pytest.mark.parametrize("name", RUNNERS, indirect=True)
def test_the_device_and_its_state_are_described(subject: Subject) -> None:
    facts = subject.target.facts()
    assert facts.name
    assert facts.arch
    assert facts.memory_bytes > 0
    assert facts.l2_bytes > 0
    assert all(name.startswith("device.") for name in facts.limits)
    environment = subject.target.environment()
    assert environment
    assert all(isinstance(value, int | float | str) for value in environment.values())


@pytest.fixture
def seat(subject: Subject) -> Iterator[Seat]:
    timing = HOST_TIMING if subject.target.name == "host" else Timing()
    spec = WorkerSpec(subject.target.name, "attention", subject.case, timing=timing, evaluate_s=8.0)
    seat = Seat(spec, spare=False)
    yield seat
    seat.close()


@pytest.mark.parametrize("name", RUNNERS, indirect=True)
def test_a_kernel_that_crashes_or_hangs_ends_its_process_only(subject: Subject, seat: Seat) -> None:
    good = subject.variant()
    _, _, first_worker = seat.about()
    crash = subject.with_body(CRASH, "crash")
    outcome = seat.evaluate(crash, built(subject, crash), None)
    assert isinstance(outcome, Rejected)
    assert outcome.stage is Stage.CRASH or outcome.reason == "illegal_address"
    hang = subject.with_body(HANG, "hang")
    outcome = seat.evaluate(hang, built(subject, hang), None)
    assert isinstance(outcome, Rejected)
    assert outcome.stage is Stage.TIMEOUT
    assert seat.about()[2] != first_worker
    assert isinstance(seat.evaluate(good, built(subject, good), None), Measured)
