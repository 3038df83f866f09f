"""This project's search for users of Optuna: `optuna.create_study(sampler=EvoSampler(seed=0))`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from evo.outcome import Measured, Outcome, Rejected, Stage
from evo.search.proposer import Proposer
from evo.space import Knob, SearchSpace

GRID = 65  # values that a continuous or a very long range is divided into
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class EvoSampler(BaseSampler):
    """The evo proposer as an Optuna sampler; single objective, either direction, failed and pruned trials count."""

    def __init__(
        self,
        seed: int | None = None,
        *,
        proposer: str = "evo",
        budget: int | None = None,
        admissible: Callable[[dict[str, Any]], bool] | None = None,
    ) -> None:
        """budget: n_trials, where known; admissible: says whether a dict of parameters may be tried at all."""
        self.seed = int(np.random.default_rng(seed).integers(2**31))
        self.proposer_name = proposer
        self.budget = budget
        self.admissible = admissible
        self._independent = RandomSampler(seed=self.seed)
        self._intersection = IntersectionSearchSpace()
        self._spaces: dict[tuple[int, tuple[tuple[str, BaseDistribution], ...]], _Told] = {}

    def infer_relative_search_space(
        self,
        study: Study,
        trial: FrozenTrial,
    ) -> dict[str, BaseDistribution]:
        """The parameters that every finished trial had; the first trial is drawn at random to find them."""
        found = self._intersection.calculate(study)
        return {name: d for name, d in found.items() if not d.single()}

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """The proposer's next configuration; {} where nothing untried is left."""
        if not search_space:
            return {}
        if len(study.directions) > 1:
            raise ValueError("EvoSampler optimises one objective")
        key = (study._study_id, tuple(sorted(search_space.items(), key=lambda item: item[0])))
        if key not in self._spaces:
            self._spaces[key] = _Told(search_space, self.seed, self.proposer_name, self.budget, self.admissible)
        return self._spaces[key].propose(study)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter that not every trial has: at random."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Another seed for each of several parallel processes."""
        self.seed = int(np.random.default_rng().integers(2**31))
        self._independent.reseed_rng()
        self._spaces.clear()


class _Told:
    """One proposer on one set of distributions, and which trials it has seen."""

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        seed: int,
        name: str,
        budget: int | None,
        admissible: Callable[[dict[str, Any]], bool] | None,
    ) -> None:
        from evo.search import make_proposer

        self.distributions = dict(distributions)
        self.values = {n: grid(d) for n, d in self.distributions.items()}
        knobs = [Knob(_plain(i), tuple(range(len(v))), kind=_kind(v)) for i, v in enumerate(self.values.values())]
        self.space = SearchSpace(knobs)
        self.space.has_default = False
        self.proposer: Proposer = make_proposer(name, self.space, seed, budget=budget)
        self.seen: set[int] = set()
        self.admissible = admissible

    def propose(self, study: Study) -> dict[str, Any]:
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        for done in study.get_trials(deepcopy=False, states=FINISHED):
            if done.number not in self.seen and all(n in done.params for n in self.distributions):
                self.seen.add(done.number)
                indices = [_nearest(v, done.params[n]) for n, v in self.values.items()]
                self.proposer.tell(self.space.at(indices), _outcome(done, sign))
        for _ in range(1000):
            asked = self.proposer.ask(1)
            if not asked:
                return {}
            chosen = {n: v[i] for (n, v), i in zip(self.values.items(), asked[0].indices, strict=True)}
            if self.admissible is None or self.admissible(chosen):
                return chosen
            self.proposer.tell(asked[0], Rejected(Stage.RULES, "inadmissible"))
        return {}


def grid(distribution: BaseDistribution) -> list[Any]:
    """The values that a distribution is searched at, in order."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        low, high, step = distribution.low, distribution.high, distribution.step
        count = (high - low) // step + 1
        if count <= GRID:
            return list(range(low, high + 1, step))
        spread = np.geomspace(low, high, GRID) if distribution.log else np.linspace(0, count - 1, GRID) * step + low
        return sorted({low + round((v - low) / step) * step for v in spread.tolist()})
    assert isinstance(distribution, FloatDistribution)
    low_, high_ = distribution.low, distribution.high
    if distribution.step is not None:
        steps = math.floor((high_ - low_) / distribution.step + 1e-9)
        places = range(steps + 1) if steps < GRID else np.unique(np.linspace(0, steps, GRID).round()).tolist()
        return [low_ + p * distribution.step for p in places]
    spread = np.geomspace(low_, high_, GRID) if distribution.log else np.linspace(low_, high_, GRID)
    return [float(v) for v in np.clip(spread, low_, high_)]


def _kind(values: Sequence[Any]) -> str:
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    return "ordinal" if numbers and list(values) == sorted(values) else "categorical"


def _plain(number: int) -> str:
    return f"parameter_{number}"  # Optuna's names may hold anything; knobs' may not


def _nearest(values: list[Any], value: Any) -> int:
    if value in values:
        return values.index(value)
    return int(np.argmin([abs(v - value) for v in values]))


def _outcome(trial: FrozenTrial, sign: float) -> Outcome:
    if trial.state != TrialState.COMPLETE or trial.value is None or not math.isfinite(trial.value):
        return Rejected(Stage.MEASURE, str(trial.state.name).lower())
    return Measured((math.exp(math.asinh(sign * trial.value)),))  # times are positive and compared by logarithm
