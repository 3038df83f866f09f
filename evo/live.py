"""Do the knobs reach the binary? Values that change nothing are named before a search measures one program many times.

Around several configurations each knob's values are built with the others held; a pair of values is live once two
binaries differ. Only pairs not yet told apart are built again elsewhere, so a sound base costs about one build a value.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evo.base import Base
from evo.build_cache import cache_folder, write_whole
from evo.expression import value_text
from evo.outcome import Built, Rejected
from evo.space import Configuration, SearchSpace, Value
from evo.targets import DeviceFacts, build
from evo.variant import Variant, make_variant

BuildAll = Callable[[Sequence[Variant]], Iterable[Built | Rejected]]

_METHOD = 1  # part of the cache key: raise it when what is checked changes
_TARGETED = 40  # configurations drawn to find a place where a rare pair of values can be compared


@dataclass(frozen=True, slots=True)
class SameProgram:
    """Two values of one knob that gave one binary wherever they were compared."""

    knob: str
    values: tuple[Value, Value]
    compared: int  # places


@dataclass(frozen=True, slots=True)
class LiveReport:
    """What the knobs of a base do to its binary."""

    base: str
    dead: tuple[str, ...]  # knobs of which no two values gave different binaries
    duplicates: tuple[SameProgram, ...]  # of knobs that are not dead
    untried: tuple[str, ...]  # "knob=value": no two admissible configurations differed in it alone
    failed: Mapping[str, int]  # reason -> builds of admissible configurations that failed
    builds: int
    programs: int  # distinct binaries among them
    cached: bool = False

    @property
    def holds(self) -> bool:
        return not self.dead


def check_live(
    base: Base,
    *,
    constants: Mapping[str, Value],
    facts: DeviceFacts,
    toolchain: str,
    build_all: BuildAll | None = None,
    places: int = 6,
    seed: int = 0,
    cache: Path | None = None,
) -> LiveReport:
    """Compare the binaries of every knob's values around up to `places` configurations; kept on disk by content.

    build_all: builds variants and yields their outcomes in order; by default with threads on this machine.
    cache: folder of reports; None is the user's own, and a folder that cannot be written is done without.
    Raises: InputError when the base has no admissible configuration.
    """
    folder = cache or cache_folder() / "live"
    path = folder / f"{_content_key(base, constants, facts, toolchain, places, seed)}.json"
    known = _read(path)
    if known is not None:
        return known
    space = base.space({**constants, **facts.limits})

    def variant(configuration: Configuration) -> Variant:
        return make_variant(
            base,
            space,
            configuration,
            constants=constants,
            facts=facts.limits,
            arch=facts.arch,
            toolchain=toolchain,
        )

    probe = _Probe(space, variant, build_all or _build_here)
    rng = np.random.default_rng(seed)
    for place in itertools.islice(itertools.chain([space.default], space.sample(rng, places - 1)), places):
        probe.look_around(place)
    probe.look_for_rare_pairs(rng)
    report = probe.report(base.name)
    _write(path, report)
    return report


Pair = tuple[int, int]  # places of two values in their knob


class _Probe:
    """Pairs of values that were told apart, and those that were not yet."""

    def __init__(self, space: SearchSpace, variant: Callable[[Configuration], Variant], build_all: BuildAll) -> None:
        self.space, self._variant, self._build_all = space, variant, build_all
        self.hashes: dict[tuple[int, ...], str] = {}  # configuration's indices -> binary; "" where the build failed
        self.failed: Counter[str] = Counter()
        self.open: dict[int, set[Pair]] = {
            k: set(itertools.combinations(range(len(knob.values)), 2)) for k, knob in enumerate(space.knobs)
        }
        self.equal: Counter[tuple[int, Pair]] = Counter()  # how often a pair gave one binary
        self.distinct: set[int] = set()  # knobs of which two values gave two binaries

    def look_around(self, place: Configuration, only: tuple[int, Pair] | None = None) -> None:
        """Build the admissible values of every knob with open pairs, the others as in `place`; compare."""
        wanted = {only[0]: {only[1]}} if only else self.open
        groups: dict[int, dict[int, tuple[int, ...]]] = {}
        for k, pairs in wanted.items():
            values = sorted({value for pair in pairs for value in pair})
            placed = {value: self._moved(place, k, value) for value in values}
            groups[k] = {value: indices for value, indices in placed.items() if indices is not None}
        self._build(indices for group in groups.values() if len(group) > 1 for indices in group.values())
        for k, group in groups.items():
            for pair in sorted(wanted[k]):
                ours, theirs = (self.hashes.get(group.get(value, ()), "") for value in pair)
                if ours and theirs and ours != theirs:
                    self.open[k] = self.open[k] - {pair}
                    self.distinct.add(k)
                elif ours and theirs:
                    self.equal[k, pair] += 1

    def look_for_rare_pairs(self, rng: np.random.Generator) -> None:
        """Give each value that was never compared a place of its own, where the rules leave one."""
        places = list(self.space.sample(rng, _TARGETED))
        for k, value in self._never_compared():
            for place, other in itertools.product(places, range(len(self.space.knobs[k].values))):
                pair = (min(value, other), max(value, other))
                if other != value and all(self._moved(place, k, each) is not None for each in pair):
                    self.look_around(place, only=(k, pair))
                    break

    def report(self, base: str) -> LiveReport:
        knobs = self.space.knobs
        compared = {k for k, _ in self.equal} | self.distinct
        dead = {k for k in compared if k not in self.distinct}
        duplicates = [
            SameProgram(knobs[k].name, (knobs[k].values[pair[0]], knobs[k].values[pair[1]]), times)
            for (k, pair), times in sorted(self.equal.items())
            if k not in dead and pair in self.open[k]
        ]
        return LiveReport(
            base=base,
            dead=tuple(knobs[k].name for k in sorted(dead)),
            duplicates=tuple(duplicates),
            untried=tuple(
                f"{knobs[k].name}={value_text(knobs[k].values[value])}" for k, value in self._never_compared()
            ),
            failed=dict(self.failed),
            builds=len(self.hashes),
            programs=len({found for found in self.hashes.values() if found}),
        )

    def _never_compared(self) -> Iterator[tuple[int, int]]:
        """(knob, value) of knobs with several values, where every pair of that value is open and never was equal."""
        for k, knob in enumerate(self.space.knobs):
            for value in range(len(knob.values)):
                pairs = {pair for pair in itertools.combinations(range(len(knob.values)), 2) if value in pair}
                if pairs and pairs <= self.open[k] and not any(self.equal[k, pair] for pair in pairs):
                    yield k, value

    def _moved(self, place: Configuration, k: int, value: int) -> tuple[int, ...] | None:
        """`place` with one knob changed; None where the rules forbid it."""
        indices = (*place.indices[:k], value, *place.indices[k + 1 :])
        return indices if self.space.at(indices) in self.space else None

    def _build(self, wanted: Iterable[tuple[int, ...]]) -> None:
        missing = [indices for indices in dict.fromkeys(wanted) if indices not in self.hashes]
        variants = [self._variant(self.space.at(indices)) for indices in missing]
        for indices, outcome in zip(missing, self._build_all(variants), strict=True):
            if isinstance(outcome, Rejected):
                self.failed[outcome.reason] += 1
            self.hashes[indices] = outcome.binary_hash if isinstance(outcome, Built) else ""


def _build_here(variants: Sequence[Variant]) -> Iterable[Built | Rejected]:
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as pool:
        return list(pool.map(build, variants))


def _content_key(
    base: Base, constants: Mapping[str, Value], facts: DeviceFacts, toolchain: str, places: int, seed: int
) -> str:
    """Digest of all that the report depends on."""
    parts: list[Any] = [
        _METHOD,
        places,
        seed,
        base.entry,
        sorted(base.sources.items()),
        [(knob.name, knob.values, knob.default) for knob in base.knobs],
        [(name, rule.text) for name, rule in (*base.rules.items(), *base.derived.items())],
        sorted(constants.items()),
        sorted(facts.limits.items()),
        facts.arch,
        toolchain,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _read(path: Path) -> LiveReport | None:
    """A report kept earlier; None when there is none that can be read."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        duplicates = tuple(
            SameProgram(entry["knob"], tuple(entry["values"]), entry["compared"]) for entry in kept.pop("duplicates")
        )
        dead, untried = tuple(kept.pop("dead")), tuple(kept.pop("untried"))
        return replace(LiveReport(dead=dead, duplicates=duplicates, untried=untried, **kept), cached=True)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(path: Path, report: LiveReport) -> None:
    """Keep a report; a cache that cannot be written costs only time."""
    with contextlib.suppress(OSError):
        write_whole(path, json.dumps(asdict(report)).encode())
