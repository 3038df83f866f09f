"""The host target on its own ground: compilers, limits, clean folders, libraries that come and go."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from evo.errors import InputError
from evo.outcome import Built, Rejected, Resources, Stage
from evo.targets import LaunchError
from evo.targets.host import HostTarget, find_compiler
from evo.targets.processor import cores
from evo.variant import Variant

pytestmark = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")

DOUBLE = 'extern "C" void f(const float* x, float* y, int n) { for (int i = 0; i < n; ++i) y[i] = 2 * x[i]; }'
ENDLESS = """
template <int N, int M> struct A { static constexpr int v = A<N - 1, M>::v + A<N - 1, M + (1 << N)>::v; };
template <int M> struct A<0, M> { static constexpr int v = 1; };
extern "C" int f() { return A<27, 0>::v; }
"""
THREADED = """
#include "evo_config.hpp"
#include "pool.hpp"
static float* y;
static evo::Pool pool;
extern "C" void f(const float*, float* out, int) {
  y = out;
  pool.parallel([](int thread) { y[thread] = thread + 1; });
}
"""


@dataclass(frozen=True)
class Doubling:
    """A workload of one input and one output."""

    name: str = "doubling"
    sizes: dict[str, Any] = field(default_factory=lambda: {"y": ((4,), "float32")})

    def arguments(self, case: Any, inputs: Any, outputs: Any) -> list[Any]:
        return [inputs["x"], outputs["y"], 4]

    def empty_outputs(self, case: Any) -> dict[str, Any]:
        return self.sizes


def variant(source: str, *, key: str = "k", header: str = "", toolchain: str = "", **sources: str) -> Variant:
    return Variant(
        key=key,
        base="doubling",
        language="host",
        entry="f",
        arch="x86-64",
        toolchain=toolchain or HostTarget().toolchain(),
        configuration={},
        constants={},
        derived={},
        header_name="evo_config.hpp",
        header=header,
        sources={"": source, **sources},
    )


def load(target: HostTarget, made: Variant) -> Any:
    built = target.build(made)
    assert isinstance(built, Built), built
    return target.load(built, made, Doubling())  # type: ignore[arg-type]


def test_a_machine_without_a_compiler_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt install g"):
        HostTarget()
    with pytest.raises(InputError, match="nosuch: no such program"):
        find_compiler("nosuch")


def test_a_variant_for_another_machine_is_not_built_under_its_key() -> None:
    outcome = HostTarget().build(variant(DOUBLE, toolchain="g++ 4.2 on another CPU"))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "other_toolchain"
    assert "another CPU" in outcome.detail


def test_the_toolchain_names_compiler_flags_and_cpu() -> None:
    toolchain = HostTarget().toolchain()
    assert "-march=native" in toolchain
    assert HostTarget().facts().name in toolchain


def test_an_endless_compile_ends_in_time_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    started = time.monotonic()
    outcome = HostTarget(build_timeout_s=1.0).build(variant(ENDLESS))
    assert isinstance(outcome, Rejected)
    assert outcome.stage is Stage.TIMEOUT
    assert time.monotonic() - started < 10
    assert list(tmp_path.iterdir()) == []
    assert not compilers_in(tmp_path)


def test_a_killed_builder_leaves_neither_compiler_nor_folder(tmp_path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, 'tests/unit'); from test_host import *; HostTarget().build(variant(ENDLESS))"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    builder = subprocess.Popen([sys.executable, "-c", script], env=environment)
    wait_until(lambda: compilers_in(tmp_path), 60)
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    wait_until(lambda: not compilers_in(tmp_path) and not list(tmp_path.iterdir()), 10)


def compilers_in(folder: Path) -> list[str]:
    """Living processes whose working directory lies in the folder."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append(process.name)
        except OSError:
            continue
    return found


def wait_until(holds: Any, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, "still waiting"
        time.sleep(0.05)


def test_sources_stay_in_their_folder() -> None:
    with pytest.raises(InputError, match=r"without \.\."):
        HostTarget().build(variant(DOUBLE, **{"../escaped.hpp": ""}))


def test_what_does_not_link_is_told_from_what_does_not_compile() -> None:
    outcome = HostTarget().build(variant('void g(); extern "C" void f() { g(); }'))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "link_error"
    assert "undefined reference" in outcome.detail


def test_what_is_no_library_or_lacks_the_entry_does_not_load() -> None:
    target = HostTarget()
    rubbish = Built("k", b"not a library", "h", Resources(), "", 0.0)
    with pytest.raises(LaunchError, match="not_loadable"):
        target.load(rubbish, variant(DOUBLE), Doubling())  # type: ignore[arg-type]
    built = target.build(variant("static int f() { return 1; } int (*g)() = f;"))
    assert isinstance(built, Built)
    with pytest.raises(LaunchError, match="missing_entry"):
        target.load(built, variant(DOUBLE), Doubling())  # type: ignore[arg-type]


def test_tensors_must_be_contiguous_and_in_host_memory() -> None:
    program = load(HostTarget(), variant(DOUBLE))
    with pytest.raises(ValueError, match="contiguous"):
        program.run(None, {"x": torch.arange(8.0)[::2]}, {"y": torch.empty(4)})


def test_a_stopwatch_takes_the_inputs_in_turn_over_all_samples() -> None:
    counting = 'extern "C" void f(float* x, float*, int) { x[0] += 1; }'
    program = load(HostTarget(), variant(counting))
    sets = [{"x": torch.zeros(4)} for _ in range(3)]
    watch = program.stopwatch(None, sets, 4)
    HostTarget().time([watch], [0])
    assert [int(inputs["x"][0]) for inputs in sets] == [2, 1, 1]
    HostTarget().time([watch], [0])
    assert [int(inputs["x"][0]) for inputs in sets] == [3, 3, 2]


def test_a_library_goes_with_its_last_reference_and_takes_its_threads_along() -> None:
    header = """#pragma once
namespace evo {
enum class Workers { kSpawn, kSleep, kSpin };
struct Config { static constexpr int kThreads = 4; static constexpr Workers kWorkers = Workers::kSleep; };
}
"""
    pool = (Path(__file__).parents[2] / "kernels" / "host" / "pool.hpp").read_text()
    program = load(HostTarget(), variant(THREADED, header=header, **{"pool.hpp": pool}))
    before = threads()
    outputs = {"y": torch.zeros(4)}
    for _ in range(3):
        outputs["y"].zero_()
        program.run(None, {"x": torch.zeros(4)}, outputs)
        assert outputs["y"].tolist() == [1, 2, 3, 4]
    assert threads() == before + 3
    del program
    gc.collect()
    assert threads() == before


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_cores_are_those_this_process_may_use() -> None:
    assert 1 <= cores() <= len(os.sched_getaffinity(0))
