"""A finished search as an Optuna study that costs next to nothing: its trials are neither copied nor checked again."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState


class _Finished(InMemoryStorage):
    """Hands out its trials as they are: Optuna's own storage copies each trial on its way in, at a millisecond each."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._finished = list(trials)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._finished if states is None or trial.state in states]


def study_of(choices: Mapping[str, tuple[Any, ...]], trials: Sequence[tuple[Mapping[str, Any], float]]) -> optuna.Study:
    """A study, to be looked at only, of trials that each have a configuration over `choices` and a time to minimise."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: CategoricalDistribution(values) for name, values in choices.items()}
    now = datetime.now()
    finished = [
        FrozenTrial(
            number=number,
            trial_id=number,
            state=TrialState.COMPLETE,
            value=time_us,
            datetime_start=now,
            datetime_complete=now,
            params=dict(configuration),
            distributions=distributions,  # type: ignore[arg-type]
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
        for number, (configuration, time_us) in enumerate(trials)
    ]
    return optuna.create_study(direction="minimize", storage=_Finished(finished))
