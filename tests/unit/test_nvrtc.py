"""NVRTC where it fails: what stops it has a name that can be counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_compilation_that_eats_the_memory_is_one_named_rejection() -> None:
    code = (
        "import resource; from evo.targets import nvrtc; from tests.hostile.endless import cuda_variant, endless\n"
        "most = 600 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (most, most))\n"  # as a builder has, where it is more
        "print(nvrtc.build(endless()).fate)\n"
        "print(type(nvrtc.build(cuda_variant())).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.split("\n")[:2] == ["build: compiler_out_of_memory", "Built"], done.stderr
