"""Insights: what the trials so far, failures among them, say about those not tried; the most promising come first.

Two processes of one kernel: how fast a candidate will be, learned from what ran alone, and how likely it is to run.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri
from threadpoolctl import ThreadpoolController

from evo.search.coordinates import Coordinates
from evo.search.gaussian import GaussianModel
from evo.search.history import History, Indices
from evo.search.pool import CENTRES, Pool
from evo.search.proposer import Descent

Array = npt.NDArray[Any]

GROWTH = 1.2  # the length scales are learned anew whenever there are so many times more trials
TRIALS_MOST = 256  # that the process is conditioned on: the better half by time, the rest at random
ADDED_MOST = 64  # trials beyond that before the pool is gathered anew
TAIL = 0.05  # of the normal distribution, at either end, that no trial's score lies in
LEAST_CHANCE = 1e-9  # what is sure to fail is a last resort, but never ruled out
LEAST_GAIN = 0.01  # expected of the best candidate, in the model's units; below, the model is doubted
DOUBT = 3.0  # how many times as unsure as it says the model is taken to be then


class Insight:
    """The surrogate of one search: refreshed from its history, asked for the best of its pool."""

    def __init__(
        self, coordinates: Coordinates, pool: Pool, *, bred: bool = True, validity: bool = True, doubting: bool = True
    ) -> None:
        """bred: whether candidates are bred from elites, or strangers only; validity: whether failures are foreseen.

        doubting: whether a model that expects nothing any more is taken to be less sure than it says.
        """
        self.coordinates = coordinates
        self.pool = pool
        self.bred = bred
        self.validity = validity
        self.doubting = doubting
        self.speed = GaussianModel(coordinates.group_of_column, coordinates.log_lengths)
        self.chance: GaussianModel | None = None  # of running at all; none before anything failed
        self.threads = ThreadpoolController()
        self.trained: list[int] = []  # places in the history that the processes are conditioned on
        self.ran: list[int] = []  # those of them that the speed is, because they ran
        self.seen = 0  # trials of the history that were looked at
        self.gain = math.inf  # expected of the best candidate of the last proposal, in the model's units
        self.learned_at = 0  # trials when the length scales were last learned

    def propose(self, rng: np.random.Generator, history: History, count: int) -> list[tuple[Indices, Descent]]:
        """Up to `count` untried configurations, most promising first, with how each was come by."""
        with self.threads.limit(limits=1, user_api="blas"):  # matrices this small only wait for their threads
            self._refresh(rng, history)
            chosen = self._choose(history, count)
            if len(chosen) < count:  # the pool ran dry
                self._gather(rng, history)
                known = {indices for indices, _ in chosen}
                chosen += [c for c in self._choose(history, count) if c[0] not in known][: count - len(chosen)]
            if self.bred:
                for indices, _ in chosen:  # where one is promising, those beside it are looked at next
                    self._look_around(history, indices)
        return chosen

    def expected_gain(self, history: History) -> float:
        """Share of the best time that the best untried candidate of the last proposal was expected to save.

        The model thinks in ranks; what a rank is worth in time is read off the fastest tenth.
        """
        times = np.sort(history.times_us[np.isfinite(history.times_us)])
        fastest = slice(max(3, len(times) // 10))
        scores, logs = targets_of(times)[fastest], np.log(times[fastest])
        if len(times) < 3 or np.ptp(scores) == 0:
            return math.inf
        return -math.expm1(-self.gain * float(np.ptp(logs) / np.ptp(scores)))

    def _look_around(self, history: History, indices: Indices) -> None:
        added = self.pool.add_neighbours(history, indices)
        if len(added):
            candidates = self.coordinates.of(added)
            self.speed.add_candidates(candidates)
            if self.chance is not None:
                self.chance.add_candidates(candidates)

    def _refresh(self, rng: np.random.Generator, history: History) -> None:
        times = history.times_us
        if not self.trained or len(history.trials) >= GROWTH * self.learned_at:
            self._gather(rng, history, learn=True)
            return
        full = len(self.trained) + len(history.trials) - self.seen > TRIALS_MOST + ADDED_MOST
        if full or np.isnan(times[self.ran]).any():  # what ran once may be told again, as a failure
            self._gather(rng, history)
            return
        elites = {t.indices for t in history.best(CENTRES)} if len(history.trials) > self.seen else set()
        for place in range(self.seen, len(history.trials)):
            trial = history.trials[place]
            point = self.coordinates.of(np.array([trial.indices]))[0]
            self.trained.append(place)
            if not trial.failed:
                self.ran.append(place)
                self.speed.add_point(point)
            if self.chance is not None:
                self.chance.add_point(point)
            elif trial.failed:
                self._foresee(history)
            if self.bred and trial.indices in elites:
                self._look_around(history, trial.indices)
        self.seen = len(history.trials)

    def _gather(self, rng: np.random.Generator, history: History, learn: bool = False) -> None:
        """Choose the trials to learn from and a new pool, and fit."""
        count = len(history.trials)
        places = np.arange(count)
        if count > TRIALS_MOST:
            order = np.argsort(history.times_us, kind="stable")
            half = TRIALS_MOST // 2
            others = rng.choice(order[half:], TRIALS_MOST - half, replace=False)
            places = np.sort(np.concatenate([order[:half], others]))
        self.trained = [int(p) for p in places]
        self.ran = [p for p in self.trained if not history.trials[p].failed]
        self.seen = count
        self.pool.refill(rng, history, self.bred)
        targets = targets_of(history.times_us[self.ran])
        self.speed.fit(self._points(history, self.ran), targets, self.coordinates.of(self.pool.rows), learn)
        self.chance = None
        if len(self.ran) < len(self.trained):
            self._foresee(history)
        if learn:
            self.learned_at = count

    def _foresee(self, history: History) -> None:
        """Learn from every trial how likely a candidate is to run, with the length scales of speed."""
        if self.validity:
            self.chance = self.speed.alike()
            self.chance.condition(self._points(history, self.trained), self.coordinates.of(self.pool.rows))

    def _points(self, history: History, places: list[int]) -> Array:
        return self.coordinates.of(np.array([history.trials[p].indices for p in places]))

    def _choose(self, history: History, count: int) -> list[tuple[Indices, Descent]]:
        """Up to `count` of the pool by expected improvement, each mindful of what is in flight and chosen before.

        Where no improvement is expected any more, every other one is chosen in doubt: with a wider deviation.
        """
        if not len(self.pool.rows):
            return []
        value, deviation = self._promise(history)
        for indices in history.in_flight:
            deviation = deviation * self._unlike(indices)
        score = value(deviation)
        self.gain = float(score.max())
        doubted = self.doubting and self.gain < LEAST_GAIN
        turn = len(history.trials) + len(history.in_flight)
        chosen: list[tuple[Indices, Descent]] = []
        passed: list[int] = []  # candidates chosen here, or taken since the pool was gathered
        while len(chosen) < count and len(passed) < len(score):
            if doubted and (turn + len(chosen)) % 2:
                score = value(DOUBT * deviation)
            score[passed] = -np.inf
            best = int(np.argmax(score))
            passed.append(best)
            indices = tuple(self.pool.rows[best].tolist())
            if not history.is_taken(indices):
                chosen.append((indices, self.pool.descents[best]))
                deviation = deviation * self._unlike(indices)
                score = value(deviation) if len(chosen) < count else score
        return chosen

    def _promise(self, history: History) -> tuple[Any, Array]:
        """Expected improvement times the chance to run, as a function of the deviation; and the deviation."""
        times = history.times_us
        targets = targets_of(times[self.ran])
        mean, least = self.speed.mean(targets), targets.min()
        chance: Array | float = 1.0
        if self.chance is not None:
            ran = np.isfinite(times[self.trained])
            share = float(ran.mean())
            chance = np.clip(self.chance.mean(ran - share) + share, LEAST_CHANCE, 1.0)

        def value(deviation: Array) -> Array:
            return np.asarray(expected_improvement(mean, deviation, least) * chance)

        return value, self.speed.deviation()

    def _unlike(self, indices: Indices) -> Array:
        """How much of the deviation is left once this configuration will be known."""
        likeness = self.speed.likeness(self.coordinates.of(np.array([indices]))[0])
        left: Array = np.sqrt(np.maximum(1 - likeness * likeness, 1e-4))
        return left


def targets_of(times_us: Array) -> Array:
    """What the speed process is told of the trials that ran: zero mean, unit variance, low is fast.

    Times count by rank, as normal quantiles: a cliff of slow configurations must not drown the differences among fast
    ones. The tails are left out: else each slower trial would move the best further away from what is unknown, until no
    candidate were worth a try.
    """
    count = len(times_us)
    scores = np.empty(count)
    scores[np.argsort(times_us, kind="stable")] = ndtri(TAIL + (1 - 2 * TAIL) * (np.arange(count) + 0.5) / count)
    return scores / scores.std() if count > 1 else np.zeros(count)


def expected_improvement(mean: Array, deviation: Array, least: float) -> Array:
    """Mean gain below `least` of a normal target (zero where it is worse)."""
    mean, deviation = np.asarray(mean, np.float32), np.asarray(deviation, np.float32)
    away = (np.float32(least) - mean) / deviation
    density = np.exp(-0.5 * away * away) / np.sqrt(2 * np.pi)
    result: Array = (np.float32(least) - mean) * ndtr(away) + deviation * density
    return result
