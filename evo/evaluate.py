"""One variant down the street: build -> verify -> measure. The first rejection is the answer."""

from __future__ import annotations

import random
import secrets
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from evo.floor import Floor, floor
from evo.measure import Timing, interleave, measure, sized_launches
from evo.outcome import Built, Contest, Measured, Rejected, Stage, Verified
from evo.targets import DeviceFacts, LaunchError, Program, Stopwatch, Target
from evo.variant import Variant
from evo.verify import Oracle, verify
from evo.workloads import Tensors, Workload

_VARIANTS_PER_SEED = 16  # inputs are drawn afresh this often: fresh enough that none can be learned, cheap enough
_USUAL_AFTER = 5  # measurements, before an anchor's median can be called unusual


class Bench:
    """A target made ready for one case: oracle, inputs and anchor. Lives in the worker that owns the device."""

    def __init__(self, target: Target, workload: Workload, case: Any, timing: Timing) -> None:
        self.target, self.workload, self.case, self.timing = target, workload, case, timing
        self.device = "cuda" if target.name == "cuda" else "cpu"
        self.oracle = Oracle(workload, self.device)
        self.inputs: Tensors = workload.inputs(case, secrets.randbits(31), self.device)
        self.anchor_name = ""
        self._anchor: Stopwatch | None = None
        self._seeds, self._served = _fresh_seeds(), 0
        self._floor: Floor | None = None
        self._anchor_medians: deque[float] = deque(maxlen=101)  # us, of the latest measurements

    def turn_to(self, case: Any) -> None:
        """Serve another case of the same workload from now on; the anchor must be chosen anew."""
        if case == self.case:
            return
        self.case, self._floor, self._anchor, self.anchor_name = case, None, None, ""
        self.inputs = self.workload.inputs(case, secrets.randbits(31), self.device)
        self._anchor_medians.clear()

    def facts(self) -> DeviceFacts:
        return self.target.facts()

    def choose_anchor(self, only: str = "") -> dict[str, float]:
        """Time every baseline on this case (or one of them); the fastest becomes the anchor. Returns us by name."""
        times: dict[str, float] = {}
        watches: dict[str, Stopwatch] = {}
        for name in [only] if only else self.workload.baselines(self.case, self.device):
            try:
                watch = self.target.baseline(self.workload, name).stopwatch(
                    self.case, [self.inputs], self.timing.launches
                )
                launches = sized_launches(self._look_us(watch), self.timing.sample_us)
                watch = self.target.baseline(self.workload, name).stopwatch(self.case, [self.inputs], launches)
                times[name] = statistics.median(self.target.time([watch], [0] * 9))
                watches[name] = watch
            except LaunchError as error:
                if error.fatal:
                    raise  # a backend that does not take this case is left out; a lost device is not
        if times:
            self.anchor_name = min(times, key=lambda name: times[name])
            self._anchor = watches[self.anchor_name]
        return times

    def _look_us(self, watch: Stopwatch) -> float:
        """About how long a launch takes here and now: the fastest of three promises too much on a busy machine."""
        return statistics.median(self.target.time([watch], [0, 0, 0]))

    def evaluate(
        self,
        variant: Variant,
        built: Built,
        best_us: float | None = None,
        *,
        tell_right: Callable[[], None] = lambda: None,
    ) -> Measured | Rejected:
        """Verify on fresh inputs, then measure beside the anchor.

        tell_right: called in between.
        Raises: LaunchError when the device can no longer be used by this process.
        """
        program = self._load(variant, built)
        if isinstance(program, Rejected):
            return program
        verified = verify(program, built, self.oracle, self.workload.trial_cases(self.case), self._current_seeds())
        if isinstance(verified, Rejected):
            return verified
        tell_right()
        measured = self._measure(program, verified, best_us)
        drift = self._drift(measured)
        if abs(drift) > self.timing.drift:  # clocks throttled, or a noisy neighbour: look once more
            measured = self._measure(program, verified, best_us)
            if isinstance(measured, Measured):
                words = f"anchor was {100 * drift:+.0f} % off, now {100 * self._drift(measured):+.0f} %"
                measured = replace(measured, environment={**measured.environment, "repeated": words})
        if isinstance(measured, Measured) and measured.anchor_us:
            self._anchor_medians.append(statistics.median(measured.anchor_us))
        if isinstance(measured, Measured) and (wrong := self._wrong_by_now(program, built)):
            return wrong
        return self._held_against_physics(measured)

    def _wrong_by_now(self, program: Program, built: Built) -> Rejected | None:
        """Why a program that was right before it was timed no longer is: one that stops working earns no time."""
        again = verify(program, built, self.oracle, self.workload.trial_cases(self.case)[:1], self._seeds[:1])
        if not isinstance(again, Rejected):
            return None
        return replace(again, detail=f"after it was timed: {again.detail}")

    def _measure(self, program: Program, verified: Verified, best_us: float | None) -> Measured | Rejected:
        return measure(
            self.target,
            program,
            verified,
            self.case,
            self.inputs,
            self._anchor,
            timing=self.timing,
            best_us=best_us,
            anchor_name=self.anchor_name,
        )

    def _drift(self, outcome: Measured | Rejected) -> float:
        """How far this anchor's median lies from the usual one, as a fraction; 0 while too little is known."""
        known = self._anchor_medians
        if isinstance(outcome, Rejected) or not outcome.anchor_us or len(known) < _USUAL_AFTER:
            return 0.0
        return statistics.median(outcome.anchor_us) / statistics.median(known) - 1.0

    @property
    def floor(self) -> Floor:
        """No right kernel runs this case faster on this device."""
        if self._floor is None:
            empty_us, bytes_per_s = self.target.ceilings()
            self._floor = floor(
                self.facts(),
                flops=self.workload.flops(self.case),
                bytes_moved=self.workload.bytes_moved(self.case),
                empty_us=empty_us,
                bytes_per_s=bytes_per_s,
            )
        return self._floor

    def _held_against_physics(self, outcome: Measured | Rejected) -> Measured | Rejected:
        if isinstance(outcome, Rejected) or outcome.time_us >= self.floor.time_us:
            return outcome
        return self._too_fast(outcome.time_us)

    def _too_fast(self, time_us: float) -> Rejected:
        bound = f"{time_us:.3f} us is less than {self.floor.time_us:.3f} us, set by {self.floor.because}"
        return Rejected(Stage.MEASURE, "below_physical_floor", bound)

    def contest(self, entries: Sequence[tuple[Variant, Built]], *, rounds: int = 40) -> Contest:
        """Verify finalists on cases the search did not use, then time them among the baselines, shuffled.

        Raises: LaunchError when the device can no longer be used by this process.
        """
        programs: dict[str, Program] = {}
        rejected: dict[str, Rejected] = {}
        for variant, built in entries:
            verified = self.verify_fully(variant, built)
            program = verified if isinstance(verified, Rejected) else self._load(variant, built)
            if isinstance(program, Rejected):
                rejected[variant.key] = program
            else:
                programs[variant.key] = program
        for name in self.workload.baselines(self.case, self.device):
            programs[f"baseline:{name}"] = self.target.baseline(self.workload, name)
        rng = random.Random(secrets.randbits(31))
        warm = self._timed(programs, [self.inputs], rounds, rng, rejected)
        cold = self._timed(programs, self.cold_sets(), rounds, rng, rejected) if self.device == "cuda" else {}
        for variant, built in entries:
            times = warm.get(variant.key)
            wrong = self._wrong_by_now(programs[variant.key], built) if times else None
            if times and wrong is None and statistics.median(times) < self.floor.time_us:
                wrong = self._too_fast(statistics.median(times))
            if wrong is not None:
                rejected[variant.key] = wrong
                warm.pop(variant.key)
                cold.pop(variant.key, None)
        return Contest(warm, cold, rejected, self.target.environment())

    def verify_fully(self, variant: Variant, built: Built, seeds: int = 3) -> Verified | Rejected:
        """Verify on the trial's cases and on those that the search did not use, each on fresh seeds.

        Raises: LaunchError when the device can no longer be used by this process.
        """
        program = self._load(variant, built)
        if isinstance(program, Rejected):
            return program
        cases = [*self.workload.trial_cases(self.case), *self.workload.final_cases(self.case)]
        return verify(program, built, self.oracle, cases, [secrets.randbits(31) for _ in range(seeds)])

    def _load(self, variant: Variant, built: Built) -> Program | Rejected:
        try:
            return self.target.load(built, variant, self.workload)
        except LaunchError as error:
            if error.fatal:
                raise
            return Rejected(Stage.LAUNCH, error.reason, error.detail)

    def _timed(
        self,
        programs: dict[str, Program],
        sets: list[Tensors],
        rounds: int,
        rng: random.Random,
        rejected: dict[str, Rejected],
    ) -> dict[str, tuple[float, ...]]:
        watches: dict[str, Stopwatch] = {}
        for name, program in programs.items():
            if name in rejected:
                continue
            try:
                watch = program.stopwatch(self.case, sets[:1], self.timing.launches)
                launches = sized_launches(self._look_us(watch), self.timing.contest_us, 128)
                watches[name] = program.stopwatch(self.case, sets, max(launches, len(sets)))
            except LaunchError as error:
                if error.fatal:
                    raise
                if not name.startswith("baseline:"):  # a backend that does not take this case is left out
                    rejected[name] = Rejected(Stage.MEASURE, error.reason, error.detail)
        names = list(watches)
        samples = interleave(self.target, [watches[name] for name in names], rounds, rng)
        return {name: tuple(times) for name, times in zip(names, samples, strict=True)}

    def cold_sets(self) -> list[Tensors]:
        """Enough copies of the inputs that the oldest has left the L2 cache before it is read again."""
        once = max(1.0, self.workload.bytes_moved(self.case))
        count = min(128, int(2 * self.facts().l2_bytes / once) + 2)
        return [{name: tensor.clone() for name, tensor in self.inputs.items()} for _ in range(count)]

    def _current_seeds(self) -> list[int]:
        self._served += 1
        if self._served > _VARIANTS_PER_SEED:
            self._seeds, self._served = _fresh_seeds(), 1
        return self._seeds


def _fresh_seeds() -> list[int]:
    """Two: one would let a kernel pass that only repeats its first answer."""
    return [secrets.randbits(31), secrets.randbits(31)]
