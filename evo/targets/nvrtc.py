"""CUDA C++ to cubin by NVRTC, wherever there is no GPU, driver or toolkit, and what the assembler said of it."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from cuda.bindings import nvrtc

from evo.errors import InputError
from evo.outcome import Built, Rejected, Resources, Stage
from evo.space import Value
from evo.targets.cubin import program_digest
from evo.targets.gates import check_gates
from evo.variant import Variant

# 177: a member of Config that a template ignores. Without --no-cache NVRTC answers a second build of one text from its
# own cache, without the assembler's report: no registers and no spills would be read, and gates would pass unseen.
_FLAGS = ("--std=c++20", "--ptxas-options=-v", "--diag-suppress=177", "--no-cache")

# Limits by architecture (opt-in shared memory per block, per multiprocessor; threads per multiprocessor;
# multiprocessors of the card meant). Source: CUDA C++ Programming Guide, table of technical specifications.
_ARCHES: dict[str, tuple[int, int, int, int]] = {
    "sm_80": (166_912, 167_936, 2048, 108),  # A100
    "sm_86": (101_376, 102_400, 1536, 84),  # A40
    "sm_87": (166_912, 167_936, 1536, 16),  # Orin
    "sm_89": (101_376, 102_400, 1536, 58),  # L4
    "sm_90": (232_448, 233_472, 2048, 132),  # H100, H200
    "sm_100": (232_448, 233_472, 2048, 148),  # B200
    "sm_120": (101_376, 102_400, 1536, 170),  # RTX 5090
}

_ASSERTION = re.compile(r'static assertion failed with "(\w+)"')
_REGISTERS = re.compile(r"Used (\d+) registers")
_BARRIERS = re.compile(r"used (\d+) barriers")
_SHARED = re.compile(r"(\d+)(?:\+\d+)? bytes smem")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


def arch_limits(arch: str) -> dict[str, Value]:
    """Device facts for rules when the device itself is not at hand.

    Raises: InputError for an architecture that tensor-core templates cannot be built for.
    """
    if arch not in _ARCHES:
        raise InputError(f"--arch {arch}: expected one of {', '.join(_ARCHES)} (sm_80 is the oldest that works)")
    per_block, per_multiprocessor, threads, multiprocessors = _ARCHES[arch]
    return {
        "device.arch": int(arch.removeprefix("sm_")),
        "device.shared_bytes_per_block": per_block,
        "device.shared_bytes_per_multiprocessor": per_multiprocessor,
        "device.registers_per_multiprocessor": 65_536,
        "device.max_threads_per_block": 1024,
        "device.max_threads_per_multiprocessor": threads,
        "device.multiprocessors": multiprocessors,
    }


@functools.cache
def toolchain() -> str:
    """NVRTC's version and flags: a part of every variant's key."""
    major, minor = _call(nvrtc.nvrtcVersion())
    return f"nvrtc {major}.{minor} {' '.join(_FLAGS)}"


@functools.cache
def header_folders() -> tuple[str, ...]:
    """Folders with cuda_fp16.h, mma.h and their like: the PyPI packages' first, then a toolkit's."""
    folders: list[Path] = []
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or [] if spec else []:
        folders += [Path(root) / "cu13" / "include", Path(root) / "cu13" / "include" / "cccl"]
    for home in (os.environ.get("CUDA_HOME"), "/usr/local/cuda"):
        if home:
            folders.append(Path(home) / "include")
    return tuple(str(folder) for folder in folders if folder.is_dir())


def build(variant: Variant) -> Built | Rejected:
    """Compile one variant to a cubin for its architecture and hold the base's gates against it.

    A failure is data, with the compiler's log.
    """
    started = time.perf_counter()
    shared = variant.launch.shared_bytes.evaluate(variant.values) if variant.launch else 0
    if isinstance(shared, str) or not 0 <= shared < 2**31:  # also where a division by 0 made it no number
        return Rejected(Stage.LAUNCH, "shared_memory", f"launch.shared_bytes is {shared} with these knobs")
    headers = {**variant.sources, variant.header_name: variant.header}
    template = headers.pop("")
    program = _call(
        nvrtc.nvrtcCreateProgram(
            template.encode(),
            f"{variant.base}.cu".encode(),
            len(headers),
            [text.encode() for text in headers.values()],
            [name.encode() for name in headers],
        )
    )
    try:
        options = [f"-arch={variant.arch}", *_FLAGS, *(f"-I{folder}" for folder in header_folders())]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        log = _text(program)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            return Rejected(Stage.BUILD, _reason(log, status), log or status.name)
        size = _call(nvrtc.nvrtcGetCUBINSize(program))
        cubin = b" " * size
        _call(nvrtc.nvrtcGetCUBIN(program, cubin))
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    built = Built(
        key=variant.key,
        binary=cubin,
        binary_hash=_program_hash(cubin, variant),
        resources=replace(parse_resources(log), shared_bytes=int(shared)),
        log=log,
        build_s=time.perf_counter() - started,
    )
    return check_gates(variant, built)


def _reason(log: str, status: Any) -> str:
    """A short, countable name of what the compiler complained of."""
    named = _ASSERTION.search(log)
    if named:
        return f"static_assert:{named.group(1)}"
    spent = "out of memory" in log or status == nvrtc.nvrtcResult.NVRTC_ERROR_OUT_OF_MEMORY
    return "compiler_out_of_memory" if spent else "compile_error"


def _program_hash(cubin: bytes, variant: Variant) -> str:
    """Of the code and of how it is launched: a knob may change the grid or the shared memory alone."""
    parts = [program_digest(cubin)]
    if variant.launch is not None:
        launch = variant.launch
        for expression in (*launch.grid, *launch.block, *launch.cluster, launch.shared_bytes):
            known = expression.names & variant.values.keys()  # the rest are the case's dimensions
            parts += [expression.text, *(f"{name}={variant.values[name]}" for name in sorted(known))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def parse_resources(log: str) -> Resources:
    """What `-Xptxas -v` printed, the largest over the functions of one file."""
    stacks = [tuple(int(part) for part in match) for match in _STACK.findall(log)]

    def largest(pattern: re.Pattern[str]) -> int:
        return max((int(found) for found in pattern.findall(log)), default=0)

    return Resources(
        registers=largest(_REGISTERS),
        spill_bytes=max((stores + loads for _, stores, loads in stacks), default=0),
        static_shared_bytes=largest(_SHARED),
        barriers=largest(_BARRIERS),
        stack_bytes=max((stack for stack, _, _ in stacks), default=0),
    )


def _text(program: Any) -> str:
    log = b" " * _call(nvrtc.nvrtcGetProgramLogSize(program))
    _call(nvrtc.nvrtcGetProgramLog(program, log))
    return str(log.rstrip(b"\0 ").decode(errors="replace"))


def _call(result: tuple[Any, ...]) -> Any:
    """The values of a binding's call. Raises: RuntimeError when NVRTC itself fails."""
    status, *values = result
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"NVRTC failed: {getattr(status, 'name', status)}")
    return values[0] if len(values) == 1 else tuple(values)
