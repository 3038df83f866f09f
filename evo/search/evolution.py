"""The evo proposer: a history of elites to breed from, insights to rank what is bred, one budget to spend on both.

Modes: `evo` has both; `evo-insight` ranks strangers instead of children; `evo-free` breeds without insights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np

from evo.errors import InputError
from evo.search.coordinates import Coordinates
from evo.search.history import Indices
from evo.search.insight import Insight
from evo.search.operators import Steps, breed_rows
from evo.search.pool import Pool, descents_of
from evo.search.proposer import STRANGER, Descent, HistoryProposer
from evo.space import Configuration, SearchSpace

POPULATION = 12
LITTER = 20  # children bred for one that is wanted
FIRST_DRAWN = 8  # configurations drawn at random before anything is learned
LEAST_RUN = 3  # of them must run before anything can be learned

PARTS = ("speed", "validity", "breeding", "doubt", "identity")  # an ablation takes one away


class EvoProposer(HistoryProposer):
    """Evolution with insights; `without` names parts to leave out, to show what each is worth."""

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        *,
        budget: int | None = None,
        seeds: Sequence[Configuration] = (),
        without: Collection[str] = (),
    ) -> None:
        """without: any of PARTS. Without "speed" there is no model at all; without "breeding" it ranks strangers."""
        super().__init__(space, seed, budget=budget, seeds=seeds)
        unknown = sorted(set(without) - set(PARTS))
        if unknown:
            raise InputError(f"proposer: unknown part {unknown[0]!r}, expected {', '.join(PARTS)}")
        self.steps = Steps(space.knobs)
        if space.has_default and space.default.indices not in self.waiting:
            self.waiting.insert(0, space.default.indices)
            self.descents[space.default.indices] = Descent("default")
        coordinates = Coordinates(space, identity="identity" not in without)
        self.insight = None
        if "speed" not in without and not coordinates.constant:
            pool = Pool(space, self.steps)
            bred, validity, doubting = (part not in without for part in ("breeding", "validity", "doubt"))
            self.insight = Insight(coordinates, pool, bred=bred, validity=validity, doubting=doubting)

    def propose(self, n: int) -> Iterable[Indices]:
        """Strangers first; then what insight ranks highest, or plain children."""
        history = self.history
        missing = FIRST_DRAWN - len(history.trials) - len(history.in_flight)
        ran = int(np.isfinite(history.times_us).sum())
        if missing > 0 or ran < LEAST_RUN:
            drawn = history.random_untaken(self.rng, min(n, missing) if missing > 0 else n)
            self.descents.update(dict.fromkeys(drawn, STRANGER))
            if missing <= 0 or len(drawn) == n or ran < LEAST_RUN:
                return drawn
            return [*drawn, *self._children(n - len(drawn))]
        if self.insight is None:
            return self._children(n)
        ranked = self.insight.propose(self.rng, history, n)
        self.descents.update(ranked)
        return [indices for indices, _ in ranked]

    def expected_gain(self) -> float | None:
        """Share of the best time that the best untried candidate is expected to save; None without a model of it."""
        return None if self.insight is None else self.insight.expected_gain(self.history)

    def _children(self, n: int) -> Iterator[Indices]:
        """Children of the elites; the admissible ones first, then the others as the nearest admissible."""
        elites = [t.indices for t in self.history.best(POPULATION)]
        if not elites:
            return
        litter, places = breed_rows(self.rng, self.steps, np.array(elites), LITTER * n)
        descents = descents_of(elites, places)
        admissible = self.space.admissible(litter)
        for place in np.flatnonzero(admissible).tolist():
            yield self._descends(tuple(litter[place].tolist()), descents[place])
        for place in np.flatnonzero(~admissible).tolist():
            yield self._descends(self.space.nearest(litter[place]).indices, descents[place])

    def _descends(self, indices: Indices, descent: Descent) -> Indices:
        self.descents.setdefault(indices, descent)
        return indices
