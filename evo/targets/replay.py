"""The replay target: plays a recorded campaign, so that a search can be seen, tested and compared without the device.

A replayed time is a recorded one of another machine and day. Whatever shows it says so.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from evo.base import SHIPPED, Base
from evo.errors import InputError
from evo.outcome import Built, Contest, Done, Measured, Rejected, Resources
from evo.seat import Ready
from evo.targets import DeviceFacts
from evo.targets.recorded import Recording, load_recording
from evo.variant import Variant

_NAME = re.compile(r"\w[\w.+-]*\Z")


def find_recording(base: str) -> Path | None:
    """The recording of a base: of those in ./recordings and those that ship, the first by GPU name."""
    for folder in (Path("recordings"), SHIPPED / "recordings"):
        found = sorted(folder.glob(f"*/{base}.json.gz"))
        if found:
            return found[0]
    return None


def describe(recording: Recording) -> str:
    """One sentence that says whose times these are."""
    day = recording.date[:10]
    return f"recorded times of {recording.device.get('name', 'an unnamed device')}{f', {day}' if day else ''}"


def recorded_base(recording: Recording, path: Path) -> Base:
    """A base for a space that others recorded: knobs and times, no template.

    Raises: InputError when its name is none that could be a file's.
    """
    if not _NAME.match(recording.name):
        raise InputError(f"{path}: name: expected letters, digits, '.', '_' and '-', not {recording.name!r}")
    return Base(
        name=recording.name,
        path=path,
        template="",
        language="recorded",
        workload=recording.workload or recording.kernel,
        entry=recording.kernel,
        doc=recording.source,
        dtypes=("recorded",),
        knobs=recording.space.knobs,
        derived={},
        rules={},
        gates={},
        launch=None,
        sources={"": ""},
    )


class ReplayFleet:
    """Plays builder and seat in the driver's process: every answer is looked up."""

    builders = 8
    seats = 1

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        device = recording.device
        facts = DeviceFacts(
            name=str(device.get("name", "")),
            arch=str(device.get("arch", "")),
            uuid=str(device.get("uuid", "")),
            driver=str(device.get("driver", "")),
            limits=device.get("limits", {}),
        )
        anchor, toolchain, torch = (str(device.get(key, "")) for key in ("anchor", "toolchain", "torch"))
        self.ready = Ready(facts, {}, anchor, toolchain, torch)
        self._done: list[Done] = []

    def __enter__(self) -> ReplayFleet:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def building(self) -> int:
        return 0

    def running(self) -> int:
        return 0

    def submit_build(self, number: int, variant: Variant) -> None:
        built = Built(variant.key, b"", variant.key, Resources(), "", 0.0)
        self._finish(number, "build", built)

    def submit_run(self, number: int, variant: Variant, built: Built, best_us: float | None) -> None:
        self._finish(number, "run", self._outcome(variant))

    def wait(self, timeout_s: float) -> list[Done]:
        done, self._done = self._done, []
        return done

    def contest(self, entries: Sequence[tuple[Variant, Built]], rounds: int, sanitized: bool = False) -> Contest:
        """The recorded samples themselves: nothing can be timed again."""
        warm: dict[str, tuple[float, ...]] = {}
        rejected: dict[str, Rejected] = {}
        anchors: list[tuple[float, ...]] = []
        for variant, _ in entries:
            outcome = self._outcome(variant)
            if isinstance(outcome, Rejected):
                rejected[variant.key] = outcome
            else:
                warm[variant.key] = outcome.samples_us
                anchors.append(outcome.anchor_us)
        shortest = min((len(samples) for samples in warm.values()), default=0)
        warm = {key: samples[:shortest] for key, samples in warm.items()}
        anchor = self.recording.anchor
        if anchor and shortest > 0 and all(len(samples) >= shortest for samples in anchors):
            # each was timed beside a variant of its own; a round's anchor is the middle one of them
            rounds_of = zip(*(samples[:shortest] for samples in anchors), strict=True)
            warm[f"baseline:{anchor}"] = tuple(statistics.median(samples) for samples in rounds_of)
        return Contest(warm, {}, rejected, {"replay": describe(self.recording)})

    def _outcome(self, variant: Variant) -> Measured | Rejected:
        return self.recording.outcome(variant.configuration)

    def _finish(self, number: int, kind: str, result: Built | Measured | Rejected) -> None:
        now = time.time()
        self._done.append(Done(number, kind, result, "replay", now, now))


def open_recording(path: Path) -> Recording:
    """Raises: InputError when there is no such file or it is none of the known formats."""
    if not path.is_file():
        raise InputError(f"--recording {path}: no such file; expected a recording, a Kernel Tuner cache or a T4 file")
    return load_recording(path)
