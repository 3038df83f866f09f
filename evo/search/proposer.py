"""Ask and tell: what a campaign needs of any proposer, and the parts that every proposer of ours shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from evo.outcome import Outcome
from evo.search.history import History, Indices
from evo.space import Configuration, SearchSpace


@dataclass(frozen=True, slots=True)
class Descent:
    """How a proposal was come by: its operator and the configurations, by value indices, that it was made of."""

    operator: str = ""  # default, seed, stranger, child, neighbour, control; empty: nothing to tell
    parents: tuple[Indices, ...] = ()


SEED, STRANGER = Descent("seed"), Descent("stranger")


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
        self.descents: dict[Indices, Descent] = {}  # of what was proposed, where there is something to tell
        self.waiting = [space.nearest(space.configuration(s).indices).indices for s in seeds]

    def ask(self, n: int) -> list[Configuration]:
        """Up to n distinct admissible configurations, none of them asked or told before; [] when none is left."""
        chosen: list[Indices] = []
        if n > 0 and not self.history.exhausted:
            while self.waiting and len(chosen) < n:
                self.descents.setdefault(self.waiting[0], SEED)
                self._accept([self.waiting.pop(0)], chosen)
            if len(chosen) < n:
                self._accept(self.propose(n - len(chosen)), chosen, n)
            if len(chosen) < n:
                drawn = self.history.random_untaken(self.rng, n - len(chosen))
                self.descents.update(dict.fromkeys(drawn, STRANGER))
                self._accept(drawn, chosen, n)
        return [self.space.at(indices) for indices in chosen]

    def tell(self, configuration: Configuration, outcome: Outcome) -> None:
        """Learn an outcome, also of a configuration that was never asked for (a warm start)."""
        indices = self.space.configuration(configuration).indices
        first = self.history.tell(indices, outcome)
        self.learn(indices, outcome, first)

    def origin(self, configuration: Configuration) -> Descent:
        """How a proposal was come by, and from which others."""
        return self.descents.get(configuration.indices, Descent())

    def reserve(self, configuration: Configuration) -> None:
        """Count a configuration as in flight: another proposes it."""
        self.history.take(configuration.indices)

    def expected_gain(self) -> float | None:
        """Share of the best time that the best untried candidate is expected to save; None without a model of it."""
        return None

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
