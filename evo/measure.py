"""Timing protocol: interleaved samples of a variant and the anchor, and the statistics read off them.

A sample is the device time of one launch in microseconds, the mean over the launches of one graph replay (cuda) or of
one timed loop (host). Every sample is kept; medians and intervals are computed when read.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evo.outcome import Measured, Rejected, Stage, Verified
from evo.targets import LaunchError, Program, Stopwatch, Target
from evo.workloads import Tensors


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to look at one variant during a search."""

    launches: int = 20  # per sample, before the length of one launch is known
    sample_us: float = 100.0  # aim for one sample: well above the timer's quantum
    contest_us: float = 300.0  # the same in a contest, where a percent decides: equal programs spread less
    first_look: int = 25  # rounds for everyone
    rounds: int = 60  # rounds for a contender
    contender: float = 1.15  # within this factor of the best so far
    longest_s: float = 2.0  # of measuring one variant
    drift: float = 0.10  # the anchor's median may be so far off its usual one before a measurement is repeated


HOST_TIMING = Timing(launches=1, sample_us=2000.0, contest_us=2000.0, first_look=3, rounds=9, longest_s=3.0, drift=0.25)


def sized_launches(per_launch_us: float, sample_us: float, most: int = 64) -> int:
    """Launches per sample so that one sample lasts about `sample_us`."""
    return max(1, min(most, math.ceil(sample_us / max(per_launch_us, 0.1))))


def measure(
    target: Target,
    program: Program,
    verified: Verified,
    case: Any,
    inputs: Tensors,
    anchor: Stopwatch | None,
    *,
    timing: Timing,
    best_us: float | None = None,
    anchor_name: str = "",
) -> Measured | Rejected:
    """Time a right variant beside the anchor; contenders get more rounds than the rest (racing).

    best_us: best median so far in this search; None gives every round to this variant.
    Raises: LaunchError when the device can no longer be used by this process.
    """
    started = time.perf_counter()
    try:
        stopwatch = program.stopwatch(case, [inputs], timing.launches)
        look_us = min(target.time([stopwatch], [0, 0]))
        launches = sized_launches(look_us, timing.sample_us)
        if not timing.launches / 2 <= launches <= timing.launches * 2:
            stopwatch = program.stopwatch(case, [inputs], launches)
        samples, anchors = _rounds(target, stopwatch, anchor, timing.first_look)
        near = best_us is None or statistics.median(samples) <= best_us * timing.contender
        affordable = int(timing.longest_s * 1e6 / max(1.0, look_us * stopwatch.launches * 2))
        more = min(timing.rounds - timing.first_look, affordable) if near else 0
        if more > 0:
            further, further_anchors = _rounds(target, stopwatch, anchor, more)
            samples, anchors = samples + further, anchors + further_anchors
    except LaunchError as error:
        if error.fatal:
            raise
        return Rejected(Stage.MEASURE, error.reason, error.detail)
    return Measured(
        samples_us=tuple(samples),
        anchor_us=tuple(anchors),
        built=verified.built,
        errors=verified.errors,
        anchor=anchor_name,
        verify_s=verified.verify_s,
        measure_s=time.perf_counter() - started,
        environment=target.environment(),
    )


def _rounds(
    target: Target, stopwatch: Stopwatch, anchor: Stopwatch | None, rounds: int
) -> tuple[list[float], list[float]]:
    """`rounds` samples of each, side by side, who goes first changing from round to round."""
    if anchor is None:
        return target.time([stopwatch], [0] * rounds), []
    order = [index for turn in range(rounds) for index in ((0, 1) if turn % 2 == 0 else (1, 0))]
    times = target.time([stopwatch, anchor], order)
    pairs = list(zip(order, times, strict=True))
    return [t for i, t in pairs if i == 0], [t for i, t in pairs if i == 1]


def interleave(target: Target, stopwatches: Sequence[Stopwatch], rounds: int, rng: random.Random) -> list[list[float]]:
    """Samples of every contender, each round in a fresh random order; one list per contender."""
    samples: list[list[float]] = [[] for _ in stopwatches]
    for _ in range(rounds):
        order = rng.sample(range(len(stopwatches)), len(stopwatches))
        for index, sample in zip(order, target.time(stopwatches, order), strict=True):
            samples[index].append(sample)
    return samples


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and its bootstrap interval."""

    median: float
    low: float
    high: float


def median_interval(
    samples: Sequence[float], *, confidence: float = 0.95, draws: int = 1000, seed: int = 0
) -> Interval:
    """Percentile bootstrap of the median. Source: Efron and Tibshirani 1993, chapter 13."""
    data = np.asarray(samples, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(data), size=(draws, len(data)))
    return _interval(np.median(data), np.median(data[picks], axis=1), confidence)


def gain_interval(
    samples: Sequence[float], against: Sequence[float], *, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Bootstrap of median(against) / median(samples): above 1 is faster. Rounds are drawn in pairs, so drift cancels.

    samples, against: microseconds, the same rounds in the same order.
    """
    ours, theirs = np.asarray(samples, dtype=np.float64), np.asarray(against, dtype=np.float64)
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} samples against {len(theirs)}: rounds must be paired")
    picks = np.random.default_rng(seed).integers(0, len(ours), size=(draws, len(ours)))
    ratios = np.median(theirs[picks], axis=1) / np.median(ours[picks], axis=1)
    return _interval(np.median(theirs) / np.median(ours), ratios, confidence)


def _interval(middle: Any, draws: Any, confidence: float) -> Interval:
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(draws, [tail, 100.0 - tail])
    return Interval(float(middle), float(low), float(high))
