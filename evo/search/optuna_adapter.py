"""Any Optuna sampler as a proposer, through ask and tell; its suggestions are repaired to untried admissible ones."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from evo.errors import InputError
from evo.expression import nearest_name
from evo.outcome import Measured, Outcome
from evo.search.history import Indices
from evo.search.proposer import HistoryProposer
from evo.space import Configuration, SearchSpace

RESAMPLED_MOST = 3  # suggestions drawn for one proposal before the last of them is repaired
NUMERIC = {"cmaes", "gp", "qmc", "tpe-ordered"}  # models of numbers; the others see each knob as a set of choices
# Told every trial of their own: a generation is complete only then, brute force walks from trial to trial.
OWN_TRIALS = {"cmaes", "nsgaii", "nsgaiii", "bruteforce"}
PACKAGES = {"cmaes": ("cmaes",), "gp": ("torch", "scipy"), "qmc": ("scipy",)}
UNFIT = {"base", "basega", "partialfixed", "grid"}  # abstract, or in need of more than a seed


class OptunaProposer(HistoryProposer):
    """Suggestions of one Optuna sampler on this space."""

    def __init__(
        self,
        name: str,
        space: SearchSpace,
        seed: int,
        *,
        budget: int | None = None,
        seeds: Sequence[Configuration] = (),
    ) -> None:
        """name: Optuna's class name, with or without "Sampler", in any case: tpe, CmaEsSampler, nsgaii, gp, qmc...

        Raises: InputError for an unknown sampler or one whose package is not installed.
        """
        super().__init__(space, seed, budget=budget, seeds=seeds)
        self.name = plain_name(name)
        self.sampler = make_sampler(name, seed)
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)  # cmaes warns of every knob that is a choice, every time
        self.optuna = optuna
        self.study = optuna.create_study(sampler=self.sampler, direction="minimize")
        # Brute force stops a study whose box it has walked through; here the search says when it is over.
        self.study.stop = lambda: None  # type: ignore[method-assign]
        self.orders = [k.coordinates.argsort(kind="stable").tolist() for k in space.knobs]
        self.places = [{index: at for at, index in enumerate(order)} for order in self.orders]
        self.distributions = self._distributions()
        self.asked: dict[Indices, tuple[Any, bool]] = {}  # configuration -> Optuna's trial, and whether it was repaired
        self.worst = 0.0

    def propose(self, n: int) -> Iterator[Indices]:
        """The sampler's suggestions, each made admissible and untried."""
        for _ in range(n):
            indices = self._suggest()
            if indices is None:
                return
            yield indices

    def learn(self, indices: Indices, outcome: Outcome, first: bool) -> None:
        """Tell the study; a trial of another's making is added to it."""
        trial, repaired = self.asked.pop(indices, (None, False))
        if not first:
            return
        value = self.history.trials[-1].time_us
        failed = value != value
        if isinstance(outcome, Measured) and not failed:
            self.worst = max(self.worst, value)
        if failed and self.name in NUMERIC | OWN_TRIALS and self.worst > 0:
            failed, value = False, self.worst  # these models have no notion of failure
        state = self.optuna.trial.TrialState
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if trial is not None and not repaired:
                if failed:
                    self.study.tell(trial, state=state.PRUNED if self.name.startswith("tpe") else state.FAIL)
                else:
                    self.study.tell(trial, value)
                return
            if trial is not None:
                self.study.tell(trial, state=state.FAIL)
            self.study.add_trial(
                self.optuna.trial.create_trial(
                    params=self._parameters(indices),
                    distributions=self.distributions,
                    value=None if failed else value,
                    state=state.PRUNED if failed else state.COMPLETE,
                )
            )

    def _suggest(self) -> Indices | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                trial, indices, free = self._of_study() if self.name in OWN_TRIALS else self._of_model()
            except ImportError as error:
                raise _not_installed(self.name, error.name or "a package it needs") from None
        if not free:
            nearest = self.history.nearest_untaken(indices)
            if nearest is None:
                self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
                return None
            indices = nearest
        # What a generation counts must be a trial of its own; a model learns as well from one that is added.
        self.asked[indices] = (trial, self.name not in OWN_TRIALS)
        return indices

    def _of_study(self) -> tuple[Any, Indices, bool]:
        trial = self.study.ask(self.distributions)
        indices = self._indices(trial.params)
        return trial, indices, self._is_free(indices)

    def _of_model(self) -> tuple[Any, Indices, bool]:
        """Draw from the model until something free comes; one trial of the study stands for all these draws."""
        trial = self.study.ask()
        running = self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.RUNNING,))[-1]
        indices: Indices = ()
        for _ in range(RESAMPLED_MOST):
            drawn = self.sampler.sample_relative(self.study, running, self.distributions)
            for name, distribution in self.distributions.items():
                if name not in drawn:
                    drawn[name] = self.sampler.sample_independent(self.study, running, name, distribution)
            indices = self._indices(drawn)
            if self._is_free(indices):
                return trial, indices, True
        return trial, indices, False

    def _is_free(self, indices: Indices) -> bool:
        return self.space.at(indices) in self.space and not self.history.is_taken(indices)

    def _distributions(self) -> dict[str, Any]:
        kinds = self.optuna.distributions
        return {
            k.name: kinds.IntDistribution(0, len(k.values) - 1)
            if self.name in NUMERIC and k.ordered
            else kinds.CategoricalDistribution(list(range(len(k.values))))
            for k in self.space.knobs
        }

    def _indices(self, parameters: dict[str, Any]) -> Indices:
        return tuple(order[int(parameters[k.name])] for k, order in zip(self.space.knobs, self.orders, strict=True))

    def _parameters(self, indices: Indices) -> dict[str, int]:
        return {k.name: place[i] for k, place, i in zip(self.space.knobs, self.places, indices, strict=True)}


