"""Does verification catch what is wrong? Mutants of a workload's kernel, each with one trick, must all be rejected.

A mutant is one source under tests/cheats/LANGUAGE whose first line says the trick; `control` is the right kernel that
they are made from and must pass, or a rejection would mean nothing.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evo.base import CONFIG_HEADERS, SHIPPED, Launch
from evo.errors import InputError
from evo.expression import Expression
from evo.outcome import Built, Rejected, Stage
from evo.space import Value
from evo.targets import LaunchError, Target
from evo.variant import Variant, config_header, variant_key
from evo.workloads import Workload

if TYPE_CHECKING:
    from evo.verify import Oracle

CONTROL = "control"
_SOURCES = {"cuda": (".cu", "plain.cuh"), "host": (".cpp", "plain.hpp")}
_TRICK = re.compile(r"// Trick: (.+)\n(?:// Only when: (\w+)\n)?")
_ENTRIES = {"attention": "attention_forward"}
_LAUNCHES = {"attention": (("seq_q", "heads", "batch"), ("128",))}  # grid and block of the plain kernel


@dataclass(frozen=True, slots=True)
class Mutant:
    """A kernel with one thing wrong."""

    name: str
    trick: str
    source: str = field(repr=False)
    only_when: str = ""  # a constant that must be true for the trick to be one, e.g. "causal"


@dataclass(frozen=True, slots=True)
class Proof:
    """What verification made of each mutant."""

    killed: Mapping[str, str]  # mutant -> reason of its rejection by verification
    survived: Mapping[str, str]  # mutant -> what became of it instead
    control: str = ""  # why the right kernel was rejected; empty when it passed

    @property
    def kill_rate(self) -> float:
        """Share of the mutants that verification rejected; 0 when there were none."""
        return len(self.killed) / max(1, len(self.killed) + len(self.survived))

    @property
    def holds(self) -> bool:
        return not self.control and not self.survived and bool(self.killed)

    def complaint(self) -> str:
        """One line for the user; empty when the proof holds."""
        if self.control:
            return f"verification rejects a right kernel: {self.control}"
        if not self.killed and not self.survived:
            return "there are no mutants to prove verification with"
        names = ", ".join(f"{name} ({fate})" for name, fate in self.survived.items())
        return f"verification lets wrong kernels pass: {names}" if names else ""


def mutants(language: str, workload: str, constants: Mapping[str, Value]) -> list[Mutant]:
    """Every mutant that is wrong under these constants, the control first; none for a workload without mutants.

    Raises: InputError naming the file that does not begin with its trick.
    """
    if workload not in _ENTRIES:
        return []
    suffix, _ = _SOURCES[language]
    found: list[Mutant] = []
    for path in sorted(_folder(language).glob(f"*{suffix}"), key=lambda path: (path.stem != CONTROL, path.stem)):
        source = path.read_text(encoding="utf-8")
        heading = _TRICK.match(source)
        if heading is None:
            raise InputError(f"{path}: line 1: expected // Trick: what is wrong")
        only_when = heading.group(2) or ""
        if not only_when or constants.get(only_when):
            found.append(Mutant(path.stem, heading.group(1), source, only_when))
    return found


def mutant_variant(
    mutant: Mutant, language: str, workload: str, *, constants: Mapping[str, Value], arch: str, toolchain: str
) -> Variant:
    """A mutant as a variant, so that it goes down the same street as every other."""
    _, common = _SOURCES[language]
    sources = {"": mutant.source, common: (_folder(language) / common).read_text(encoding="utf-8")}
    header = config_header((), {}, constants, {})
    entry = _ENTRIES[workload]
    grid, block = _LAUNCHES[workload]
    launch = Launch(
        grid=tuple(Expression.parse(text) for text in grid),
        block=tuple(Expression.parse(text) for text in block),
        shared_bytes=Expression.parse("0"),
    )
    return Variant(
        key=variant_key(sources, header, entry, arch, toolchain),
        base=f"cheat_{mutant.name}",
        language=language,
        entry=entry,
        arch=arch,
        toolchain=toolchain,
        configuration={},
        constants=dict(constants),
        derived={},
        header_name=CONFIG_HEADERS[language],
        header=header,
        sources=sources,
        launch=launch if language == "cuda" else None,
    )


def judge(outcomes: Iterable[tuple[Mutant, Any]]) -> Proof:
    """Kill rate from (mutant, outcome) pairs. A kill is a rejection by verification; the control must have none."""
    killed: dict[str, str] = {}
    survived: dict[str, str] = {}
    control = "it was not tried"
    for mutant, outcome in outcomes:
        fate = outcome.fate if isinstance(outcome, Rejected) else ""
        if mutant.name == CONTROL:
            control = fate and f"{fate}: {outcome.detail}"
        elif isinstance(outcome, Rejected) and outcome.stage is Stage.VERIFY:
            killed[mutant.name] = outcome.reason
        else:
            survived[mutant.name] = fate or "passed"
    return Proof(killed, survived, control)


def prove(target: Target, workload: Workload, case: Any, *, builders: int = 2) -> Proof:
    """Build, load and verify every mutant in this process. `evaluate` of a bench or a seat does the same elsewhere.

    Raises: LaunchError when the device can no longer be used by this process.
    """
    from evo.verify import Oracle

    oracle = Oracle(workload, "cuda" if target.name == "cuda" else "cpu")
    seeds = (secrets.randbits(31), secrets.randbits(31))  # one lets a kernel pass that only repeats its first answer
    chosen = mutants(target.name, workload.name, case.constants())
    variants = variants_of(target, workload, case, chosen)
    outcomes: list[tuple[Mutant, Any]] = []
    with ThreadPoolExecutor(builders) as pool:
        for mutant, variant, built in zip(chosen, variants, pool.map(target.build, variants), strict=True):
            outcomes.append((mutant, _verified(target, workload, oracle, case, seeds, variant, built)))
    return judge(outcomes)


def variants_of(target: Target, workload: Workload, case: Any, chosen: Sequence[Mutant]) -> list[Variant]:
    """The mutants as variants for this target's device and this case."""
    arch, toolchain, constants = target.facts().arch, target.toolchain(), case.constants()
    return [
        mutant_variant(mutant, target.name, workload.name, constants=constants, arch=arch, toolchain=toolchain)
        for mutant in chosen
    ]


def _folder(language: str) -> Path:
    """Where the mutants lie: in the source tree, or beside what else a wheel ships. Raises: InputError."""
    for folder in (SHIPPED / "cheats" / language, SHIPPED / "tests" / "cheats" / language):
        if folder.is_dir():
            return folder
    raise InputError(f"{SHIPPED}: expected tests/cheats/{language}, the mutants that prove verification")


def _verified(
    target: Target,
    workload: Workload,
    oracle: Oracle,
    case: Any,
    seeds: Sequence[int],
    variant: Variant,
    built: Built | Rejected,
) -> Any:
    from evo.verify import verify

    if isinstance(built, Rejected):
        return built
    try:
        program = target.load(built, variant, workload)
    except LaunchError as error:
        if error.fatal:
            raise
        return Rejected(Stage.LAUNCH, error.reason, error.detail)
    return verify(program, built, oracle, workload.trial_cases(case), seeds)
