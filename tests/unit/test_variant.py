"""A variant's header says everything that its knobs say, and its key changes with all that the binary is made of."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from evo.base import Base, find_base
from evo.space import SearchSpace
from evo.variant import Variant, camel, config_header, make_variant, variant_key

CONSTANTS = {"head_dim": 64, "causal": True, "dtype": "float32"}
FACTS = {"device.cores": 4}


@pytest.fixture(scope="module")
def base() -> Base:
    return find_base("cpu_attention")


@pytest.fixture(scope="module")
def space(base: Base) -> SearchSpace:
    return base.space({**CONSTANTS, **FACTS})


def bound(
    base: Base, space: SearchSpace, *, toolchain: str = "g++ 12", arch: str = "x86-64", **knobs: object
) -> Variant:
    configuration = space.configuration({**space.default, **knobs})
    return make_variant(base, space, configuration, constants=CONSTANTS, facts=FACTS, arch=arch, toolchain=toolchain)


def test_the_header_holds_knobs_constants_and_derived_values_as_typed_constants(base: Base, space: SearchSpace) -> None:
    header = bound(base, space, tile_q=32, exp="base2").header
    for line in (
        "#pragma once",
        "namespace evo {",
        "enum class Exp { kLibm, kPolynomial, kBase2, kBase2Short };",
        "enum class Dtype { kFloat16, kBfloat16, kFloat32 };",
        "  static constexpr int kTileQ = 32;",
        "  static constexpr Exp kExp = Exp::kBase2;",
        "  static constexpr bool kCausal = true;",
        "  static constexpr Dtype kDtype = Dtype::kFloat32;",
        "  static constexpr int kCores = 4;",
    ):
        assert line in header.splitlines()


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ installed")
def test_the_header_is_valid_by_itself(base: Base, space: SearchSpace, tmp_path: Path) -> None:
    (tmp_path / "evo_config.hpp").write_text(bound(base, space).header)
    (tmp_path / "use.cpp").write_text('#include "evo_config.hpp"\nstatic_assert(evo::Config::kHeadDim == 64);\n')
    command = ["g++", "-std=c++20", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", str(tmp_path / "use.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_key_changes_with_every_part_of_the_program_and_with_nothing_else(base: Base, space: SearchSpace) -> None:
    variant = bound(base, space)
    edited = replace(base, sources={**base.sources, "pool.hpp": "// edited"})
    others = [
        bound(base, space, tile_q=32),
        bound(base, space, toolchain="g++ 13"),
        bound(base, space, arch="aarch64"),
        bound(edited, space),
        bound(replace(base, entry="other"), space),
    ]
    keys = {variant.key, *(other.key for other in others)}
    assert len(keys) == 1 + len(others)
    assert bound(base, space).key == variant.key
    assert bound(replace(base, doc="other words"), space).key == variant.key
    assert variant.key == variant_key(variant.sources, variant.header, variant.entry, variant.arch, variant.toolchain)


def test_every_value_of_every_knob_changes_the_header(base: Base, space: SearchSpace) -> None:
    for knob in base.knobs:
        headers = set()
        for value in knob.values:
            values = {**space.default, knob.name: value}
            headers.add(config_header(base.knobs, values, CONSTANTS, {}))
        assert len(headers) == len(knob.values), knob.name


def test_names_become_cpp_names() -> None:
    assert [camel(name) for name in ("tile_q", "fast_exp", "x")] == ["TileQ", "FastExp", "X"]


def test_a_variant_carries_the_values_that_launch_and_gates_use(base: Base, space: SearchSpace) -> None:
    values = bound(base, space).values
    assert values["device.cores"] == 4
    assert values["head_dim"] == 64
    assert values["tile_q"] == 16
    assert values["cores"] == 4
