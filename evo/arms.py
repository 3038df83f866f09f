"""Did evolution help? Its proposals of one campaign against that campaign's own random ones, at equal budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evo.record import Record

CONTROL = "control"
GIVEN = ("default", "seed")  # neither arm's doing
FEWEST = 5  # random trials below which nothing can be said
DRAWS = 2000
SURE = 0.95


@dataclass(frozen=True, slots=True)
class Arms:
    """Best of each arm after the same number of trials.

    first_us: best of evolution's first `trials` proposals; share_faster: of draws of `trials` from each arm's own
    trials, with replacement, those in which evolution's best is the faster; ties count half.
    """

    trials: int  # of the random arm, and so of each
    evolved: int  # trials of evolution in all
    random_us: float | None
    first_us: float | None
    evolved_us: float | None  # best of all of evolution's
    share_faster: float

    @property
    def verdict(self) -> str:
        """helped, did not help, or cannot be told."""
        if self.share_faster >= SURE:
            return "evolution helped"
        return "evolution did not help" if self.share_faster <= 1 - SURE else "whether evolution helped cannot be told"

    @property
    def sentence(self) -> str:
        """The verdict with its numbers, in plain words."""
        if self.trials < FEWEST:
            return f"Whether evolution helped cannot be told from {self.trials} random trials."
        first = "nothing that ran" if self.first_us is None else f"{self.first_us:.4g} us"
        random = "nothing that ran" if self.random_us is None else f"{self.random_us:.4g} us"
        return (
            f"On this space {self.verdict}: {self.trials} trials each, evolution's first found {first} and the random "
            f"arm {random}; of draws of {self.trials} from each, evolution's best was the faster in "
            f"{100 * self.share_faster:.0f} %."
        )

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "verdict": self.verdict, "sentence": self.sentence}


def arms_of(record: Record, campaign_id: int) -> Arms | None:
    """What evolution gained in a recorded campaign; None where it had no control arm."""
    trials = record.trials(campaign_id, details=False)
    return compare_arms([(trial.origin.operator, trial.time_us) for trial in trials])


def compare_arms(trials: Sequence[tuple[str, float | None]], seed: int = 0) -> Arms | None:
    """Compare the arms, given operator and time in microseconds of every trial in the order proposed.

    A rejected trial (time None) is a trial spent that found nothing. None where nothing came of a control arm.
    """
    random = _times([time_us for operator, time_us in trials if operator == CONTROL])
    evolved = _times([time_us for operator, time_us in trials if operator not in (CONTROL, *GIVEN)])
    if not len(random):
        return None
    count = len(random)
    share = 0.5
    if len(evolved):
        rng = np.random.default_rng(seed)
        theirs = random[rng.integers(0, count, (DRAWS, count))].min(axis=1)
        ours = evolved[rng.integers(0, len(evolved), (DRAWS, count))].min(axis=1)
        share = float(np.mean(ours < theirs) + 0.5 * np.mean(ours == theirs))
    return Arms(count, len(evolved), _best(random), _best(evolved[:count]), _best(evolved), share)


def _times(times_us: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.inf if time_us is None else time_us for time_us in times_us])


def _best(times: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    best = float(times.min()) if len(times) else np.inf
    return best if np.isfinite(best) else None
