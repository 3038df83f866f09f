"""Kernel Tuner's own strategies on the same spaces, where Kernel Tuner is installed (`pip install -e ".[peers]"`).

Each strategy runs with its default options through Kernel Tuner's own space and cost function; only the runner is ours:
it looks times up, counts a configuration once however often it is asked for, and ends at the budget. Where a strategy
of 1.5 ends in an error of Kernel Tuner's own, that is mended here, so that it is judged by how it searches:

- neighbours found in full are arrays, to which neighbours found later cannot be appended: lists here;
- a configuration without neighbours has no random one: any other configuration here;
- `bayes_opt` takes the cost of a failure for a time: a failure here;
- a strategy that only ever asks for what it knows, `greedy_ils` on an island of the space, never ends: it does here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from evo.space import SearchSpace

PREFIX = "kernel-tuner "
STRATEGIES = (
    "genetic_algorithm",
    "diff_evo",
    "pso",
    "simulated_annealing",
    "greedy_ils",
    "adaptive_tabu_greywolf",
    "bayes_opt",
)

STUCK = 2000  # configurations asked for in a row, none of them new

Look = Callable[[tuple[int, ...]], float]  # value indices -> time in microseconds, nan where it fails


def kernel_tuner_peers() -> tuple[str, ...]:
    """Names of the strategies that can be played; none where Kernel Tuner is not installed."""
    return tuple(PREFIX + s for s in STRATEGIES) if importlib.util.find_spec("kernel_tuner") else ()


def search(name: str, space: SearchSpace, seed: int, budget: int, look: Look) -> None:
    """Run one strategy to its end or the budget; it sees times only by `look`, called once per configuration."""
    from kernel_tuner.interface import Options, strategy_map
    from kernel_tuner.util import StopCriterionReached, TuningBudget

    random.seed(seed)
    np.random.seed(seed)  # Kernel Tuner draws from the global generators
    values = {k.name: list(k.values) for k in space.knobs}
    options = Options(
        strategy_options=Options({"max_fevals": budget}),
        objective=["time"],
        objective_higher_is_better=[False],
        tune_params=values,
        restrictions=[],
        budget=TuningBudget(max_fevals=budget),
        cache={},
        metrics=None,
        verbose=False,
        strategy=name,
    )
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), _failures_are_failures(name):
        warnings.simplefilter("ignore")
        with contextlib.suppress(StopCriterionReached):
            strategy_map[name].tune(_listed(space), _LookUp(space, look), options)


def _listed(space: SearchSpace) -> Any:
    """Kernel Tuner's own idea of the space, its neighbours mended; fresh for every search, as it remembers them."""
    from kernel_tuner.searchspace import Searchspace

    class Mended(Searchspace):  # type: ignore[misc]
        def get_neighbors_indices_no_cache(self, *arguments: Any, **named: Any) -> list[int]:
            return [int(i) for i in super().get_neighbors_indices_no_cache(*arguments, **named)]

        def get_random_neighbor(self, *arguments: Any, **named: Any) -> Any:
            found = super().get_random_neighbor(*arguments, **named)
            return self.get_random_sample(1)[0] if found is None else found

    values = {k.name: list(k.values) for k in space.knobs}
    listed = [dict(zip(values, row, strict=True)) for row in _rows(space)]
    return Mended(
        None, None, None, from_cache={"tune_params": values, "cache": {str(i): c for i, c in enumerate(listed)}}
    )


@cache
def _rows(space: SearchSpace) -> list[tuple[Any, ...]]:
    return [tuple(k.values[i] for k, i in zip(space.knobs, row, strict=True)) for row in space.rows]


@contextlib.contextmanager
def _failures_are_failures(name: str) -> Iterator[None]:
    """While it lasts, `bayes_opt` knows a failure by the cost that Kernel Tuner gives it."""
    if name != "bayes_opt":
        yield
        return
    from kernel_tuner.strategies.bayes_opt import BayesianOptimization

    kept = BayesianOptimization.is_valid
    BayesianOptimization.is_valid = lambda self, cost: kept(self, cost) and cost < sys.float_info.max
    try:
        yield
    finally:
        BayesianOptimization.is_valid = kept


class _LookUp:
    """A runner that looks times up; what it is asked for again costs nothing, as with Kernel Tuner's cache."""

    def __init__(self, space: SearchSpace, look: Look) -> None:
        self.names = [k.name for k in space.knobs]
        self.places = [{v: i for i, v in enumerate(k.values)} for k in space.knobs]
        self.look = look
        self.known: dict[tuple[int, ...], float] = {}
        self.repeats = 0
        self.dev = SimpleNamespace(max_threads=1024)  # bayes_opt reads it and makes no use of it

    def add_strategy_time(self, seconds: float) -> None:
        """What the strategy spent; timed elsewhere."""

    def available_parallelism(self) -> int:
        return 1

    def run(self, configurations: Any, options: Any) -> list[dict[str, Any] | None]:
        """Results in order; None once the budget is spent."""
        from kernel_tuner.util import RuntimeFailedConfig, StopCriterionReached

        results: list[dict[str, Any] | None] = []
        for configuration in configurations:
            if options.budget.is_done():
                results.append(None)
                continue
            indices = tuple(place[v] for place, v in zip(self.places, configuration, strict=True))
            self.repeats = self.repeats + 1 if indices in self.known else 0
            if self.repeats > STUCK:
                raise StopCriterionReached(f"nothing new in {STUCK} configurations")
            if indices not in self.known:
                self.known[indices] = self.look(indices)
                options.budget.add_evaluations(1)
            time_us = self.known[indices]
            result: dict[str, Any] = dict(zip(self.names, configuration, strict=True)) | {"time": time_us}
            if np.isnan(time_us):
                result |= {"time": RuntimeFailedConfig(), "__error__": RuntimeFailedConfig()}
            results.append(result)
        return results
