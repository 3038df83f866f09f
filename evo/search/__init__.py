"""Proposers: what to try next, given what came of what was tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evo.errors import InputError
from evo.expression import nearest_name
from evo.search.proposer import Descent, Proposer
from evo.space import Configuration, SearchSpace

if TYPE_CHECKING:
    from evo.search.optuna_sampler import EvoSampler

__all__ = ["Descent", "EvoSampler", "Proposer", "check_name", "make_proposer", "proposer_names"]

OWN = ("evo", "evo-insight", "evo-free", "random")
OPTUNA = ("tpe", "tpe-ordered", "cmaes", "nsgaii", "nsgaiii", "gp", "qmc")  # short names; others as optuna:NAME


def proposer_names() -> tuple[str, ...]:
    """Names that make_proposer knows without the prefix "optuna:"."""
    return OWN + OPTUNA


def check_name(name: str) -> None:
    """Raises: InputError when there is no proposer of this name, or a package that it needs is not installed."""
    if name in OWN:
        return
    if name in OPTUNA or name.startswith("optuna:"):
        from evo.search.optuna_adapter import make_sampler

        make_sampler(name.removeprefix("optuna:"), 0)
        return
    expected = ", ".join(proposer_names())
    raise InputError(
        f"proposer: unknown name {name!r}{nearest_name(name, proposer_names())}, expected {expected} or optuna:NAME"
    )


def make_proposer(
    name: str,
    space: SearchSpace,
    seed: int = 0,
    *,
    budget: int | None = None,
    seeds: Sequence[Configuration] = (),
) -> Proposer:
    """The proposer of this name on this space.

    budget: trials the search will have, where known; seeds: configurations to try first (elites found elsewhere).
    Raises: InputError for an unknown name or for a sampler whose package is not installed.
    """
    if name == "random":
        from evo.search.random import RandomProposer

        return RandomProposer(space, seed, budget=budget, seeds=seeds)
    if name in OWN:
        from evo.search.evolution import EvoProposer

        without = {"evo-insight": ("breeding",), "evo-free": ("speed",)}.get(name, ())
        return EvoProposer(space, seed, budget=budget, seeds=seeds, without=without)
    check_name(name)
    from evo.search.optuna_adapter import OptunaProposer

    return OptunaProposer(name.removeprefix("optuna:"), space, seed, budget=budget, seeds=seeds)


def __getattr__(name: str) -> Any:
    if name == "EvoSampler":  # imports Optuna, which takes a second
        from evo.search.optuna_sampler import EvoSampler

        return EvoSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
