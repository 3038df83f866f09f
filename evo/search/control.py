"""The control arm: a set share of a search's proposals is random, so that it can be said what breeding gained."""

from __future__ import annotations

from evo.outcome import Outcome
from evo.search.proposer import Descent, HistoryProposer, Proposer
from evo.search.random import RandomProposer
from evo.space import Configuration

CONTROL = Descent("control")


class ControlledProposer:
    """Another proposer of which every so many proposals come from random search instead; none comes twice.

    Both arms learn every outcome: what a random draw found is real information, and a search that ignored it would be
    worse than it need be. The control arm stays what it is, a random search of its own number of trials.
    """

    def __init__(self, proposer: HistoryProposer, control: RandomProposer, share: float) -> None:
        """share: of the proposals, above 0 and below 1, evenly spread."""
        self.proposer = proposer
        self.control = control
        self.share = share
        self.asked = 0
        self.controls: set[Configuration] = set()

    def ask(self, n: int) -> list[Configuration]:
        """Up to n distinct admissible configurations, none of them asked or told before; [] when none is left."""
        turns = [int((k + 1) * self.share) - int(k * self.share) for k in range(self.asked, self.asked + n)]
        drawn = self._pass_on(self.control, self.proposer, sum(turns))
        self.controls.update(drawn)
        bred = self._pass_on(self.proposer, self.control, n - len(drawn))
        self.asked += len(drawn) + len(bred)
        arms = {0: bred, 1: drawn}
        mixed = [arms[turn].pop(0) for turn in turns if arms[turn]]
        return [*mixed, *bred, *drawn]

    def tell(self, configuration: Configuration, outcome: Outcome) -> None:
        """Both arms learn it."""
        self.proposer.tell(configuration, outcome)
        self.control.tell(configuration, outcome)

    def origin(self, configuration: Configuration) -> Descent:
        """How a proposal was come by."""
        return CONTROL if configuration in self.controls else self.proposer.origin(configuration)

    def expected_gain(self) -> float | None:
        """As the proposer that is not the control arm sees it."""
        return self.proposer.expected_gain()

    @staticmethod
    def _pass_on(arm: HistoryProposer, other: HistoryProposer, n: int) -> list[Configuration]:
        found = arm.ask(n) if n else []
        for configuration in found:
            other.reserve(configuration)
        return found


def with_control(proposer: Proposer, share: float, seed: int) -> ControlledProposer:
    """This proposer with a random control arm that has a share of the proposals and a stream of its own."""
    assert isinstance(proposer, HistoryProposer)
    return ControlledProposer(proposer, RandomProposer(proposer.space, (seed + 104_729) % 2**31), share)
