"""Ask and tell: what a campaign needs of any proposer, and the parts that every proposer of ours shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from evo.outcome import Outcome
from evo.search.history import History, Indices
from evo.space import Configuration, SearchSpace


class Proposer(Protocol):
    """Proposes configurations and learns from their outcomes; told in any order, deterministic for its seed."""

    def ask(self, n: int) -> list[Configuration]:
        """Up to n distinct admissible configurations, none of them asked or told before; [] when none is left."""
        ...

    def tell(self, configuration: Configuration, outcome: Outcome) -> None:
        """Learn an outcome, also of a configuration that was never asked for (a warm start)."""
        ...


class HistoryProposer:
    """Keeps the history and the promises of ask; a subclass says in `propose` what it would like to try."""

    def __init__(
        self, space: SearchSpace, seed: int, *, budget: int | None = None, seeds: Sequence[Configuration] = ()
    ) -> None:
        """seeds: configurations to try first, e.g. elites found elsewhere; repaired to the nearest admissible."""
        self.space = space
        self.budget = budget
        self.rng = np.random.default_rng(seed)
        self.history = History(space)
        self.operators: dict[Indices, str] = {}  # configuration -> how it was come by, where that is worth telling
        self.waiting = [space.nearest(space.configuration(s).indices).indices for s in seeds]

    def ask(self, n: int) -> list[Configuration]:
        """Up to n distinct admissible configurations, none of them asked or told before; [] when none is left."""
        chosen: list[Indices] = []
        if n > 0 and not self.history.exhausted:
            while self.waiting and len(chosen) < n:
                self.operators.setdefault(self.waiting[0], "seed")
                self._accept([self.waiting.pop(0)], chosen)
            if len(chosen) < n:
                self._accept(self.propose(n - len(chosen)), chosen, n)
            if len(chosen) < n:
                drawn = self.history.random_untaken(self.rng, n - len(chosen))
                self.operators.update(dict.fromkeys(drawn, "stranger"))
                self._accept(drawn, chosen, n)
        return [self.space.at(indices) for indices in chosen]

    def tell(self, configuration: Configuration, outcome: Outcome) -> None:
        """Learn an outcome, also of a configuration that was never asked for (a warm start)."""
        indices = self.space.configuration(configuration).indices
        first = self.history.tell(indices, outcome)
        self.learn(indices, outcome, first)

    def origin(self, configuration: Configuration) -> str:
        """How a proposal was come by: seed, stranger, mutation, neighbour... or nothing to tell."""
        return self.operators.get(configuration.indices, "")

    def propose(self, n: int) -> Iterable[Indices]:
        """Admissible wishes, best first; what is taken is skipped and what is missing is drawn at random."""
        return ()

    def learn(self, indices: Indices, outcome: Outcome, first: bool) -> None:
        """Called after each outcome; `first` is False if the configuration had been told before."""

    def _accept(self, wishes: Iterable[Indices], chosen: list[Indices], most: int | None = None) -> None:
        for indices in wishes:
            if most is not None and len(chosen) >= most:
                return
            if not self.history.is_taken(indices):
                self.history.take(indices)
                chosen.append(indices)
