"""Which runs make the study of search efficiency, in the order of what would be missed most.

Seeds go round and round: a study that is cut short has fewer seeds of its last part, not fewer spaces.
"""

from __future__ import annotations

import argparse
from functools import cache
from typing import NamedTuple

from benchmarks.kernel_tuner_peers import PREFIX, kernel_tuner_peers
from benchmarks.search_ideas import IDEAS
from benchmarks.search_peers import ABLATIONS, peer
from benchmarks.search_spaces import space_names
from evo.errors import InputError
from evo.space import Knob, SearchSpace

MAIN = ("evo", "tpe", "genetic", "random")
OTHERS = ("differential", "nsgaii", "cmaes")
PARTS: dict[str, tuple[tuple[str, ...], tuple[float, ...], int]] = {  # proposers, noise, largest budget
    "main": (MAIN, (0.0,), 400),
    "ablations": ((*ABLATIONS, *IDEAS), (0.0,), 200),
    "noise": (MAIN, (0.03, 0.06), 200),
    "peers": (OTHERS, (0.0,), 400),
    "ordered": (("tpe-ordered",), (0.0,), 400),
    "kernel_tuner": (kernel_tuner_peers(), (0.0,), 400),
}


class Planned(NamedTuple):
    """One run to play."""

    space: str
    proposer: str
    seed: int
    noise: float
    budget: int


def planned(arguments: argparse.Namespace) -> list[Planned]:
    """Every run that is asked for and can be played here, the most important first."""
    low, high = (int(s) for s in arguments.seeds.split(":"))
    spaces = arguments.spaces or space_names()
    parts = [PARTS[name] for name in arguments.parts]
    if arguments.proposers:
        parts = [(tuple(arguments.proposers), tuple(arguments.noise), arguments.budget)]
    return [
        Planned(space, proposer, seed, noise, min(most, arguments.budget))
        for proposers, noises, most in parts
        for seed in range(low, high)
        for noise in noises
        for proposer in proposers
        if _installed(proposer)
        for space in spaces
    ]


@cache
def _installed(proposer: str) -> bool:
    if proposer.startswith(PREFIX):
        return proposer in kernel_tuner_peers()
    try:
        peer(proposer, SearchSpace([Knob("k", (1, 2))]), 0, 1)
    except InputError as error:
        print(f"left out: {error}", flush=True)
        return False
    return True
