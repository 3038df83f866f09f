"""A second opinion: how much denser the good trials lie around a candidate than the others do.

It asks less of the landscape than a regression does: only that what is good is near to other good things, knob by knob.
Where the regression has found a slope it is slower; where the regression is mistaken it goes on.
Source: Bergstra, Bardenet, Bengio and Kegl, Algorithms for Hyper-Parameter Optimization, 2011, section 4; every knob
counts as a choice, as the kernel for choices of Watanabe, Tree-Structured Parzen Estimator, 2023, section 3.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

GOOD_SHARE = 0.1  # of the trials count as good
GOOD_MOST = 25


def split(times_us: Array) -> tuple[Array, Array]:
    """Places of the good trials and of the others; failures (nan) are never good while anything ran."""
    order = np.argsort(times_us, kind="stable")
    count = min(int(np.ceil(GOOD_SHARE * len(order))), GOOD_MOST)
    return order[:count], order[count:]


def advantage(rows: Array, good: Array, others: Array, cardinalities: Array) -> Array:
    """Log of the density of the good trials over that of the others at each row; all are rows of value indices."""
    return _log_density(rows, good, cardinalities) - _log_density(rows, others, cardinalities)


def _log_density(rows: Array, trials: Array, cardinalities: Array) -> Array:
    """Log of a mixture of one kernel per trial and a uniform one, which counts as one trial more.

    A kernel gives its trial's own value (count + 1) / (count + cardinality) of a knob's probability and every other
    value alike, so that only the number of knobs matters in which a row agrees with the trial.
    """
    count = len(trials) + 1
    agreeing = np.zeros((len(rows), len(trials)), np.int16)
    for knob in range(rows.shape[1]):
        agreeing += rows[:, knob, None] == trials[None, :, knob]
    logs = agreeing * np.log(count + 1) - np.log(count + cardinalities).sum()
    uniform = -np.log(cardinalities).sum()
    highest = np.maximum(logs.max(axis=1, initial=uniform), uniform)
    total = np.exp(logs - highest[:, None]).sum(axis=1) + np.exp(uniform - highest)
    result: Array = highest + np.log(total / count)
    return result
