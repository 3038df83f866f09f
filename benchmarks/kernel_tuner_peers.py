"""Kernel Tuner's own strategies on the same spaces, where Kernel Tuner is installed (`pip install -e ".[peers]"`).

Each strategy runs as shipped, with its default options, through Kernel Tuner's own space and cost function; only the
runner is ours: it looks times up, counts a configuration once however often it is asked for, and ends at the budget.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import random
import warnings
from collections.abc import Callable
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
)
LARGEST = 40_000  # configurations; Kernel Tuner lists a space as Python tuples

Look = Callable[[tuple[int, ...]], float]  # value indices -> time in microseconds, nan where it fails


def kernel_tuner_peers() -> tuple[str, ...]:
    """Names of the strategies that can be played; none where Kernel Tuner is not installed."""
    return tuple(PREFIX + s for s in STRATEGIES) if importlib.util.find_spec("kernel_tuner") else ()


def search(name: str, space: SearchSpace, seed: int, budget: int, look: Look) -> None:
    """Run one strategy to its end or the budget; it sees times only by `look`, called once per configuration."""
    from kernel_tuner.interface import Options, strategy_map
    from kernel_tuner.searchspace import Searchspace
    from kernel_tuner.util import StopCriterionReached, TuningBudget

    random.seed(seed)
    np.random.seed(seed)  # Kernel Tuner draws from the global generators
    values = {k.name: list(k.values) for k in space.knobs}
    listed = [
        dict(zip(values, (k.values[i] for k, i in zip(space.knobs, row, strict=True)), strict=True))
        for row in space.rows
    ]
    table = Searchspace(
        None, None, None, from_cache={"tune_params": values, "cache": {str(i): c for i, c in enumerate(listed)}}
    )
    options = Options(
        strategy_options=Options({}),
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
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(StopCriterionReached):
            strategy_map[name].tune(table, _LookUp(space, look), options)


class _LookUp:
    """A runner that looks times up; what it is asked for again costs nothing, as with Kernel Tuner's cache."""

    def __init__(self, space: SearchSpace, look: Look) -> None:
        self.names = [k.name for k in space.knobs]
        self.places = [{v: i for i, v in enumerate(k.values)} for k in space.knobs]
        self.look = look
        self.known: dict[tuple[int, ...], float] = {}
        self.dev = None

    def add_strategy_time(self, seconds: float) -> None:
        """What the strategy spent; timed elsewhere."""

    def available_parallelism(self) -> int:
        return 1

    def run(self, configurations: Any, options: Any) -> list[dict[str, Any] | None]:
        """Results in order; None once the budget is spent."""
        from kernel_tuner.util import RuntimeFailedConfig

        results: list[dict[str, Any] | None] = []
        for configuration in configurations:
            if options.budget.is_done():
                results.append(None)
                continue
            indices = tuple(place[v] for place, v in zip(self.places, configuration, strict=True))
            if indices not in self.known:
                self.known[indices] = self.look(indices)
                options.budget.add_evaluations(1)
            time_us = self.known[indices]
            result: dict[str, Any] = dict(zip(self.names, configuration, strict=True)) | {"time": time_us}
            if np.isnan(time_us):
                result |= {"time": RuntimeFailedConfig(), "__error__": RuntimeFailedConfig()}
            results.append(result)
        return results
