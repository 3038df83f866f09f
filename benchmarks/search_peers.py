"""The textbook peers that searches are compared with, behind the same ask and tell: a genetic algorithm and DE."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from benchmarks.search_ideas import IDEAS
from evo.outcome import Outcome
from evo.search import Proposer, make_proposer
from evo.search.evolution import PARTS, EvoProposer
from evo.search.history import Indices
from evo.search.proposer import HistoryProposer
from evo.space import SearchSpace

POPULATION = 12
ABLATIONS = {  # name -> the part of evo that is taken away
    "evo-free": "speed",
    "evo-insight": "breeding",
    **{f"evo without {part}": part for part in PARTS if part not in ("speed", "breeding")},
}


def peer(name: str, space: SearchSpace, seed: int, budget: int) -> Proposer:
    """Any proposer of this project, one with a part taken away, or one of the peers of this file."""
    if name in IDEAS:
        return IDEAS[name](space, seed, budget)
    if name in ABLATIONS:
        return EvoProposer(space, seed, budget=budget, without=(ABLATIONS[name],))
    if name == "genetic":
        return GeneticPeer(space, seed, budget=budget)
    if name == "differential":
        return DifferentialPeer(space, seed, budget=budget)
    return make_proposer(name, space, seed, budget=budget)


class GeneticPeer(HistoryProposer):
    """Generations of 12: tournament parents, uniform crossover, one knob in ten redrawn, the best two kept."""

    def propose(self, n: int) -> Iterable[Indices]:
        trials = self.history.trials
        if len(trials) + len(self.history.in_flight) < POPULATION:
            return self.history.random_untaken(self.rng, n)
        generation = len(trials) // POPULATION
        times = np.where(np.isnan(self.history.times_us), np.inf, self.history.times_us)
        last = list(range((generation - 1) * POPULATION, generation * POPULATION))
        parents = sorted(set(last) | set(np.argsort(times, kind="stable")[:2].tolist()))
        return [self._child(parents, times) for _ in range(n)]

    def _child(self, parents: list[int], times: np.ndarray) -> Indices:
        chosen = []
        for _ in range(2):
            first, second = self.rng.choice(parents, 2)
            chosen.append(self.history.trials[first if times[first] <= times[second] else second].indices)
        child = np.where(self.rng.random(len(chosen[0])) < 0.5, *chosen)
        redrawn = self.rng.random(len(child)) < 0.1
        child = np.where(redrawn, [self.rng.integers(c) for c in self.space.cardinalities], child)
        return self.history.nearest_untaken(child) or chosen[0]


class DifferentialPeer(HistoryProposer):
    """DE/rand/1/bin on value indices, population 12, F 0.7, CR 0.8; rounded and repaired."""

    def __init__(self, space: SearchSpace, seed: int, *, budget: int | None = None) -> None:
        super().__init__(space, seed, budget=budget)
        self.members: list[tuple[Indices, float]] = []
        self.targets: dict[Indices, int] = {}
        self.turn = 0

    def propose(self, n: int) -> Iterable[Indices]:
        if len(self.members) < POPULATION:
            return self.history.random_untaken(self.rng, n)
        found = []
        for _ in range(n):
            place = self.turn = (self.turn + 1) % POPULATION
            a, b, c = (np.array(self.members[i][0]) for i in self.rng.choice(POPULATION, 3, replace=False))
            donor = np.rint(a + 0.7 * (b - c)).clip(0, np.array(self.space.cardinalities) - 1)
            crossed = self.rng.random(len(donor)) < 0.8
            crossed[self.rng.integers(len(donor))] = True
            child = self.history.nearest_untaken(np.where(crossed, donor, self.members[place][0]).astype(int))
            if child is not None:
                self.targets[child] = place
                found.append(child)
        return found

    def learn(self, indices: Indices, outcome: Outcome, first: bool) -> None:
        time = self.history.times_us[self.history.place[indices]]
        time = float("inf") if np.isnan(time) else float(time)
        place = self.targets.pop(indices, None)
        if place is not None and time < self.members[place][1]:
            self.members[place] = (indices, time)
        elif place is None and len(self.members) < POPULATION:
            self.members.append((indices, time))
