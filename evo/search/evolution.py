"""Steady-state evolution: parents by rank, crossover, mutation to neighbours, elites never lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from evo.search.history import Indices
from evo.search.operators import Steps, crossover, mutate, rank_select, repair
from evo.search.proposer import HistoryProposer
from evo.space import Configuration, SearchSpace

POPULATION = 12
FIRST_DRAWN = 12  # configurations drawn at random before breeding starts


class EvolutionProposer(HistoryProposer):
    """Breeds from the best trials so far; needs no models."""

    def __init__(
        self, space: SearchSpace, seed: int, *, budget: int | None = None, seeds: Sequence[Configuration] = ()
    ) -> None:
        super().__init__(space, seed, budget=budget, seeds=seeds)
        self.steps = Steps(space.knobs)
        if space.has_default:
            self.waiting.insert(0, space.default.indices)
        self.first_drawn = min(FIRST_DRAWN, max(4, (budget or 120) // 10))

    def propose(self, n: int) -> Iterable[Indices]:
        """Children of rank-selected parents, repaired; random ones until the population is there."""
        missing = self.first_drawn - len(self.history.trials) - len(self.history.in_flight)
        if missing > 0:
            return self.history.random_untaken(self.rng, min(n, missing))
        return self._children(n)

    def _children(self, n: int) -> Iterator[Indices]:
        elites = [t.indices for t in self.history.best(POPULATION)]
        for _ in range(20 * n if elites else 0):
            first = elites[rank_select(self.rng, len(elites))]
            child = np.array(first)
            if len(elites) > 1 and self.rng.random() < 0.5:
                child = crossover(self.rng, first, elites[rank_select(self.rng, len(elites))])
            if tuple(child.tolist()) in elites or self.rng.random() < 0.5:
                child = mutate(self.rng, self.steps, child, 1 + int(self.rng.random() < 0.3))
            yield repair(self.space, child)
