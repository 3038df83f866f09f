"""Dead knobs and duplicate programs must be named, and a sound base must not be accused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from evo.base import Base, load_base
from evo.live import LiveReport, cache_folder, check_live
from evo.outcome import Built, Rejected, Resources, Stage
from evo.targets import DeviceFacts, make_target
from evo.variant import Variant

FACTS = DeviceFacts(name="a machine", arch="x86-64", limits={"device.cores": 4})
SOURCE = """
#include "evo_config.hpp"
using evo::Config;
static_assert(Config::kTile % Config::kRows == 0, "rows_divide_tile");
extern "C" void f(float* x) {
  for (int i = 0; i < Config::kTile; i += Config::kRows) x[i] *= Config::kFast ? 2 : BODY;
}
"""
YAML = """
template: f.cpp
workload: attention
entry: f
knobs:
  tile: [8, 16, 32]
  rows: [1, 2, 32]
  fast: [false, true]
  unused: [1, 2, 3]
  alone: [7]
rules:
  rows_divide_tile: tile % rows == 0
"""


def base(folder: Path, *, source: str = SOURCE.replace("BODY", "3"), yaml: str = YAML) -> Base:
    for name in ("kernels", "search_spaces"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "kernels" / "f.cpp").write_text(source)
    path = folder / "search_spaces" / "f.yaml"
    path.write_text(yaml)
    return load_base(path)


class Compiler:
    """Stands for a compiler: the binary is the header without what the template does not read."""

    def __init__(self, ignores: Sequence[str] = (), rejects: str = "") -> None:
        self.ignores, self.rejects, self.builds = ignores, rejects, 0

    def __call__(self, variants: Sequence[Variant]) -> list[Built | Rejected]:
        self.builds += len(variants)
        return [self.build(variant) for variant in variants]

    def build(self, variant: Variant) -> Built | Rejected:
        if self.rejects and self.rejects in variant.header:
            return Rejected(Stage.BUILD, "compile_error")
        lines = [line for line in variant.header.splitlines() if not any(word in line for word in self.ignores)]
        return Built(variant.key, b"", "\n".join(lines), Resources(), "", 0.0)


def check(base: Base, folder: Path, compiler: Compiler) -> LiveReport:
    return check_live(base, constants={}, facts=FACTS, toolchain="t", build_all=compiler, cache=folder / "cache")


def test_a_dead_knob_is_named(tmp_path: Path) -> None:
    report = check(base(tmp_path), tmp_path, Compiler(ignores=["kUnused"]))
    assert report.dead == ("unused",)
    assert not report.holds
    assert report.duplicates == ()


def test_a_sound_base_is_not_accused_and_costs_about_one_build_a_value(tmp_path: Path) -> None:
    compiler = Compiler()
    report = check(base(tmp_path), tmp_path, compiler)
    assert report.holds
    assert (report.dead, report.duplicates, report.untried) == ((), (), ())
    assert report.builds == report.programs == compiler.builds
    assert compiler.builds <= 16


def test_two_values_that_are_one_program_are_named(tmp_path: Path) -> None:
    class Rounds(Compiler):
        def build(self, variant: Variant) -> Built | Rejected:
            built = super().build(variant)
            assert isinstance(built, Built)
            return Built("", b"", built.binary_hash.replace("kUnused = 3", "kUnused = 2"), Resources(), "", 0.0)

    report = check(base(tmp_path), tmp_path, Rounds())
    assert report.holds
    (same,) = report.duplicates
    assert (same.knob, same.values) == ("unused", (2, 3))
    assert same.compared > 1


def test_a_value_that_only_rare_configurations_admit_is_compared_too(tmp_path: Path) -> None:
    """rows=32 fits tile=32 only: no default and few samples have a neighbour there."""
    report = check(base(tmp_path), tmp_path, Compiler())
    assert "rows=32" not in report.untried


def test_a_value_that_no_rule_admits_is_untried_not_dead(tmp_path: Path) -> None:
    yaml = YAML.replace("tile % rows == 0", "tile % rows == 0 and not fast")
    report = check(base(tmp_path, yaml=yaml), tmp_path, Compiler())
    assert report.untried == ("fast=false", "fast=true")
    assert report.holds


def test_failed_builds_are_counted_and_do_not_make_a_knob_dead(tmp_path: Path) -> None:
    report = check(base(tmp_path), tmp_path, Compiler(rejects="kUnused = 3"))
    assert report.failed["compile_error"] > 0
    assert report.holds


def test_a_report_is_kept_by_content(tmp_path: Path) -> None:
    compiler = Compiler(ignores=["kUnused"])
    first = check(base(tmp_path), tmp_path, compiler)
    builds = compiler.builds
    again = check(base(tmp_path), tmp_path, compiler)
    assert compiler.builds == builds
    assert again.cached
    assert (again.dead, again.builds) == (first.dead, first.builds)
    changed = check(base(tmp_path, source=SOURCE.replace("BODY", "4")), tmp_path, compiler)
    assert not changed.cached


def test_a_broken_or_unwritable_cache_costs_only_time(tmp_path: Path) -> None:
    check(base(tmp_path), tmp_path, Compiler())
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_text('{"dead": 3')
    assert not check(base(tmp_path), tmp_path, Compiler()).cached
    occupied = tmp_path / "occupied"
    occupied.write_text("a file where the folder would be")
    report = check_live(
        base(tmp_path), constants={}, facts=FACTS, toolchain="t", build_all=Compiler(), cache=occupied / "x"
    )
    assert report.holds


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "evo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "evo"


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_a_dead_knob_is_found_in_real_binaries(tmp_path: Path) -> None:
    target = make_target("host")
    report = check_live(
        base(tmp_path), constants={}, facts=target.facts(), toolchain=target.toolchain(), cache=tmp_path / "cache"
    )
    assert report.dead == ("unused",)
    assert report.duplicates == ()
    assert not report.failed
