"""When to stop: nothing that is still to be expected would stand out of the noise."""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field

from evo.outcome import Measured, Outcome

LEAST_FLOOR = 0.001  # a thousandth of the time is worth nobody's wait, however quiet the device
REMEMBERED = 200  # latest measured trials that the floor is taken from
FEWEST_ANCHORS = 5  # medians of the anchor below which their spread says little


@dataclass(slots=True)
class Patience:
    """Counts evaluations without prospect: no gain above the noise floor, and none to be expected.

    evaluations: how many of them in a row end a search.
    """

    evaluations: int
    waited: int = 0  # evaluations since something stood out, or since it was last expected to
    modelled: bool = False  # whether the proposer says what it expects
    best_us: float = math.inf  # the last time that stood out
    _anchors: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))  # log of each trial's median
    _errors: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))  # relative, of each trial's median
    _gains: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def note(self, outcome: Outcome, expected_gain: float | None = None) -> None:
        """Count one outcome, and what its proposer expected of the best untried candidate when it last proposed."""
        improved = False
        if isinstance(outcome, Measured):
            self._learn_noise(outcome)
            improved = outcome.time_us < self.best_us * (1 - self.floor)
            self.best_us = outcome.time_us if improved else self.best_us  # small steps add up until they stand out
        self.modelled = expected_gain is not None
        promising = expected_gain is not None and expected_gain > self.floor
        self._gains.append(expected_gain or 0.0)
        self.waited = 0 if improved or promising or math.isinf(self.best_us) else self.waited + 1

    @property
    def floor(self) -> float:
        """Relative difference of two times that may be noise: from the anchor's spread over the trials, where it was
        timed beside them, and from the spread of the samples of each trial."""
        spread = 0.0
        if len(self._anchors) >= FEWEST_ANCHORS:
            middle = statistics.median(self._anchors)
            spread = 1.4826 * statistics.median(abs(a - middle) for a in self._anchors)
        error = statistics.median(self._errors) if self._errors else 0.0
        return max(LEAST_FLOOR, spread, error)

    @property
    def reason(self) -> str:
        """Why the search should end now, in plain words; empty while it should go on."""
        if self.waited < self.evaluations:
            return ""
        floor = f"the noise floor of {100 * self.floor:.2g} %"
        since = f"no improvement above {floor} in {self.waited} evaluations"
        if not self.modelled:
            return f"patience spent: {since}"
        expected = max(list(self._gains)[-self.waited :])
        return f"patience spent: {since}, and the best untried candidate promised {100 * expected:.2g} % at the most"

    def _learn_noise(self, outcome: Measured) -> None:
        if outcome.anchor_us:
            self._anchors.append(math.log(statistics.median(outcome.anchor_us)))
        if len(outcome.samples_us) >= 3:
            # Standard error of a median, the deviation estimated by quartiles, which a stray sample does not move.
            low, _, high = statistics.quantiles(outcome.samples_us, n=4)
            deviation = (high - low) / 1.349
            self._errors.append(1.2533 * deviation / math.sqrt(len(outcome.samples_us)) / outcome.time_us)
