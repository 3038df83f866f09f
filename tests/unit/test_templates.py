"""Templates and search spaces hold together: what is admitted builds, what a rule forbids fails by that rule's name.

NVRTC compiles for architectures that are not here, so no GPU is needed. This is a sample, so that it stays short: two
values of each knob, one random configuration of each base. EVO_TEMPLATES_SEED draws another one.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest

from evo.base import Base, base_paths, find_base
from evo.errors import InputError
from evo.expression import Expression
from evo.outcome import Built, Rejected, Stage
from evo.space import Configuration, SearchSpace, Value
from evo.targets import nvrtc
from evo.variant import Variant, make_variant

SEED = int(os.environ.get("EVO_TEMPLATES_SEED", "0"))
DRAWN = 20_000  # combinations looked through for one that breaks just one rule
BASES = [name for name in sorted(base_paths()) if find_base(name).language == "cuda"]
RULES = [(name, rule) for name in BASES for rule in find_base(name).rules]
ARCHES = ("sm_89", "sm_80", "sm_90")

# Every pair of (arch, head_dim, causal, dtype) values is among these.
ORTHOGONAL = [
    ("sm_80", 64, False, "float16"),
    ("sm_80", 128, True, "bfloat16"),
    ("sm_89", 64, True, "bfloat16"),
    ("sm_89", 128, False, "float16"),
    ("sm_90", 64, True, "float16"),
    ("sm_90", 128, False, "bfloat16"),
]
Case = tuple[str, int, bool, str]


@cache
def loaded(name: str) -> Base:
    return find_base(name)


def constants(case: Case) -> dict[str, Value]:
    _, head_dim, causal, dtype = case
    return {"head_dim": head_dim, "causal": causal, "dtype": dtype}


@cache
def space_of(name: str, case: Case) -> SearchSpace:
    return loaded(name).space({**nvrtc.arch_limits(case[0]), **constants(case)})


def variant(name: str, case: Case, configuration: Configuration) -> Variant:
    return make_variant(
        loaded(name),
        space_of(name, case),
        configuration,
        constants=constants(case),
        facts=nvrtc.arch_limits(case[0]),
        arch=case[0],
        toolchain=nvrtc.toolchain(),
    )


@cache
def build(name: str, case: Case, configuration: Configuration) -> Built | Rejected:
    return nvrtc.build(variant(name, case, configuration))


def build_all(wanted: Iterable[tuple[str, Case, Configuration]]) -> list[Built | Rejected]:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda one: build(*one), wanted))


def drawn(space: SearchSpace, rng: np.random.Generator) -> np.ndarray:
    """Random rows of value indices, admissible or not."""
    return np.stack([rng.integers(0, len(knob.values), DRAWN) for knob in space.knobs], axis=1)


def some_admissible(space: SearchSpace, rng: np.random.Generator) -> Iterator[Configuration]:
    rows = drawn(space, rng)
    return (space.at(row) for row in rows[space.admissible(rows)])


@pytest.mark.parametrize("name", BASES)
def test_default_builds_for_every_architecture_head_size_mask_and_type(name: str) -> None:
    outcomes = build_all((name, case, space_of(name, case).default) for case in ORTHOGONAL)
    for case, outcome in zip(ORTHOGONAL, outcomes, strict=True):
        assert isinstance(outcome, Built), (case, outcome.reason, outcome.detail)
        limits = nvrtc.arch_limits(case[0])
        assert outcome.resources.shared_bytes <= int(limits["device.shared_bytes_per_block"])
        assert outcome.resources.spill_bytes == 0


@pytest.mark.parametrize("name", [name for name in BASES if name in {"phase0", "phase1", "phase2", "phase3", "phase4"}])
def test_default_is_as_lean_on_ada_as_the_plan_asks(name: str) -> None:
    case = ("sm_89", 64, False, "float16")
    built = build(name, case, space_of(name, case).default)
    assert isinstance(built, Built)
    assert built.resources.registers <= 120
    assert built.resources.shared_bytes + built.resources.static_shared_bytes <= 64 * 1024


@pytest.mark.parametrize("name", BASES)
def test_declared_default_is_admissible_on_ada(name: str) -> None:
    for head_dim in (64, 128):
        space = space_of(name, ("sm_89", head_dim, False, "float16"))
        declared = space.configuration({knob.name: knob.default for knob in space.knobs})
        assert space.violated(declared) == []


@pytest.mark.parametrize("name", BASES)
def test_random_admitted_configuration_builds_or_fails_a_gate(name: str) -> None:
    case: Case = [("sm_89", 64, True, "float16"), ("sm_90", 128, False, "bfloat16")][BASES.index(name) % 2]
    configuration = next(some_admissible(space_of(name, case), np.random.default_rng(SEED)))
    outcome = build(name, case, configuration)
    fine = isinstance(outcome, Built) or outcome.stage is Stage.GATES
    assert fine, (case, dict(configuration), getattr(outcome, "reason", ""), getattr(outcome, "detail", ""))


@pytest.mark.parametrize(("name", "rule"), RULES)
def test_violated_rule_fails_the_build_by_its_name(name: str, rule: str) -> None:
    """Rules on device facts too: the templates know the facts of their architecture."""
    for case in itertools.product(("sm_89", "sm_90"), (64, 128), (False,), ("float16",)):
        violating = breaking_only(name, case, rule)
        if violating is not None:
            break
    else:
        pytest.fail(f"{rule} of {name} forbids nothing that the other rules admit")
    assert space_of(name, case).violated(violating) == [rule]
    outcome = build(name, case, violating)
    assert isinstance(outcome, Rejected), dict(violating)
    assert (outcome.stage, outcome.reason) == (Stage.BUILD, f"static_assert:{rule}"), outcome.detail


def breaking_only(name: str, case: Case, rule: str) -> Configuration | None:
    """A configuration that breaks this rule and no other; None when none was drawn."""
    base = loaded(name)
    facts = {**nvrtc.arch_limits(case[0]), **constants(case)}
    rules = {**base.rules, rule: Expression.parse(f"not ({base.rules[rule].text})")}
    try:
        turned = SearchSpace(base.knobs, rules, base.derived, facts)
    except InputError:
        return None  # on this architecture the rule holds for every combination
    found = next(some_admissible(turned, np.random.default_rng(SEED)), None)
    return None if found is None else space_of(name, case).configuration(found)


@pytest.mark.parametrize("name", BASES)
def test_every_knob_changes_the_binary(name: str) -> None:
    """One value of each knob against another, all else equal; `evo bases check` compares them all."""
    case = ("sm_90", 64, True, "float16")
    knobs = [knob.name for knob in space_of(name, case).knobs]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        verdicts = list(pool.map(lambda knob: compared(name, case, knob), knobs))
    assert dict(zip(knobs, verdicts, strict=True)) == dict.fromkeys(knobs, "differs")


def compared(name: str, case: Case, knob: str) -> str:
    """Whether two values of a knob make two binaries anywhere among the first few places where both build."""
    space = space_of(name, case)
    rng = np.random.default_rng([SEED, *knob.encode()])
    places = itertools.chain([space.default], itertools.islice(some_admissible(space, rng), 200))
    same = 0
    for one, other in itertools.islice(pairs(space, knob, places, rng), 6):
        built = [
            outcome for outcome in (build(name, case, one), build(name, case, other)) if isinstance(outcome, Built)
        ]
        if len({outcome.binary_hash for outcome in built}) == 2:
            return "differs"
        same += len(built) == 2
    return f"{same} pairs of values built, each to one binary"


def pairs(
    space: SearchSpace, knob: str, places: Iterable[Configuration], rng: np.random.Generator
) -> Iterator[tuple[Configuration, Configuration]]:
    """Admissible configurations that differ in this knob only."""
    values = next(k.values for k in space.knobs if k.name == knob)
    for place in places:
        for i in rng.permutation(len(values)):
            other = space.configuration({**place, knob: values[i]})
            if other != place and other in space:
                yield place, other


@pytest.mark.parametrize("name", BASES)
def test_every_rule_is_a_static_assert_of_the_template(name: str) -> None:
    asserted = set(re.findall(r'static_assert\([^;]*?"(\w+)"\)', loaded(name).sources[""]))
    assert set(loaded(name).rules) <= asserted
