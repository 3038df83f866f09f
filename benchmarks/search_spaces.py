"""Spaces that searches are judged on: measured ones from disk, and made-up ones that hold known traps.

The made-up ones are small analytical models of GPU kernels with a fixed roughness per configuration; they say whether a
proposer copes with a trap, not how fast any kernel is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evo.space import Knob, SearchSpace
from evo.targets.recorded import load_recording

Array = npt.NDArray[Any]
ROOT = Path(__file__).resolve().parent.parent
RECORDED = Path(os.environ.get("EVO_RECORDED_SPACES", ROOT.parent / "shared" / "recorded_spaces"))
# Whole spaces, or random draws of one: where a search chose what was measured, most of what is slow is missing.
RECORDED_HERE = ("h200/phase1", "h200/phase2", "h200/phase3", "h200/phase4_5000", "h200/phase5_5000")


@dataclass(frozen=True)
class JudgedSpace:
    """A space whose every time is known (nan: it fails)."""

    name: str
    space: SearchSpace
    times_us: Array
    made_up: bool


def space_names() -> list[str]:
    """Every space there is to be judged on: given, recorded here, made up."""
    given = sorted(p.name.removesuffix(".space.json.gz") for p in RECORDED.glob("*.space.json.gz"))
    return [*given, *RECORDED_HERE, *MADE_UP]


def _recordings() -> dict[str, Path]:
    return {f"{p.parent.name}/{p.name.removesuffix('.json.gz')}": p for p in (ROOT / "recordings").glob("*/*.json.gz")}


@cache
def judged_space(name: str) -> JudgedSpace:
    """Load or make the space of this name."""
    if name in MADE_UP:
        space, times = MADE_UP[name]()
        return JudgedSpace(name, space, times, made_up=True)
    path = _recordings().get(name, RECORDED / f"{name}.space.json.gz")
    recording = load_recording(path)
    return JudgedSpace(name, recording.space, recording.times_us, made_up=False)


def _values(space: SearchSpace) -> dict[str, Array]:
    return {k.name: np.array(k.values)[space.rows[:, i]] for i, k in enumerate(space.knobs)}


def _rough(times: Array, spread: float, seed: int) -> Array:
    """Times with what no model explains: every configuration is a little slower than the formula says."""
    return np.asarray(times * (1 + spread * np.abs(np.random.default_rng(seed).standard_normal(len(times)))))


def matrix_product() -> tuple[SearchSpace, Array]:
    """A tiled matrix product: occupancy against reuse, bank conflicts, a tail of half-empty waves."""
    knobs = [
        Knob("tile_m", (16, 32, 64, 128)),
        Knob("tile_n", (16, 32, 64, 128)),
        Knob("tile_k", (16, 32)),
        Knob("threads_m", (8, 16, 32)),
        Knob("threads_n", (8, 16, 32)),
        Knob("vector_m", (1, 2, 4, 8)),
        Knob("vector_n", (1, 2, 4, 8)),
        Knob("stride_m", (0, 1)),
        Knob("stride_n", (0, 1)),
        Knob("share_a", (0, 1)),
        Knob("share_b", (0, 1)),
    ]
    rules = {
        "whole_m": "tile_m % (threads_m * vector_m) == 0",
        "whole_n": "tile_n % (threads_n * vector_n) == 0",
        "fits_shared": "4 * tile_k * (tile_m * share_a + tile_n * share_b) <= 65536",
        "fits_threads": "threads_m * threads_n <= 1024",
    }
    space = SearchSpace(knobs, rules)
    v = _values(space)
    threads = v["threads_m"] * v["threads_n"]
    work_m, work_n = v["tile_m"] // v["threads_m"], v["tile_n"] // v["threads_n"]
    registers = work_m * work_n + work_m + work_n + 20
    shared = 4 * v["tile_k"] * (v["tile_m"] * v["share_a"] + v["tile_n"] * v["share_b"]) + 1
    blocks = np.minimum(65536 // (np.minimum(registers, 255) * threads), np.minimum(98304 // shared, 2048 // threads))
    parallel = 1 + np.log2(work_m * work_n + 1)
    compute = 1 / (np.minimum(1, 0.15 + 0.1 * parallel) * np.clip(blocks * threads / 2048 * parallel, 0.01, 1))
    both = v["share_a"] & v["share_b"]
    memory = 30 * (1 / v["tile_m"] + 1 / v["tile_n"]) * np.where(both, 1, 1.8)
    memory = memory * (1 + 0.15 * (v["vector_m"] == 1) + 0.25 * ((v["vector_m"] == 8) & (v["stride_m"] == 1)))
    conflicts = 1 + 0.2 * ((v["stride_m"] == 0) & (v["vector_m"] > 2) & (v["share_a"] == 1))
    waves = np.ceil(4096 / v["tile_m"]) * np.ceil(4096 / v["tile_n"]) / np.maximum(blocks * 108, 1)
    times = (np.maximum(compute, memory) + 0.3 * np.minimum(compute, memory)) * conflicts
    times = 1000 * times * (1 + np.maximum(0, registers - 255) / 60) * np.minimum(np.ceil(waves) / waves, 3)
    return space, np.where(blocks > 0, _rough(times, 0.03, 1), np.nan)


def stencil() -> tuple[SearchSpace, Array]:
    """A time-tiled stencil of 177,000 configurations: halo against reuse, spills, few good ones."""
    knobs = [
        Knob("block_x", (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256)),
        Knob("block_y", (1, 2, 4, 8, 16, 32)),
        Knob("tile_x", (1, 2, 3, 4, 5, 6, 8, 10)),
        Knob("tile_y", (1, 2, 3, 4, 5, 6, 8, 10)),
        Knob("steps", (1, 2, 3, 4, 5, 6, 8, 10)),
        Knob("unroll", (1, 2, 5, 10)),
        Knob("share_power", (0, 1)),
        Knob("blocks_per_sm", (0, 1, 2, 3, 4)),
    ]
    rules = {
        "threads": "32 <= block_x * block_y <= 1024",
        "whole_unroll": "steps % unroll == 0",
        "fits": "4 * (block_x * tile_x + 2 * steps) * (block_y * tile_y + 2 * steps) * (2 + share_power) <= 49152",
        "occupancy": "blocks_per_sm == 0 or blocks_per_sm * block_x * block_y <= 2048",
    }
    space = SearchSpace(knobs, rules)
    v = _values(space)
    threads, work = v["block_x"] * v["block_y"], v["tile_x"] * v["tile_y"]
    wide, high, steps = v["block_x"] * v["tile_x"], v["block_y"] * v["tile_y"], v["steps"]
    halo = (wide + 2 * steps) * (high + 2 * steps)
    registers = 24 + 4 * work + 2 * v["unroll"]
    limit = np.where(v["blocks_per_sm"] > 0, 65536 // np.maximum(v["blocks_per_sm"] * threads, 1), 255)
    spill = 1 + np.maximum(0, registers - np.minimum(limit, 255)) / 40
    blocks = np.minimum(
        65536 // (np.minimum(registers, limit) * threads), 102400 // (4 * halo * (2 + v["share_power"]))
    )
    blocks = np.minimum(blocks, 2048 // threads)
    hidden = np.minimum(1, np.clip(blocks * threads / 2048, 0.01, 1) * (1.2 + 0.5 * np.log2(work)))
    memory = halo / (wide * high) / steps * 6 / np.minimum(1, v["block_x"] / 32) ** 0.7
    compute = halo / (wide * high) * (1 + 0.15 / v["unroll"]) * (1 - 0.08 * v["share_power"]) / hidden
    times = (np.maximum(memory, compute) + 0.4 * np.minimum(memory, compute)) * spill * (1 + 0.05 * (threads % 32 != 0))
    return space, np.where(blocks > 0, _rough(100 * times, 0.03, 2), np.nan)


def attention() -> tuple[SearchSpace, Array]:
    """A warp-specialised attention kernel where a third of the admissible configurations does not run."""
    knobs = [
        Knob("tile_q", (16, 32, 64, 128, 192, 256)),
        Knob("tile_k", (16, 32, 64, 128, 256)),
        Knob("stages", (1, 2, 3, 4)),
        Knob("swizzle", ("none", "pad", "xor")),
        Knob("producers", (1, 2, 4)),
        Knob("consumers", (1, 2, 4, 8)),
        Knob("splits", (1, 2, 4)),
        Knob("fast_exp", (False, True)),
        Knob("unroll", (1, 2, 4)),
    ]
    rules = {
        "whole_tiles": "consumers % splits == 0 and tile_q % (16 * consumers // splits) == 0",
        "fits_shared": "128 * (tile_q + 2 * stages * tile_k) + (32 * tile_k if swizzle == pad else 0) <= 228000",
    }
    space = SearchSpace(knobs, rules)
    v = _values(space)
    threads = 32 * (v["consumers"] + v["producers"])
    rows = v["tile_q"] * v["splits"] / v["consumers"]
    registers = 40 + rows / 16 * (32 + v["tile_k"] / 8) + 4 * v["unroll"]
    blocks = np.minimum(228000 // (128 * (v["tile_q"] + 2 * v["stages"] * v["tile_k"])), 2048 // threads)
    blocks = np.minimum(blocks, (65536 // (np.minimum(registers, 255) * threads)).astype(int))
    bank = np.select([v["swizzle"] == "none", v["swizzle"] == "pad"], [1.6, 1.1], 1.0)
    tensor = bank / np.minimum(1, 0.3 + 0.12 * v["consumers"] * blocks**0.7) * (1 + 4 / rows)
    softmax = (0.5 - 0.2 * v["fast_exp"]) * (1 + 1.2 / np.sqrt(v["tile_k"])) * (1 + 0.15 * (v["unroll"] == 1))
    overlap = 0.3 + 0.03 * (v["stages"] - 1) * np.sqrt(v["tile_k"]) + 0.1 * v["producers"]
    load = 80 / v["tile_q"] / np.minimum(1, overlap)
    resident = 132 * np.maximum(blocks, 1)
    tail = np.ceil(4096 / v["tile_q"] / resident) * resident / (4096 / v["tile_q"])
    times = np.maximum(tensor + softmax, load) * (1 + np.maximum(0, registers - 255) / 50)
    times = 30 * times * np.minimum(tail, 4) ** 0.6 * (1 + 0.06 * np.log2(v["splits"]))
    return space, np.where((blocks > 0) & (registers <= 330), _rough(times, 0.02, 3), np.nan)


def narrow_valley() -> tuple[SearchSpace, Array]:
    """Two knobs that must move together, one knob that does nothing at all."""
    knobs = [Knob(f"k{i}", tuple(range(1, 9))) for i in range(5)]
    knobs += [Knob("dead", (1, 2, 3, 4)), Knob("mode", ("a", "b", "c"))]
    space = SearchSpace(knobs, {"even": "(k0 * k1) % 2 == 0", "sum": "k2 + k3 <= 11", "late": "k4 % 2 == 0 or k0 > 3"})
    v = _values(space)
    times = 10 + 8 * np.abs(v["k0"] - v["k1"] - (v["mode"] == "b")) + 1.5 * np.abs(v["k2"] + v["k3"] - 8)
    times = times + 0.8 * np.abs(v["k4"] - 6) + 3 * (v["mode"] == "c") + 0.5 * (8 - v["k0"])
    return space, _rough(times, 0.01, 4)


def cliffs() -> tuple[SearchSpace, Array]:
    """Time falls with size until a cliff; beyond it the kernel is four times slower or does not run."""
    knobs = [Knob(f"k{i}", (1, 2, 4, 8, 16, 32)) for i in range(5)] + [Knob("mode", (0, 1)), Knob("pad", (0, 1, 2))]
    space = SearchSpace(knobs, {"size": "k0 * k1 * k2 <= 512"})
    v = _values(space)
    first, second = v["k0"] * v["k1"], v["k2"] * v["k3"]
    times = 100 / np.minimum(first, 64) + 40 / np.minimum(second, 32) + 0.4 * np.log2(v["k4"]) ** 2 * v["mode"]
    times = (times + 5 * (v["mode"] == 0) + 1 + 0.7 * (v["pad"] == 2)) * np.where(first * second > 2048, 4, 1)
    fails = ((first * second > 1024) & (v["pad"] == 0)) | ((v["k4"] > 8) & (v["mode"] == 1) & (v["k1"] > 4))
    return space, np.where(fails, np.nan, _rough(times, 0.02, 5))


def sparse() -> tuple[SearchSpace, Array]:
    """Nine of ten combinations are inadmissible, and no admissible one has an admissible neighbour in most knobs."""
    knobs = [Knob(f"k{i}", tuple(range(12))) for i in range(4)] + [Knob("mode", (0, 1, 2, 3)), Knob("pad", (0, 1, 2))]
    space = SearchSpace(knobs, {"lattice": "(7 * k0 + 3 * k1 + 5 * k2 + k3) % 13 == mode"})
    v = _values(space)
    times = 10 + 0.3 * (v["k0"] - 7) ** 2 + 0.5 * (v["k1"] - 3) ** 2 * (1 + 0.5 * (v["pad"] == 1))
    return space, _rough(times + 0.4 * np.abs(v["k2"] - v["k3"]) + 2 * (v["mode"] == 2), 0.02, 6)


def unforeseen() -> tuple[SearchSpace, Array]:
    """Three of four configurations fail, no rule says which, and the fastest stand beside those that fail."""
    knobs = [
        Knob("tile_m", (16, 32, 64, 96, 128, 192, 256)),
        Knob("tile_n", (16, 32, 64, 96, 128, 192, 256)),
        Knob("tile_k", (16, 32, 64, 128)),
        Knob("stages", (1, 2, 3, 4, 5)),
        Knob("warps", (1, 2, 4, 8, 16)),
        Knob("unroll", (1, 2, 4)),
        Knob("layout", ("row", "column", "blocked")),
    ]
    space = SearchSpace(knobs)
    v = _values(space)
    work = v["tile_m"] * v["tile_n"] / (32 * v["warps"])
    shared = 4 * v["stages"] * v["tile_k"] * (v["tile_m"] + v["tile_n"])
    registers = 24 + work + 6 * v["unroll"] + 4 * v["stages"] * (v["layout"] == "row")
    fails = (registers > np.minimum(255, 65536 // (32 * v["warps"]))) | (shared > 101_376) | (work < 16)
    fails |= (v["layout"] == "blocked") & (v["tile_m"] * v["tile_k"] % (512 * v["warps"]) != 0)
    reuse = 1 / v["tile_m"] + 1 / v["tile_n"]
    hidden = np.minimum(1, 0.25 + 0.06 * v["stages"] * np.sqrt(v["tile_k"]))
    resident = np.clip(np.minimum(65536 // (32 * v["warps"] * np.minimum(registers, 255)), 101_376 // shared), 1, 8)
    busy = np.minimum(1, 0.3 + 0.07 * resident * v["warps"])
    times = 900 * reuse / hidden + (14 + 60 / np.sqrt(work)) / busy * (1 + 0.08 * (v["unroll"] == 1))
    times = times * np.select([v["layout"] == "row", v["layout"] == "column"], [1.25, 1.1], 1.0)
    return space, np.where(fails, np.nan, _rough(times, 0.02, 7))


MADE_UP: dict[str, Callable[[], tuple[SearchSpace, Array]]] = {
    "made-up matrix product": matrix_product,
    "made-up stencil": stencil,
    "made-up attention": attention,
    "made-up narrow valley": narrow_valley,
    "made-up cliffs": cliffs,
    "made-up sparse": sparse,
    "made-up unforeseen": unforeseen,
}
