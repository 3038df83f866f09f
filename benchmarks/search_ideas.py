"""Ideas that were tried for evo and are not in it: kept so that they can be measured again.

A second opinion decides every other proposal: how much denser the good trials lie around a candidate than the others do
(the parzen estimators of Bergstra, Bardenet, Bengio and Kegl, Algorithms for Hyper-Parameter Optimization, 2011).
A bandit shares the proposals out between the two opinions by what each has brought lately, instead of by turns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from evo.search.coordinates import Coordinates
from evo.search.evolution import EvoProposer
from evo.search.history import History, Indices
from evo.search.insight import Insight
from evo.search.pool import Pool
from evo.search.proposer import Descent
from evo.space import SearchSpace

Array = npt.NDArray[Any]

GOOD_SHARE, GOOD_MOST = 0.1, 25  # of the trials that count as good
CANDIDATES = 100  # drawn from the pool, of which the second opinion takes the best
REMEMBERED = 20  # latest proposals of an opinion that its credit is taken from


class SecondOpinion(Insight):
    """Every other proposal goes where the good trials lie densest."""

    def __init__(self, coordinates: Coordinates, pool: Pool, seed: int) -> None:
        super().__init__(coordinates, pool)
        self.draws = np.random.default_rng([seed, 11])

    def _choose(self, history: History, count: int) -> list[tuple[Indices, Descent]]:
        dense = self._turns(history, count)
        found = self._dense(history, dense)
        return found + [c for c in super()._choose(history, count) if c not in found][: count - len(found)]

    def _turns(self, history: History, count: int) -> int:
        first = len(history.trials) + len(history.in_flight)
        return int((np.arange(first, first + count) % 2 == 0).sum())

    def _dense(self, history: History, count: int) -> list[tuple[Indices, Descent]]:
        if not count:
            return []
        rows = np.array([history.trials[place].indices for place in self.trained])
        order = np.argsort(history.times_us[self.trained], kind="stable")
        good = min(int(np.ceil(GOOD_SHARE * len(order))), GOOD_MOST)
        chosen: list[int] = []
        for _ in range(count):
            drawn = self.draws.integers(0, len(self.pool.rows), CANDIDATES)
            drawn = drawn[history.untaken(self.pool.rows[drawn]) & ~np.isin(drawn, chosen)]
            if len(drawn):
                gains = advantage(self.pool.rows[drawn], rows[order[:good]], rows[order[good:]], self.pool.space)
                chosen.append(int(drawn[np.argmax(gains)]))
        return [(tuple(self.pool.rows[place].tolist()), self.pool.descents[place]) for place in chosen]


def advantage(rows: Array, good: Array, others: Array, space: SearchSpace) -> Array:
    """Log of the density of the good trials over that of the others at each row; all are rows of value indices."""
    cardinalities = np.array(space.cardinalities)
    return _log_density(rows, good, cardinalities) - _log_density(rows, others, cardinalities)


def _log_density(rows: Array, trials: Array, cardinalities: Array) -> Array:
    """Log of a mixture of one kernel per trial and a uniform one, which counts as one trial more.

    A kernel gives its trial's own value (count + 1) / (count + cardinality) of a knob's probability and every other
    value alike, so that only the number of knobs matters in which a row agrees with the trial.
    """
    count = len(trials) + 1
    agreeing = np.zeros((len(rows), len(trials)), np.int16)
    for knob in range(rows.shape[1]):
        agreeing += rows[:, knob, None] == trials[None, :, knob]
    logs = agreeing * np.log(count + 1) - np.log(count + cardinalities).sum()
    uniform = -np.log(cardinalities).sum()
    highest = np.maximum(logs.max(axis=1, initial=uniform), uniform)
    total = np.exp(logs - highest[:, None]).sum(axis=1) + np.exp(uniform - highest)
    result: Array = highest + np.log(total / count)
    return result


class Bandit(SecondOpinion):
    """Each proposal goes by the second opinion with the share that its latest proposals have of the successes."""

    def __init__(self, coordinates: Coordinates, pool: Pool, seed: int) -> None:
        super().__init__(coordinates, pool, seed)
        self.proposed: dict[str, list[Indices]] = {"dense": [], "all": []}

    def _turns(self, history: History, count: int) -> int:
        times = history.times_us
        good = np.quantile(times[np.isfinite(times)], GOOD_SHARE)
        dense = self.proposed["dense"]
        others = [i for i in self.proposed["all"] if i not in set(dense)]
        credit = []
        for proposed in (dense, others):
            places = [history.place[i] for i in proposed[-REMEMBERED:] if i in history.place]
            credit.append((1 + float((times[places] <= good).sum())) / (2 + len(places)))
        return int(self.draws.binomial(count, credit[0] / sum(credit)))

    def _dense(self, history: History, count: int) -> list[tuple[Indices, Descent]]:
        found = super()._dense(history, count)
        self.proposed["dense"] += [indices for indices, _ in found]
        return found

    def _choose(self, history: History, count: int) -> list[tuple[Indices, Descent]]:
        found = super()._choose(history, count)
        self.proposed["all"] += [indices for indices, _ in found]
        return found


def _with(insight: type[SecondOpinion]) -> Callable[[SearchSpace, int, int], EvoProposer]:
    def make(space: SearchSpace, seed: int, budget: int) -> EvoProposer:
        proposer = EvoProposer(space, seed, budget=budget)
        if proposer.insight is not None:
            proposer.insight = insight(proposer.insight.coordinates, proposer.insight.pool, seed)
        return proposer

    return make


IDEAS: dict[str, Callable[[SearchSpace, int, int], EvoProposer]] = {
    "evo with a second opinion": _with(SecondOpinion),
    "evo with a bandit": _with(Bandit),
}