def sampler_names() -> list[str]:
    """Names of Optuna's samplers that can be proposers."""
    import optuna

    names = [n.removesuffix("Sampler").lower() for n in dir(optuna.samplers) if n.endswith("Sampler")]
    return sorted({n for n in names if n not in UNFIT} | {"tpe-ordered"})


def plain_name(name: str) -> str:
    """TPESampler -> tpe."""
    return name.lower().removesuffix("sampler")


def make_sampler(name: str, seed: int) -> Any:
    """The Optuna sampler of this name, seeded.

    Raises: InputError for an unknown sampler or one whose package is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise _not_installed(name, "optuna")
    import optuna

    known = {n.removesuffix("Sampler").lower(): n for n in dir(optuna.samplers) if n.endswith("Sampler")}
    plain = "tpe" if name == "tpe-ordered" else plain_name(name)
    if plain not in known or plain in UNFIT:
        choice = nearest_name(plain, sampler_names()) or f"; expected one of {', '.join(sampler_names())}"
        raise InputError(f"proposer: unknown Optuna sampler {name!r}{choice}")
    for package in PACKAGES.get(plain, ()):
        if importlib.util.find_spec(package) is None:
            raise _not_installed(name, package)
    options: dict[str, Any] = {"seed": seed}
    if plain == "tpe":
        options |= {"multivariate": True, "constant_liar": True}
    if plain == "qmc":
        options["scramble"] = True  # else every seed walks the same points
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks several options as experimental
        try:
            return getattr(optuna.samplers, known[plain])(**options)
        except ImportError as error:
            raise _not_installed(name, error.name or "a package it needs") from None
        except TypeError as error:
            raise InputError(f"proposer: the Optuna sampler {name!r} needs more than a seed: {error}") from None


def _not_installed(name: str, package: str) -> InputError:
    return InputError(f"proposer: {name!r} needs the package {package}; install it with: pip install {package}")
