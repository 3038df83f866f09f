"""Ideas that were tried for evo and are not in it: kept so that they can be measured again.

A bandit shares the proposals out between the two opinions by what each has brought so far, instead of by turns.
Restarts draw strangers, as at the beginning, whenever nothing has improved for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from evo.search.evolution import EvoProposer
from evo.search.history import History, Indices
from evo.search.insight import Insight
from evo.search.proposer import Descent
from evo.space import SearchSpace

REMEMBERED = 20  # latest proposals of an opinion that its credit is taken from
GOOD_SHARE = 0.1  # of all trials that count as its success
IDLE, DRAWN = 30, 8  # trials without improvement before a restart, and its strangers


class BanditInsight(Insight):
    """Each proposal goes by the second opinion with the share that its latest proposals have of the successes."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.by_turn: dict[bool, list[Indices]] = {True: [], False: []}

    def _turns(self, rng: np.random.Generator, history: History, count: int) -> int:
        times = history.times_us
        good = np.quantile(times[np.isfinite(times)], GOOD_SHARE)
        credit = {}
        for dense, proposed in self.by_turn.items():
            places = [history.place[i] for i in proposed[-REMEMBERED:] if i in history.place]
            credit[dense] = (1 + float((times[places] <= good).sum())) / (2 + len(places))
        return int(rng.binomial(count, credit[True] / (credit[True] + credit[False])))

    def _choose(self, rng: np.random.Generator, history: History, count: int) -> list[tuple[Indices, Descent]]:
        before = self.gain
        chosen = super()._choose(rng, history, count)
        self.by_turn[count == 1 and self.gain == before] += [indices for indices, _ in chosen]
        return chosen


class RestartingProposer(EvoProposer):
    """Strangers again after a long time without improvement."""

    def propose(self, n: int) -> Iterable[Indices]:
        times = self.history.times_us
        if np.isfinite(times).any():
            idle = len(times) - int(np.nanargmin(times))
            if idle >= IDLE and idle % IDLE < DRAWN:
                return self.history.random_untaken(self.rng, n)
        return super().propose(n)


def _bandit(space: SearchSpace, seed: int, budget: int) -> EvoProposer:
    proposer = EvoProposer(space, seed, budget=budget)
    if proposer.insight is not None:
        proposer.insight = BanditInsight(proposer.insight.coordinates, proposer.insight.pool)
    return proposer


def _seldom(space: SearchSpace, seed: int, budget: int) -> EvoProposer:
    proposer = EvoProposer(space, seed, budget=budget)
    if proposer.insight is not None:
        proposer.insight.every = 4
    return proposer


IDEAS: dict[str, Callable[[SearchSpace, int, int], EvoProposer]] = {
    "evo with a bandit": _bandit,
    "evo with restarts": lambda space, seed, budget: RestartingProposer(space, seed, budget=budget),
    "evo, second opinion every fourth": _seldom,
}
